"""Dynamics behind snapshots of patterns: score, flow and their comparison with the simulator."""

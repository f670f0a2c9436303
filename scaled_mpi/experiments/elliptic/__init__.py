"""Certified solves of elliptic problems, and implicit steps in time."""

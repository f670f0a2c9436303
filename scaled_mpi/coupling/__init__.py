"""Coupling of local operators over the tiles of a decomposed domain."""

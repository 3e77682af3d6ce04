"""Measures of what the backbones have in common and where they differ: pure functions of arrays."""

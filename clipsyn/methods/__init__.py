"""Pools, heads and ensembles: several backbones in memory, and how they are combined."""

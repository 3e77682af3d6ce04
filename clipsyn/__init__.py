"""clipsyn: extract CLIP backbones once into a feature store, analyse and combine them for ever after."""

__version__ = "0.1.0"

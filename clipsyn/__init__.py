"""clipsyn: extract CLIP backbones once into a feature store, analyse them for ever after."""

__version__ = "0.1.0"

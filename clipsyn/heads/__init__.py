"""Heads: what turns a backbone's embeddings into logits. See `clipsyn.heads.base`."""

from __future__ import annotations

from clipsyn.plugins import Plugins
from clipsyn.registry import Registry

HEADS = Registry(
    "head",
    {
        "zero-shot": "clipsyn.heads.zero_shot:ZeroShot",
        "linear-probe": "clipsyn.heads.linear:LinearProbe",
        "tip-adapter": "clipsyn.heads.tip:TipAdapter",
        "tip-adapter-f": "clipsyn.heads.tip:TipAdapterF",
        "lda": "clipsyn.heads.lda:ShrinkageLDA",
        "anchored-probe": "clipsyn.heads.anchored:AnchoredProbe",
    },
    plugins=Plugins("head", "clipsyn.heads", "clipsyn.heads.base:Head"),
)

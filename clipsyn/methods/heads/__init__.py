"""Heads: what turns a backbone's embeddings into logits. See `clipsyn.methods.heads.base`."""

from __future__ import annotations

from clipsyn.registry import Registry

ZERO_SHOT = "zero-shot"
USUAL_HEADS = ZERO_SHOT, "lda"  # the simpler one first; what can be fitted in seconds

HEADS = Registry(
    "head",
    {
        ZERO_SHOT: "clipsyn.methods.heads.base:ZeroShot",
        "linear-probe": "clipsyn.methods.heads.linear:LinearProbe",
        "tip-adapter": "clipsyn.methods.heads.cache:TipAdapter",
        "tip-adapter-f": "clipsyn.methods.heads.cache:TipAdapterF",
        "ape": "clipsyn.methods.heads.cache:APE",
        "lda": "clipsyn.methods.heads.lda:ShrinkageLDA",
        "proker": "clipsyn.methods.heads.kernel:ProKeR",
        "clap": "clipsyn.methods.heads.trained:CLAP",
        "lp++": "clipsyn.methods.heads.trained:LPPlusPlus",
        "rla": "clipsyn.methods.heads.trained:ResidualAdapter",
        "anchored-probe": "clipsyn.methods.heads.linear:AnchoredProbe",
    },
)

"""clipsyn: extract CLIP backbones once into a feature store; analyse and combine them ever after.

Public names are imported when they are first used: ``import clipsyn`` loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipsyn.registry import Registry

__version__ = "0.1.0"

_MODULES = {
    "clipsyn.store.features": ("FeatureStore",),
    "clipsyn.pool": ("Pool",),
    "clipsyn.numerics.fewshot": ("few_shot",),
    "clipsyn.ensembles.static": (
        *("BestSingle", "VoteTop1", "VoteTop3", "Confidence", "LogAverage", "ProbabilityAverage"),
    ),
    "clipsyn.ensembles.calibrated": ("CalibratedConfidence", "CalibratedLogAverage"),
    "clipsyn.ensembles.super_learner": ("SuperLearner",),
    "clipsyn.ensembles.genetic": ("GeneticAlgorithm",),
    "clipsyn.ensembles.greedy": ("GreedySelection",),
    "clipsyn.ensembles.stacking": ("Stacking",),
    "clipsyn.ensembles.dynamic": ("OverallLocalAccuracy", "KnoraUnion"),
    "clipsyn.ensembles.moe": ("MixtureOfExperts",),
    "clipsyn.ensembles.nlc": ("NLC",),
    "clipsyn.ensembles.residual": ("ResidualRouter",),
    "clipsyn.heads.zero_shot": ("ZeroShot",),
    "clipsyn.heads.linear": ("LinearProbe",),
    "clipsyn.heads.tip": ("TipAdapter", "TipAdapterF"),
    "clipsyn.heads.lda": ("ShrinkageLDA",),
    "clipsyn.heads.anchored": ("AnchoredProbe",),
    "clipsyn.protocol.loop": ("evaluate",),
    "clipsyn.router": ("FittedRouter", "fit_router", "load_router", "save_router"),
    "clipsyn.router.predict": ("predict_store",),  # brings polars, which the others do without
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__all__":  # what `from clipsyn import *` gives
        return dir(import_module(__name__))
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in (analyses := _analyses()):
        return analyses.load(name)
    raise AttributeError(f"module 'clipsyn' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(["__version__", *_HOME, *_analyses()])


def _analyses() -> Registry:
    from clipsyn.analyses import ANALYSES

    return ANALYSES

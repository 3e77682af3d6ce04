"""clipsyn: extract CLIP backbones once into a feature store; analyse and combine them ever after.

Public names are imported when they are first used: ``import clipsyn`` loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

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
    "clipsyn.router": ("FittedRouter", "fit_router", "load_router", "save_router"),
    "clipsyn.router.predict": ("predict_store",),  # brings polars, which the others do without
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604 (texts all of them)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'clipsyn' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

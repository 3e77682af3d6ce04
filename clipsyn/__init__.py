"""clipsyn: extract CLIP backbones once into a feature store; analyse and combine them ever after.

Public names are imported when they are first used: ``import clipsyn`` loads nothing.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {  # beside analyses, ensembles and heads, which their registries name
    "clipsyn.store.features": ("FeatureStore",),
    "clipsyn.store.samples": ("SampleTable", "CaptionTable"),
    "clipsyn.methods.pool": ("Pool",),
    "clipsyn.methods.numerics.samples": ("few_shot",),
    "clipsyn.evaluation.loop": ("evaluate",),
    "clipsyn.evaluation.paired": ("compare_methods",),
    "clipsyn.report.page": ("write_report",),
    "clipsyn.report.search": ("search",),
    "clipsyn.evaluation.published": ("compare",),
    "clipsyn.router.fit": ("FittedRouter", "fit_router"),
    "clipsyn.router.artefact": ("load_router", "save_router"),
    "clipsyn.router.predict": ("predict_store",),  # brings polars, which the others do without
    "clipsyn.report.evidence": ("plot",),
}


def __getattr__(name: str) -> Any:
    if name == "__all__":  # what `from clipsyn import *` gives
        return dir(import_module(__name__))
    if name in _homes():
        return getattr(import_module(_homes()[name]), name)
    raise AttributeError(f"module 'clipsyn' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(["__version__", *_homes()])


@cache
def _homes() -> dict[str, str]:
    """The module of each public name."""
    from clipsyn.analyses import ANALYSES
    from clipsyn.methods.ensembles import ENSEMBLES
    from clipsyn.methods.heads import HEADS

    homes = {name: module for module, names in _MODULES.items() for name in names}
    return homes | ANALYSES.homes() | ENSEMBLES.homes() | HEADS.homes()

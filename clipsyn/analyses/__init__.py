"""Analyses of a feature store: each has a folder, and a line here."""

from __future__ import annotations

from clipsyn.registry import Registry

ANALYSES = Registry(
    "analysis",
    {
        "zeroshot": "clipsyn.analyses.accuracy:zeroshot",
        "oracle": "clipsyn.analyses.oracle:oracle",
        "diversity": "clipsyn.analyses.diversity:diversity",
        "representation": "clipsyn.analyses.representation:representation",
        "robustness": "clipsyn.analyses.robustness:robustness",
        "cascade": "clipsyn.analyses.cascade:cascade",
        "selective": "clipsyn.analyses.selective:selective",
    },
)

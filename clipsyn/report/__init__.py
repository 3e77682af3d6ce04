"""What people look at: figures by name, and the page."""

from __future__ import annotations

from clipsyn.registry import Registry

FIGURES = Registry(
    "figure",
    {
        "accuracy-matrix": "clipsyn.analyses.accuracy.figures:accuracy_matrix",
        "router-weights": "clipsyn.router.figures:router_weights",
    },
)

"""What people look at: figures by name, and the page."""

from __future__ import annotations

from clipsyn.registry import Registry

FIGURES = Registry(
    "figure",
    {
        "accuracy-matrix": "clipsyn.analyses.accuracy.view:accuracy_matrix",
        "upset": "clipsyn.analyses.oracle.figures:upset",
        "venn": "clipsyn.analyses.oracle.figures:venn",
        "chosen": "clipsyn.evaluation.bars:chosen_bars",
        "gains": "clipsyn.evaluation.figures:gains",
        "few-shot": "clipsyn.evaluation.figures:few_shot",
        "reliability": "clipsyn.analyses.representation.view:reliability",
        "router-weights": "clipsyn.router.figures:router_weights",
        "error-consistency": "clipsyn.analyses.diversity.view:error_consistency",
        "diversity-gain": "clipsyn.analyses.diversity.view:diversity_gain",
        "severity": "clipsyn.analyses.robustness.figures:severity",
        "corruptions": "clipsyn.analyses.robustness.figures:corruptions",
        "pareto": "clipsyn.analyses.cascade.view:pareto",
        "coverage": "clipsyn.analyses.selective.figures:coverage",
        "cka": "clipsyn.analyses.representation.view:cka",
    },
)

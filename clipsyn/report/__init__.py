"""What people look at: figures by name, and the page."""

from __future__ import annotations

from clipsyn.registry import Registry

FIGURES = Registry(
    "figure",
    {
        "accuracy-matrix": "clipsyn.analyses.accuracy.figures:accuracy_matrix",
        "upset": "clipsyn.analyses.oracle.figures:upset",
        "venn": "clipsyn.analyses.oracle.venn:venn",
        "chosen": "clipsyn.evaluation.bars:chosen_bars",
        "gains": "clipsyn.evaluation.figures:gains",
        "few-shot": "clipsyn.evaluation.figures:few_shot",
        "reliability": "clipsyn.analyses.representation.figures:reliability",
        "router-weights": "clipsyn.router.figures:router_weights",
        "error-consistency": "clipsyn.analyses.diversity.figures:error_consistency",
        "diversity-gain": "clipsyn.analyses.diversity.figures:diversity_gain",
        "severity": "clipsyn.analyses.robustness.figures:severity",
        "corruptions": "clipsyn.analyses.robustness.figures:corruptions",
        "pareto": "clipsyn.analyses.cascade.figures:pareto",
        "coverage": "clipsyn.analyses.selective.figures:coverage",
        "cka": "clipsyn.analyses.representation.figures:cka",
    },
)

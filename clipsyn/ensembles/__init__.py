"""Ensembles: what turns the logits of several backbones into one. See `clipsyn.ensembles.base`.

The group is where help and documentation list an ensemble. Static ones learn nothing, fitted ones
learn one rule for all images, the last learn how far to trust each backbone for each image.
"""

from __future__ import annotations

from clipsyn.plugins import Plugins
from clipsyn.registry import Registry

STATIC, FITTED, PER_IMAGE = "Static", "Fitted", "Per image"

ENSEMBLES = Registry(
    "ensemble",
    {
        "best-single": ("clipsyn.ensembles.static:BestSingle", FITTED),
        "vote-1": ("clipsyn.ensembles.static:VoteTop1", STATIC),
        "vote-3": ("clipsyn.ensembles.static:VoteTop3", STATIC),
        "conf": ("clipsyn.ensembles.static:Confidence", STATIC),
        "log-avg": ("clipsyn.ensembles.static:LogAverage", STATIC),
        "prob-avg": ("clipsyn.ensembles.static:ProbabilityAverage", STATIC),
        "c-conf": ("clipsyn.ensembles.calibrated:CalibratedConfidence", FITTED),
        "c-log-avg": ("clipsyn.ensembles.calibrated:CalibratedLogAverage", FITTED),
        "super-learner": ("clipsyn.ensembles.super_learner:SuperLearner", FITTED),
        "gac": ("clipsyn.ensembles.genetic:GeneticAlgorithm", FITTED),
        "greedy": ("clipsyn.ensembles.greedy:GreedySelection", FITTED),
        "stacking": ("clipsyn.ensembles.stacking:Stacking", FITTED),
        "ola": ("clipsyn.ensembles.dynamic:OverallLocalAccuracy", PER_IMAGE),
        "knora-u": ("clipsyn.ensembles.dynamic:KnoraUnion", PER_IMAGE),
        "moe": ("clipsyn.ensembles.moe:MixtureOfExperts", PER_IMAGE),
        "nlc": ("clipsyn.ensembles.nlc:NLC", PER_IMAGE),
        "residual-router": ("clipsyn.ensembles.residual:ResidualRouter", PER_IMAGE),
    },
    plugins=Plugins("ensemble", "clipsyn.ensembles", "clipsyn.ensembles.base:Ensemble"),
    groups=(STATIC, FITTED, PER_IMAGE),
)


def place_of(text: str) -> int:
    """Where an ensemble, ``NAME`` or ``NAME:parameter=value``, stands in the registry.

    After all others for one that is not ours.
    """
    names = [*ENSEMBLES]
    name = text.partition(":")[0]
    return names.index(name) if name in names else len(names)

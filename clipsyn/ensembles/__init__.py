"""Ensembles: what turns the logits of several backbones into one. See `clipsyn.ensembles.base`."""

from __future__ import annotations

from clipsyn.plugins import Plugins
from clipsyn.registry import Registry

ENSEMBLES = Registry(
    "ensemble",
    {
        "best-single": "clipsyn.ensembles.static:BestSingle",
        "vote-1": "clipsyn.ensembles.static:VoteTop1",
        "vote-3": "clipsyn.ensembles.static:VoteTop3",
        "conf": "clipsyn.ensembles.static:Confidence",
        "log-avg": "clipsyn.ensembles.static:LogAverage",
        "prob-avg": "clipsyn.ensembles.static:ProbabilityAverage",
        "c-conf": "clipsyn.ensembles.calibrated:CalibratedConfidence",
        "c-log-avg": "clipsyn.ensembles.calibrated:CalibratedLogAverage",
        "super-learner": "clipsyn.ensembles.super_learner:SuperLearner",
        "gac": "clipsyn.ensembles.genetic:GeneticAlgorithm",
        "greedy": "clipsyn.ensembles.greedy:GreedySelection",
        "stacking": "clipsyn.ensembles.stacking:Stacking",
        "ola": "clipsyn.ensembles.dynamic:OverallLocalAccuracy",
        "knora-u": "clipsyn.ensembles.dynamic:KnoraUnion",
        "moe": "clipsyn.ensembles.moe:MixtureOfExperts",
        "nlc": "clipsyn.ensembles.nlc:NLC",
        "residual-router": "clipsyn.ensembles.residual:ResidualRouter",
    },
    plugins=Plugins("ensemble", "clipsyn.ensembles", "clipsyn.ensembles.base:Ensemble"),
)


def place_of(text: str) -> int:
    """Where an ensemble, ``NAME`` or ``NAME:parameter=value``, stands in the registry.

    After all others for one that is not ours.
    """
    names = [*ENSEMBLES]
    name = text.partition(":")[0]
    return names.index(name) if name in names else len(names)

"""What the backbones in STORE cost, and cascades of them.

A cascade runs one backbone after the other, combines what it has, and stops at the first answer
that is confident enough. Accuracy against mean cost at each threshold, beside single backbones and
ensembles of all their subsets; which of them are on the Pareto front. Everything is fitted and
chosen on the support split.

\b
clipsyn cascade store
clipsyn cascade store --agreement 0.67,1 --tier 3
clipsyn cascade store --ensembles nlc,super-learner --within 0.5
clipsyn cascade store -d emoji-food --thresholds 0.5,0.9 --cost my/backbone=17.5 -o out.csv

>>> import clipsyn
>>> store = clipsyn.FeatureStore.open("store")
>>> frame = clipsyn.cascade(store, perturbations="clean")
>>> exits = frame.filter(metric="exit", threshold=0.1)
>>> exits.select("stage", "value").rows()  # the share of images that is answered there
[(1, 1.0), (2, 0.0)]
"""

from __future__ import annotations

from collections.abc import Mapping

from clipsyn.analyses import Analysis
from clipsyn.evaluation import Learning
from clipsyn.methods.ensembles import PLAIN
from clipsyn.settings import COSTS, NAMES, NUMBER, NUMBERS, WHOLE, setting

GIVEN, WITHIN = "given", "within"  # rules for thresholds
ABC = "abc"  # in place of an ensemble: tiers of backbones that leave by agreement


class CascadeSettings(Learning):
    """What cascades are made of, and what they are fitted on."""

    ensembles: tuple[str, ...] = setting(
        (PLAIN,),
        NAMES,
        "What combines the first k backbones, beside log-avg: NAME or NAME:parameter=value, "
        "repeated or with commas.",
    )
    thresholds: tuple[float, ...] = setting(
        (*(round(0.1 * step, 1) for step in range(1, 10)), 0.95, 0.99),
        NUMBERS,
        "Confidences to leave at, repeated or with commas.",
        least=0,
        most=1,
    )
    within_points: float = setting(
        1.0,
        NUMBER,
        "Points of accuracy that the threshold chosen on the support may lose there.",
        metavar="POINTS",
        least=0,
    )
    agreement: tuple[float, ...] = setting(
        (),
        NUMBERS,
        "Also cascades of tiers that vote (abc): shares of equal votes to leave at, as 0.67,1.",
        least=0,
        most=1,
    )
    tier: int = setting(3, WHOLE, "Backbones in a tier of abc.", least=1)
    costs: Mapping[str, float] = setting(
        {},
        COSTS,
        "What an image costs a backbone, where that is not known or another number is wanted.",
        metavar="NAME=GFLOPS",
        least=0,
    )


cascade = Analysis(
    name="cascade",
    short="What backbones cost, and what stopping early saves.",
    settings=CascadeSettings,
)

"""Selective prediction with what is in STORE: the least confident answers are withheld.

For each backbone and ensemble: accuracy against coverage, the area under the risk-coverage curve,
and how much of it the best order of confidence would save. For each wished accuracy a threshold is
chosen on the support split, by a lower bound over 20 answers or more: how many images are answered
on test then, and how many of them rightly. With --ood: how well are images of other datasets told
by low confidence?

\b
clipsyn selective store
clipsyn selective store --ensembles log-avg,super-learner --accuracy 0.8,0.9
clipsyn selective store -d emoji-food --ood emoji-animals,fashion-mnist -o out.csv

>>> import clipsyn
>>> store = clipsyn.FeatureStore.open("store")
>>> frame = clipsyn.selective(store, scores="margin")
>>> areas = frame.filter(metric="aurc")  # of both backbones, and of the average of their logits
>>> areas["value"].round(2).to_list()
[0.81, 0.65, 0.68]
"""

from __future__ import annotations

from clipsyn.analyses import Analysis
from clipsyn.evaluation import Learning
from clipsyn.settings import NAMES, NUMBERS, setting

SCORES = ("max-softmax", "margin", "entropy", "agreement")


class SelectiveSettings(Learning):
    """Whose answers are ranked, by which confidence, and what for."""

    ensembles: tuple[str, ...] = setting(
        ("log-avg",),
        NAMES,
        "Beside each backbone: NAME or NAME:parameter=value, fitted on the support.",
    )
    scores: tuple[str, ...] = setting(
        SCORES,
        NAMES,
        "How sure an answer is: its probability, its margin over the second class, "
        "1 - entropy / log(classes), or the share of the backbones that agree with it.",
        choices=SCORES,
    )
    accuracies: tuple[float, ...] = setting(
        (0.95,),
        NUMBERS,
        "Wished of the answers that are given: a lower bound on the support chooses the threshold.",
        least=0,
        most=1,
    )
    ood: tuple[str, ...] | None = setting(
        None,
        NAMES,
        "Datasets whose images show none of the classes, to be told by low confidence.",
        metavar="DATASET",
    )


selective = Analysis(
    name="selective",
    short="Accuracy when the least confident answers are withheld.",
    settings=SelectiveSettings,
)

"""What perturbations do to the backbones in STORE, with zero-shot predictions.

Accuracy, its drop, relative robustness and corruption error (mCE); which backbone is best under
which perturbation, and whether their order changes; the gain of the oracle, and with --results of
ensembles, under perturbation. Several datasets are shown by their mean; what
-o writes has everything with intervals.

\b
clipsyn robustness store
clipsyn robustness store -d emoji-food -p 'fog-*,jpeg-*'
clipsyn robustness store --reference tiny-RN/zoo --results results.parquet -o robustness.csv

>>> import clipsyn
>>> store = clipsyn.FeatureStore.open("store")
>>> frame = clipsyn.robustness(store)
>>> drop = frame.filter(metric="drop", perturbation="jpeg-3")
>>> drop.select("ensemble", "backbones", "value").row(1)
('single', ['fake/two'], 0.0)
"""

from __future__ import annotations

from pathlib import Path

from clipsyn.analyses import Analysis
from clipsyn.evaluation import Selection, head_of_results, shots_of_results
from clipsyn.settings import PATH, TEXT, Shots, setting


class RobustnessSettings(Selection):
    """What `clipsyn robustness` is asked for."""

    reference: str | None = setting(
        None,
        TEXT,
        "Backbone that corruption errors are divided by.",
        instead_of_none="the weakest on clean images",
    )
    results: Path | None = setting(
        None, PATH, "Results of `clipsyn evaluate -p '*' -o`: show the ensembles in it."
    )
    head: str = head_of_results("ensembles")
    shots: Shots | None = shots_of_results("ensembles")


robustness = Analysis(
    name="robustness",
    short="What perturbations do to accuracy, order and ensembles.",
    settings=RobustnessSettings,
    lacking="labels, perturbed images",
)

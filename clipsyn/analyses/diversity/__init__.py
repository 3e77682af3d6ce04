"""How differently the backbones in STORE err, with zero-shot predictions.

Error inconsistency, disagreement, double fault, Yule's Q and error consistency (Cohen's kappa) of
every pair of backbones, and their means; Fleiss' kappa, the entropy of votes, and what only one
backbone gets right. One dataset and perturbation is shown pair by pair, several by their means;
What -o writes has all pairs with intervals.

With --results also whether ensembles gain more where the backbones differ more: correlations of
each measure with the gain over the best single backbone, over datasets, with 95 % intervals.

\b
clipsyn diversity store
clipsyn diversity store -d emoji-food -p clean
clipsyn diversity store --results results.parquet --shots 16 -o diversity.csv

>>> import clipsyn
>>> store = clipsyn.FeatureStore.open("store")
>>> frame = clipsyn.diversity(store, perturbations="clean")
>>> frame.filter(metric="disagreement").select("backbones", "value").rows()
[(['fake/one', 'fake/two'], 0.7)]
"""

from __future__ import annotations

from pathlib import Path

from clipsyn.analyses import Analysis
from clipsyn.evaluation import Selection, head_of_results, pooled, shots_of_results
from clipsyn.settings import PATH, Shots, setting


class DiversitySettings(Selection):
    """What `clipsyn diversity` is asked for."""

    pooled: bool = pooled()
    results: Path | None = setting(
        None,
        PATH,
        "Results of `clipsyn evaluate -o`: correlate with the gains in it, over datasets.",
    )
    head: str = head_of_results("gains")
    shots: Shots | None = shots_of_results("gains")


diversity = Analysis(
    name="diversity",
    short="How differently the backbones err.",
    settings=DiversitySettings,
    lacking="labels, a second backbone",
)

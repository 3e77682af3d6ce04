"""How differently the backbones of a store err, and whether ensembles gain by it.

Reads predictions and labels; no logit, no embedding. All numbers are over the samples that every
backbone has a prediction for; intervals are bootstrap ones over samples, of the same resamples for
all numbers of a group. docs/analysis.md lists the metrics; `ensemble` is null. With `results`, a
file of `clipsyn evaluate`, the rows of `gains` and of `correlations` come after these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.diversity import DiversitySettings
from clipsyn.analyses.diversity.correlations import check_gains, correlations, gains, pairs_of
from clipsyn.analyses.diversity.measures import (
    PAIRWISE,
    Counts,
    PairMeasure,
    fleiss_kappa,
    over_pairs,
    pair_counts,
    resampled,
    vote_entropy,
)
from clipsyn.analyses.oracle.measures import Overlap
from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.analyses.shares import estimate, share
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import Measured, Row, frame
from clipsyn.methods.numerics.metrics import correctness
from clipsyn.stats.significance import holm, mcnemar
from clipsyn.store.features import FeatureStore

_Places = tuple[int, ...]  # of the backbones that a number is about


def measure(store: FeatureStore, settings: DiversitySettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT`.

    Groups of one backbone are left out. Raises UsageError where no group has two, or a dataset that
    is asked for has none that does, and where the results are of other samples or backbones;
    MissingCell, UnknownName and DatasetError as `predicted` does.
    """
    rows: list[Row] = []
    alone: dict[str, str] = {}  # dataset/split -> the only backbone there
    for group in predicted(store, settings, pooled=settings.pooled):
        if len(group.keys) == 1:
            alone[group.samples.name] = group.backbones[0]
        else:
            rows += _rows(group)
    measured = frame(rows)
    _refuse(alone, measured, every=settings.datasets is not None)
    if settings.results is None:
        return measured
    pairs = pairs_of(measured, settings.results, settings.head, settings.shots)
    check_gains(store, pairs, settings.results)
    given = gains(pairs, settings.head), correlations(pairs, settings.head)
    return pl.concat([measured, *given])


def _refuse(alone: dict[str, str], measured: pl.DataFrame, *, every: bool) -> None:
    """Raise UsageError where one backbone is all there is; every: for any dataset and split."""
    there = set(map("/".join, measured.select("dataset", "split").iter_rows()))
    lacking = {place: name for place, name in alone.items() if place not in there}
    if lacking and (every or measured.is_empty()):
        place, name = next(iter(lacking.items()))
        raise UsageError(
            f"{place} has only one backbone here, {name}, and it takes two to differ: choose more "
            "with backbones=…, or add one with `clipsyn extract`"
        )


def _rows(group: Predicted) -> Iterator[Row]:
    for places, number in _numbers(group):
        yield group.row(number, tuple(group.backbones[place] for place in places))


def _numbers(group: Predicted) -> Iterator[tuple[_Places, Measured]]:
    """Everything that is measured of one group, with the backbones that it is about."""
    predictions, labels = group.predictions, group.labels
    counts = pair_counts(predictions, labels)
    draws, entropies = resampled(predictions, labels)
    every = tuple(range(len(predictions)))
    for name in PAIRWISE:
        values, drawn = _matrices(PAIRWISE.load(name), group, counts, draws)
        for i, j in combinations(every, 2):
            of_pair = None if drawn is None else drawn[:, i, j]
            yield (i, j), estimate(name, values[i, j], counts.n, of_pair)
        means = None if drawn is None else over_pairs(drawn)
        yield every, estimate(f"mean_{name}", over_pairs(values), counts.n, means)
    yield every, estimate("fleiss_kappa", fleiss_kappa(counts), counts.n, fleiss_kappa(draws))
    entropy = vote_entropy(predictions, labels)
    yield every, estimate("vote_entropy", entropy, counts.n, entropies)
    overlap = Overlap.of(correctness(predictions, labels))
    for b, hits in enumerate(overlap.only()):
        yield (b,), share("unique_correct", int(hits), counts.n)
    for b, floor in enumerate(overlap.mean(overlap.guessed(group.n_classes))):
        yield (b,), estimate("unique_correct_floor", floor, counts.n)
    yield from _significance(counts)


def _matrices(
    measure: Callable[..., NDArray[np.float64]], group: Predicted, counts: Counts, draws: Counts
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """A measure (backbone, backbone) of the samples, and of all resamples if it is of counts."""
    if isinstance(measure, PairMeasure):
        return measure.formula(counts), measure.formula(draws)
    return measure(group.predictions, group.labels), None


def _significance(counts: Counts) -> Iterator[tuple[_Places, Measured]]:
    pairs = list(combinations(range(len(counts.right)), 2))
    only = counts.only.astype(int)
    nan = float("nan")
    p = np.array([mcnemar(only[i, j], only[j, i]) if counts.n else nan for i, j in pairs])
    for name, values in (("mcnemar_p", p), ("mcnemar_p_holm", holm(p))):
        for pair, value in zip(pairs, values, strict=True):
            yield pair, estimate(name, value, counts.n)

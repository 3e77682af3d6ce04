"""How differently the backbones of a store err, and whether ensembles gain by it.

Reads predictions and labels; no logit, no embedding. All numbers are over the samples that every
backbone has a prediction for. docs/analysis.md lists the metrics. With `results`, a file of
`clipsyn evaluate`, the rows of `correlations` come after these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.diversity import DiversitySettings
from clipsyn.analyses.diversity.measures import (
    MEANS,
    PAIRWISE,
    SHARES,
    Counts,
    fleiss_kappa,
    over_pairs,
    pair_counts,
    plausible,
    shares_by_image,
)
from clipsyn.analyses.oracle.measures import Overlap
from clipsyn.analyses.predicted import Predicted, estimate, predicted, share
from clipsyn.analyses.predicted import mean as mean_of
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.data import check_data
from clipsyn.evaluation.results.files import ensembles_in
from clipsyn.evaluation.results.frame import (
    IF_ALIKE,
    OVER_BEST_ON_TEST,
    Measured,
    Row,
    frame,
    gain_metric,
    row,
)
from clipsyn.methods.ensembles import BEST_SINGLE
from clipsyn.methods.numerics.metrics import Score, correctness
from clipsyn.names import fingerprint, parse_perturbation
from clipsyn.stats.differences import holm, paired
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import (
    UNKNOWN,
    Correlation,
    Interval,
    mean_share_interval,
    pearson,
    percentiles,
    spearman,
)
from clipsyn.store.features import FeatureStore
from clipsyn.text import advised

_Places = tuple[int, ...]  # of the backbones that a number is about
CORRELATIONS = {"pearson": pearson, "spearman": spearman}
_GROUP = ["split", "perturbation", "prompts"]


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
    if settings.results is not None:
        found = correlations(store, measured, settings, settings.results)
        return pl.concat([measured, frame(found)])
    return measured


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
    for places, number in numbers(group):
        yield group.row(number, tuple(group.backbones[place] for place in places))


def numbers(group: Predicted) -> Iterator[tuple[_Places, Measured]]:
    """Everything that is measured of one group, with the backbones that it is about."""
    predictions, labels, images = group.predictions, group.labels, group.images
    right = correctness(predictions, labels)
    counts = pair_counts(predictions, labels)
    by_image = shares_by_image(predictions, labels)
    every = tuple(range(len(predictions)))
    for name, formula in PAIRWISE.items():
        values = formula(counts)
        for i, j in combinations(every, 2):
            yield (i, j), _of_pair(name, counts, (float(values[i, j]), i, j), images)
        mean = estimate(f"mean_{name}", over_pairs(values), counts.n)
        if mean.metric in by_image:
            interval = mean_share_interval([by_image[mean.metric]], [images])
            mean = mean._replace(interval=interval)
        yield every, mean
    yield every, estimate("fleiss_kappa", fleiss_kappa(counts), counts.n)
    entropy = by_image["vote_entropy"]
    interval = mean_share_interval([entropy], [images])
    yield every, Measured("vote_entropy", mean_of(entropy), interval)
    overlap = Overlap.of(right)
    for b, hits in enumerate(overlap.only()):
        yield (b,), share("unique_correct", int(hits), images)
    for b, floor in enumerate(overlap.mean(overlap.guessed(group.n_classes))):
        yield (b,), estimate("unique_correct_floor", floor, counts.n)
    yield from _significance(right, images)


def _of_pair(name: str, counts: Counts, at: tuple[float, int, int], images: Images) -> Measured:
    """A measure of two backbones; the interval of a kappa holds it also where it is 1."""
    value, i, j = at
    if name in SHARES and counts.n:
        return share(name, round(value * counts.n), images)
    draws = PAIRWISE[name](plausible(counts, i, j, images.effective))[:, 0, 1]
    low, high = percentiles(draws[np.isfinite(draws) & np.isfinite(value)])
    return Measured(name, Score(value, counts.n), Interval(min(low, value), max(high, value)))


def _significance(right: NDArray[np.bool_], images: Images) -> Iterator[tuple[_Places, Measured]]:
    pairs, n = list(combinations(range(len(right)), 2)), len(images)
    hits = images.sums(right.T).astype(np.int64)
    p = np.array([paired(hits[:, i] - hits[:, j]) if n else math.nan for i, j in pairs])
    for name, values in (("mcnemar_p", p), ("mcnemar_p_holm", holm(p))):
        for pair, value in zip(pairs, values, strict=True):
            yield pair, estimate(name, value, n)


def correlations(
    store: FeatureStore, measured: pl.DataFrame, settings: DiversitySettings, path: Path
) -> Iterator[Row]:
    """Correlations over datasets of the diversity of backbones with the gains of ensembles.

    measured: rows about diversity; the metrics in `MEANS` count. Gains are those in the file of
    results over the backbone that is best on the support, where nothing is fitted over the best on
    test; means over seeds. Metrics pearson_NAME and spearman_NAME for each measure NAME, `dataset`
    null, `n` the number of datasets, with an interval over datasets; NaN for fewer than three.
    Where the results know it, `IF_ALIKE` is what to expect of error inconsistency over datasets
    that do not differ. Raises UsageError where the results are no such gains, or of other samples,
    UnknownName for a head that is not there.
    """
    members = pl.col("backbones").list.sort().alias("members")
    means = measured.filter(pl.col("metric").is_in(list(MEANS))).with_columns(members)
    words, metrics = ("evaluate", "STORE", "-o", path), ("gain", OVER_BEST_ON_TEST, IF_ALIKE)
    every = ensembles_in(path, metrics, settings.head, settings.shots, words)
    place = ["dataset", *_GROUP, "members"]
    of_ensembles = every.filter(pl.col("ensemble") != BEST_SINGLE).with_columns(members)
    found = of_ensembles.join(means, on=place, how="semi", maintain_order="left")
    if found.is_empty():
        names, dataset, split = means.select("backbones", "dataset", "split").row(0)
        line = advised(*words[:2], "--backbones", ",".join(names), *words[2:])
        raise UsageError(
            f"{path} has no gains of {', '.join(names)} on {dataset}/{split}, nor on what else is "
            f"shown: add them with `{line}`"
        )
    check_data(store, found, path)
    over_seeds = found.group_by(*place, "ensemble", maintain_order=True).agg(
        gain=pl.col("value").filter(metric=gain_metric(every)).mean(),
        alike=pl.col("value").filter(metric=IF_ALIKE).mean(),
        shots=pl.col("shots").first(),
        prints=pl.col("fingerprint"),
    )
    pairs = means.drop("ensemble", "shots").join(over_seeds, on=place, maintain_order="left")
    by = [*_GROUP, "backbones", "ensemble", "metric"]
    for _, part in pairs.drop_nulls("gain").group_by(by, maintain_order=True):
        values = part["value"].to_numpy(), part["gain"].to_numpy()
        for kind, correlation in CORRELATIONS.items():
            name = f"{kind}_{MEANS[part['metric'][0]]}"
            yield _correlation_row(part, settings.head, name, correlation(*values))
        alike = part["alike"].drop_nulls().to_numpy()
        if len(alike) and part["metric"][0] == "mean_error_inconsistency":
            mean = Correlation(float(alike.mean()), UNKNOWN)
            yield _correlation_row(part, settings.head, IF_ALIKE, mean)


def _correlation_row(part: pl.DataFrame, head: str, metric: str, correlation: Correlation) -> Row:
    """part: a measure and the gain of an ensemble, a row a dataset."""
    first = part.row(0, named=True)
    prints = [part["fingerprint"].to_list(), part["prints"].to_list()]
    return row(
        Measured(metric, Score(correlation.value, len(part)), correlation.interval),
        dataset=None,
        **{name: first[name] for name in (*_GROUP, "backbones", "ensemble", "shots")},
        severity=parse_perturbation(first["perturbation"]).severity,
        head=head,
        fingerprint=fingerprint({"over": prints}),
    )

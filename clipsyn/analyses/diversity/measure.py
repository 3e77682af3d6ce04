"""How differently the backbones of a store err, and whether ensembles gain by it.

Reads predictions and labels; no logit, no embedding. All numbers are over the samples that every
backbone has a prediction for. docs/analysis.md lists the metrics. With `results`, a file of
`clipsyn evaluate`, the rows of `gains` and of `correlations` come after these.
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
from clipsyn.settings import Shots
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


def correlations(pairs: pl.DataFrame, head: str = "zero-shot") -> pl.DataFrame:
    """Correlations over datasets of the diversity of backbones with the gains of ensembles.

    pairs: those of `pairs_of`. Returns the columns of `RESULT`: metrics pearson_NAME and
    spearman_NAME for each measure NAME, `dataset` null, `n` the number of datasets, with an
    interval over datasets; NaN for fewer than three. Where the results know it, `IF_ALIKE` is what
    to expect of error inconsistency over datasets that do not differ.
    """
    by = [*_GROUP, "backbones", "gaining", "metric"]
    rows = []
    for _, part in pairs.group_by(*by, maintain_order=True):
        values = part["value"].to_numpy(), part["gain"].to_numpy()
        for kind, correlation in CORRELATIONS.items():
            metric = f"{kind}_{MEANS[part['metric'][0]]}"
            rows.append(_row(part, head, metric, correlation(*values)))
        alike = part["gain_if_alike"].drop_nulls().to_numpy()
        if len(alike) and part["metric"][0] == "mean_error_inconsistency":
            rows.append(_row(part, head, IF_ALIKE, Correlation(float(alike.mean()), UNKNOWN)))
    return frame(rows)


def gains(pairs: pl.DataFrame, head: str = "zero-shot") -> pl.DataFrame:
    """The gains that `correlations` takes: rows of the metric that they are read from.

    Their n is that of the results; there is an interval where they are no means over seeds.
    """
    each = pairs.unique(["dataset", *_GROUP, "backbones", "gaining"], maintain_order=True)
    return frame(_gain_row(pair, head) for pair in each.iter_rows(named=True))


def _gain_row(pair: Row, head: str) -> Row:
    alone = pair["gain_low"] is not None
    interval = Interval(pair["gain_low"], pair["gain_high"]) if alone else None
    return row(
        Measured(pair["gain_metric"], Score(pair["gain"], pair["gain_n"]), interval),
        **{name: pair[name] for name in ("dataset", *_GROUP, "severity", "backbones")},
        **{name: pair[f"gain_{name}"] for name in ("support", "support_prompts", "shots", "seed")},
        head=head,
        ensemble=pair["gaining"],
        fingerprint=fingerprint({"over": pair["gain_prints"]}),
    )


def pairs_of(
    measured: pl.DataFrame, path: Path, head: str = "zero-shot", shots: Shots | None = None
) -> pl.DataFrame:
    """A row for each dataset, measure over all backbones, and ensemble with its gain.

    measured: rows about diversity; the metrics in `MEANS` count. path, head, shots: which gains, as
    `ensembles_in` takes them; means over seeds of those that are of the same backbones count.
    Raises UsageError where the results are no such gains, UnknownName for a head that is not there.
    """
    means = measured.filter(pl.col("metric").is_in(list(MEANS)))
    pairs = means.with_columns(pl.col("backbones").list.sort().alias("members")).join(
        _gains(path, head, shots), on=["dataset", *_GROUP, "members"], maintain_order="left"
    )
    if pairs.is_empty():
        names, dataset, split = means.select("backbones", "dataset", "split").row(0)
        options = "--backbones", ",".join(names), "-o", path
        raise UsageError(
            f"{path} has no gains of {', '.join(names)} on {dataset}/{split}, nor on what else is "
            f"shown: add them with `{advised('evaluate', 'STORE', *options)}`"
        )
    return pairs


def check_gains(store: FeatureStore, pairs: pl.DataFrame, path: Path) -> None:
    """Raise UsageError where gains were measured on something else than the store holds."""
    fitted = {name: f"gain_{name}" for name in ("support", "support_prompts")}
    check_data(store, pairs.with_columns(**fitted, data="gain_data").explode("data"), path)


def _gains(path: Path, head: str, shots: Shots | None) -> pl.DataFrame:
    """Gains of ensembles: a row each dataset and ensemble, means over seeds.

    Over the backbone that is best on the support; where nothing is fitted, on test.
    Columns: dataset, `_GROUP`, members (the backbones, sorted), gaining (the ensemble), gain,
    gain_low, gain_high and gain_seed (null for a mean), gain_n, gain_prints (fingerprints),
    gain_data, and what it was fitted on.
    """
    words = "evaluate", "STORE", "-o", path
    rows = ensembles_in(path, ("gain", OVER_BEST_ON_TEST, IF_ALIKE), head, shots, words)
    of_gain = pl.col("metric") == gain_metric(rows)
    by_ensemble = rows.filter(pl.col("ensemble") != BEST_SINGLE).select(
        pl.exclude("ensemble"),
        pl.col("ensemble").alias("gaining"),
        pl.col("backbones").list.sort().alias("members"),
    )
    keys = ["dataset", *_GROUP, "members", "gaining"]
    alike = by_ensemble.filter(metric=IF_ALIKE).group_by(keys)
    gains = (
        by_ensemble.filter(of_gain)
        .group_by(keys, maintain_order=True)
        .agg(
            gain=pl.col("value").mean(),
            gain_low=_alone("ci_low"),
            gain_high=_alone("ci_high"),
            gain_metric=pl.col("metric").first(),
            gain_seed=_alone("seed"),
            gain_shots=pl.col("shots").first(),
            gain_support=pl.col("support").first(),
            gain_support_prompts=pl.col("support_prompts").first(),
            gain_n=pl.col("n").first(),
            gain_prints=pl.col("fingerprint"),
            gain_data=pl.col("data"),
            supports=pl.struct("support", "support_prompts").n_unique(),
        )
        .join(alike.agg(gain_if_alike=pl.col("value").mean()), keys, "left")
    )
    if (gains["supports"] > 1).any():
        raise UsageError(
            f"{path} has the same ensembles fitted on several splits or prompt sets: give a file "
            "with one of them"
        )
    return gains


def _alone(name: str) -> pl.Expr:
    """A column of a group of one row, null for more."""
    return pl.when(pl.len() == 1).then(pl.col(name).first())


def _row(part: pl.DataFrame, head: str, metric: str, correlation: Correlation) -> Row:
    """part: a measure and the gain of an ensemble, a row a dataset."""
    first = part.row(0, named=True)
    prints = [part["fingerprint"].to_list(), part["gain_prints"].to_list()]
    return row(
        Measured(metric, Score(correlation.value, len(part)), correlation.interval),
        dataset=None,
        **{name: first[name] for name in (*_GROUP, "backbones")},
        severity=parse_perturbation(first["perturbation"]).severity,
        head=head,
        ensemble=first["gaining"],
        shots=first["gain_shots"],
        fingerprint=fingerprint({"over": prints}),
    )

"""How differently the backbones of a store err, and whether ensembles gain by it.

Reads predictions and labels; no logit, no embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analysis.diversity import (
    PAIRWISE,
    Counts,
    PairMeasure,
    fleiss_kappa,
    over_pairs,
    pair_counts,
    resampled,
    unique_correct,
    vote_entropy,
)
from clipsyn.errors import UsageError
from clipsyn.evaluate.predicted import Predicted, predicted
from clipsyn.evaluate.results import RESULT, Measured, ResultsFile, Row
from clipsyn.metrics import Score
from clipsyn.registry import unknown_name
from clipsyn.specs import fingerprint, parse_perturbation
from clipsyn.stats import Interval, holm, mcnemar, pearson, percentiles, spearman, wilson_interval
from clipsyn.store.features import FeatureStore
from clipsyn.store.select import Names

MEANS = (*(f"mean_{name}" for name in PAIRWISE), "fleiss_kappa", "vote_entropy")
CORRELATIONS = {"pearson": pearson, "spearman": spearman}
FULL = "full"
_GROUP = ["split", "perturbation", "prompts"]


def diversity(
    store: FeatureStore,
    *,
    datasets: Names = None,
    splits: Names = ("test",),
    perturbations: Names = None,
    backbones: Names = None,
    prompts: Names = None,
    results: Path | None = None,
    head: str = "zero-shot",
    shots: str | None = None,
) -> pl.DataFrame:
    """Diversity of the backbones on each dataset, split, perturbation and prompt set.

    Filters are names or patterns with ``*``; None takes all there is. Returns a tidy frame with
    the columns of `RESULT`, over the samples that every backbone has a prediction for, `ensemble`
    null. Intervals are bootstrap ones over samples, the same resamples for all numbers of a group.

    - of a pair of backbones: each measure of `PAIRWISE`; mcnemar_p, the exact p-value that the two
      are equally accurate, and mcnemar_p_holm, adjusted for all pairs of the group;
    - of all backbones: mean_NAME over pairs for each of those measures (over those that have one),
      fleiss_kappa and vote_entropy;
    - of a backbone: unique_correct, with Wilson's interval.

    With `results`, a file of `clipsyn evaluate`, beside them the correlation over datasets of each
    of `MEANS` with the gain of each ensemble of the same backbones there, on `head`: metrics
    pearson_NAME and spearman_NAME, `dataset` null, `n` the number of datasets, with an interval
    over datasets. Gains are means over seeds, at `shots` images a class ("full" is the whole
    support; None takes the most there are), and those of ensembles that learn nothing.

    Groups of one backbone are left out. Raises UsageError where no group has two, or a dataset that
    is asked for has none that does, and where the results are of other samples or backbones;
    MissingCell, UnknownName and DatasetError as `zeroshot` does.
    """
    groups = predicted(
        store,
        datasets=datasets,
        splits=splits,
        perturbations=perturbations,
        backbones=backbones,
        prompts=prompts,
    )
    rows: list[Row] = []
    alone: dict[str, str] = {}  # place -> the only backbone there
    for group in groups:
        if len(group.keys) == 1:
            alone[f"{group.samples.dataset}/{group.samples.split}"] = group.backbones[0]
        else:
            rows += _rows(group)
    frame = pl.DataFrame(rows, schema=RESULT)
    _refuse(alone, frame, every=datasets is not None)
    if results is None:
        return frame
    gains = _gains(results, head, shots)
    return pl.concat([frame, pl.DataFrame(_correlations(frame, gains, results), schema=RESULT)])


def _refuse(alone: dict[str, str], frame: pl.DataFrame, *, every: bool) -> None:
    """Raise UsageError where one backbone is all there is; every: for any dataset and split."""
    there = set(map("/".join, frame.select("dataset", "split").iter_rows()))
    lacking = {place: name for place, name in alone.items() if place not in there}
    if lacking and (every or frame.is_empty()):
        place, name = next(iter(lacking.items()))
        raise UsageError(
            f"{place} has only one backbone here, {name}, and it takes two to differ: choose more "
            "with --backbones, or add one with `clipsyn extract`"
        )


def _rows(group: Predicted) -> Iterator[Row]:
    whole = fingerprint({"cells": list(group.fingerprints.values())})
    for backbones, measured in _measures(group):
        names = tuple(group.backbones[b] for b in backbones)
        yield group.row(measured, names) | {"fingerprint": whole}


def _measures(group: Predicted) -> Iterator[tuple[tuple[int, ...], Measured]]:
    """Everything measured of one group, with the indices of the backbones it is about."""
    predictions, labels = group.predictions, group.labels
    counts = pair_counts(predictions, labels)
    draws, entropies = resampled(predictions, labels)
    every = tuple(range(len(predictions)))
    for name in PAIRWISE:
        measure = PAIRWISE.load(name)
        values, drawn = _matrices(measure, group, counts, draws)
        for i, j in combinations(every, 2):
            of = None if drawn is None else drawn[:, i, j]
            yield (i, j), _measured(name, values[i, j], counts.n, of)
        means = None if drawn is None else over_pairs(drawn)
        yield every, _measured(f"mean_{name}", over_pairs(values), counts.n, means)
    yield every, _measured("fleiss_kappa", fleiss_kappa(counts), counts.n, fleiss_kappa(draws))
    entropy = vote_entropy(predictions, labels)
    yield every, _measured("vote_entropy", entropy, counts.n, entropies)
    for b, share in enumerate(unique_correct(predictions, labels)):
        interval = wilson_interval(round(share * counts.n) if counts.n else 0, counts.n)
        yield (b,), Measured("unique_correct", Score(float(share), counts.n), interval)
    yield from _significance(counts)


def _matrices(
    measure: Callable[..., NDArray[np.float64]], group: Predicted, counts: Counts, draws: Counts
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Values (backbone, backbone) of a measure, and those of all resamples where it has any."""
    if isinstance(measure, PairMeasure):
        return measure.formula(counts), measure.formula(draws)
    return measure(group.predictions, group.labels), None


def _significance(counts: Counts) -> Iterator[tuple[tuple[int, ...], Measured]]:
    pairs = list(combinations(range(len(counts.right)), 2))
    only = counts.only.astype(int)
    nan = float("nan")
    p = np.array([mcnemar(only[i, j], only[j, i]) if counts.n else nan for i, j in pairs])
    for name, values in (("mcnemar_p", p), ("mcnemar_p_holm", holm(p))):
        for pair, value in zip(pairs, values, strict=True):
            yield pair, _measured(name, value, counts.n, None)


def _measured(
    metric: str, value: float | NDArray[np.float64], n: int, drawn: NDArray[np.float64] | None
) -> Measured:
    """Resamples in which the measure is 0/0 are left out of its interval."""
    interval = None if drawn is None else percentiles(drawn[~np.isnan(drawn)])
    return Measured(metric, Score(float(value), n), interval)


class _Gains(NamedTuple):
    frame: pl.DataFrame  # dataset, _GROUP, ensemble, backbones (sorted), shots, gain, n, prints
    head: str


def _gains(path: Path, head: str, shots: str | None) -> _Gains:
    """Gains over the best single backbone: a row each dataset and ensemble, means over seeds."""
    if not path.exists():
        raise UsageError(f"no results at {path}: make them with `clipsyn evaluate STORE -o {path}`")
    gains = ResultsFile(path).frame.filter(
        pl.col("metric") == "gain", pl.col("ensemble").is_not_null(), pl.col("classes") == "all"
    )
    if gains.is_empty():
        raise UsageError(
            f"{path} has no gain of any ensemble over all classes: add some with `clipsyn evaluate "
            f"STORE -o {path}`"
        )
    if head not in gains["head"]:
        hint = f"Looked for in {path}; `clipsyn evaluate STORE --heads {head} -o {path}` adds it."
        raise unknown_name("head", head, gains["head"].unique(), hint)
    gains = gains.filter(pl.col("head") == head).with_columns(
        _sorted("backbones"), pl.col("shots").cast(pl.String).fill_null(FULL).alias("label")
    )
    chosen = _shots(gains, path, shots)
    keys = ["dataset", *_GROUP, "ensemble", "backbones"]
    found = (
        gains.filter(pl.col("label").is_in(["0", chosen]))
        .group_by(*keys, maintain_order=True)
        .agg(
            pl.col("shots", "n").first(),
            gain=pl.col("value").mean(),
            supports=pl.col("support").n_unique(),
            prints=pl.col("fingerprint"),
        )
    )
    if (found["supports"] > 1).any():
        raise UsageError(
            f"{path} has the same ensembles fitted on several splits or prompt sets: give a file "
            "with one of them"
        )
    return _Gains(found, head)


def _shots(gains: pl.DataFrame, path: Path, shots: str | None) -> str:
    """The number of shots asked for, or the most there are: the whole support before all."""
    there = set(gains["label"])
    if shots is None:
        return FULL if FULL in there else max(there, key=int)
    if shots not in there:
        order = sorted(there, key=lambda label: (label == FULL, label.zfill(9)))
        raise UsageError(
            f"{path} has no gains with --shots {shots}, but with {', '.join(order)}: "
            f"`clipsyn evaluate STORE --shots {shots} -o {path}` adds them"
        )
    return shots


def _correlations(frame: pl.DataFrame, gains: _Gains, path: Path) -> Iterator[Row]:
    means = frame.filter(pl.col("metric").is_in(MEANS))
    keys = ["dataset", *_GROUP]
    both = means.join(
        gains.frame,
        left_on=[*keys, _sorted("backbones")],
        right_on=[*keys, "backbones"],
        suffix=" there",
        maintain_order="left",
    )
    if both.is_empty():
        names, dataset, split = means.select("backbones", "dataset", "split").row(0)
        raise UsageError(
            f"{path} has no gains of {names} on {dataset}/{split}, nor on what else is shown: add "
            f"them with `clipsyn evaluate STORE --backbones {names.replace('+', ',')} -o {path}`"
        )
    other = both.filter(pl.col("n") != pl.col("n there"))
    if not other.is_empty():
        row = other.row(0, named=True)
        raise UsageError(
            f"{path} is of other samples: {row['n there']:,} of {row['dataset']}/{row['split']}, "
            f"here {row['n']:,}; evaluate this store into another file"
        )
    by = [*_GROUP, "backbones", "ensemble there", "metric"]
    for _, part in both.group_by(*by, maintain_order=True):
        for kind, correlation in CORRELATIONS.items():
            found = correlation(part["value"].to_numpy(), part["gain"].to_numpy())
            yield _correlation_row(part, gains.head, kind, found.value, found.interval)


def _sorted(column: str) -> pl.Expr:
    return pl.col(column).str.split("+").list.sort().list.join("+")


def _correlation_row(
    part: pl.DataFrame, head: str, kind: str, value: float, interval: Interval
) -> Row:
    """part: a measure and the gain of an ensemble, a row a dataset."""
    first = part.row(0, named=True)
    prints = [part["fingerprint"].to_list(), part["prints"].to_list()]
    return {
        "dataset": None,
        **{name: first[name] for name in (*_GROUP, "backbones", "classes")},
        "severity": parse_perturbation(first["perturbation"]).severity,
        "head": head,
        "ensemble": first["ensemble there"],
        "support": None,
        "shots": first["shots there"],
        "seed": None,
        "metric": f"{kind}_{first['metric'].removeprefix('mean_')}",
        "value": value,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "n": len(part),
        "fingerprint": fingerprint({"over": prints}),
    }

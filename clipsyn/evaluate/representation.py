"""How alike the embeddings of a store's backbones are, and how sure their logits.

Similarities need neither labels nor prompts; logit statistics need both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import combinations, groupby

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analysis.representation import GROUPS, NEIGHBOURS, compare, mutual_neighbours
from clipsyn.ensembles.calibrated import fit_temperatures
from clipsyn.errors import LeakError
from clipsyn.evaluate.predicted import Predicted
from clipsyn.evaluate.results import RESULT, Measured, Row
from clipsyn.metrics import (
    Judged,
    Score,
    calibration_gaps,
    expected_calibration_error,
    judge,
)
from clipsyn.specs import CLEAN, FeatureKey, fingerprint
from clipsyn.stats import UNKNOWN, Interval, Resamples, bootstrap_mean, percentiles
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import Names, groups, select

SAMPLES = 2000  # a pool of neighbours as large as in the literature, and seconds for nine backbones


def representation(
    store: FeatureStore,
    *,
    datasets: Names = None,
    splits: Names = ("test",),
    perturbations: Names = (CLEAN.label,),
    backbones: Names = None,
    prompts: Names = None,
    samples: int = SAMPLES,
    neighbours: int = NEIGHBOURS,
    support: str = "train",
    seed: int = 0,
) -> pl.DataFrame:
    """Similarity of all pairs of backbones, and what the logits of each say.

    Filters are names or patterns with ``*``; None takes all there is. Everything is over the same
    images for all backbones: `samples` of those that every one could read, drawn with `seed`, or
    all if there are fewer. Returns a tidy frame with the columns of `RESULT`.

    Metrics of a pair, "a+b" in `backbones`, with head and prompts null (no label is used):

    - cka and procrustes, with jackknife intervals: `clipsyn.analysis.representation.compare`;
    - mutual_knn: mean share of the `neighbours` nearest images that both agree on
      (`mutual_neighbours`), with a bootstrap interval over the images whose neighbours are asked
      for; those they are sought among stay the same.

    Metrics of a backbone and a prompt set, over labelled images (another draw), with bootstrap
    intervals:

    - acc1; logit_scale;
    - confidence_right and confidence_wrong: mean largest probability where the prediction is
      right, and where it is wrong; NaN where it never is;
    - nll and ece, as `clipsyn.metrics` has them; both ECE and its interval are too high with few
      images for the 15 bins;
    - temperature, fitted by cross-entropy on clean images of the split `support` (at most
      `samples` of them), and nll_calibrated and ece_calibrated of ``logits / temperature``. They
      are missing where that split has no labelled images, and for the split itself.

    Raises MissingCell with the extract line that helps, UnknownName with near matches, and
    LeakError where temperatures are to be fitted on "test".
    """
    if support == "test":
        raise LeakError("temperatures are fitted on images that nothing is measured on: not test")
    keys = select(
        store, dataset=datasets, split=splits, perturbation=perturbations, backbone=backbones
    )
    draw = partial(_draw, count=samples, seed=seed)
    settings = {"samples": samples, "neighbours": neighbours, "seed": seed, "support": support}
    temperature = cache(partial(_temperature, store, draw))
    rows: list[Row] = []
    for _, cells in groupby(keys, key=lambda key: (key.dataset, key.split, key.perturbation)):
        found = list(cells)
        table = store.samples(found[0].dataset, found[0].split)
        readable = np.logical_and.reduce([store.valid(key) for key in found])
        group = Predicted(store, table, tuple(found), "")
        rows += _similarities(group, draw(readable), neighbours, seed)
        labelled = draw(readable & (table.labels >= 0))
        if (table.labels >= 0).any():
            for (_, prompt_set), members in groups(store, found, prompts):
                of = Predicted(store, table, tuple(members), prompt_set)
                rows += _logit_statistics(of, labelled, support, temperature)
    for row in rows:
        row["fingerprint"] = fingerprint({"cells": row["fingerprint"], **settings})
    return pl.DataFrame(rows, schema=RESULT)


def _draw(usable: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.intp]:
    """Row numbers, ascending: of all usable samples, or `count` of them."""
    rows = np.flatnonzero(usable)
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def _similarities(
    group: Predicted, rows: NDArray[np.intp], neighbours: int, seed: int
) -> Iterator[Row]:
    if len(group.keys) < 2:
        return
    embeddings = [group.store.embeddings(key)[rows] for key in group.keys]
    shares = mutual_neighbours(embeddings, neighbours)
    estimates = compare(embeddings, groups=GROUPS, seed=seed)
    n = len(rows)
    for i, j in combinations(range(len(embeddings)), 2):
        pair = (group.backbones[i], group.backbones[j])
        measured = [
            Measured(
                name,
                Score(float(found.value[i, j]), n),
                Interval(float(found.low[i, j]), float(found.high[i, j])),
            )
            for name, found in estimates.items()
        ]
        agreed = shares[i, j]
        score = Score(float(agreed.mean(dtype=np.float64)) if n else float("nan"), n)
        known = n and not np.isnan(agreed).any()
        measured.append(Measured("mutual_knn", score, bootstrap_mean(agreed) if known else UNKNOWN))
        for one in measured:
            yield group.row(one, pair) | {"head": None, "prompts": None, "shots": None}


def _logit_statistics(
    group: Predicted,
    rows: NDArray[np.intp],
    support: str,
    temperature: Callable[[FeatureKey, str], Score | None],
) -> Iterator[Row]:
    """All metrics of each backbone over the samples at `rows`."""
    resamples, labels = Resamples(len(rows)), group.labels[rows]
    for key in group.keys:
        logits, scale = _logits(group.store, key, group.prompts, rows)
        judged = judge(logits, labels)
        measured = [
            Measured("logit_scale", Score(scale, len(rows)), None),
            *_confidence(judged, labels, resamples),
            *_calibration(judged, labels, resamples, ""),
        ]
        fitted = None
        if key.split != support:
            fitted = temperature(
                replace(key, split=support, perturbation=CLEAN.label), group.prompts
            )
        for one in measured:
            yield group.row(one, (key.backbone,))
        if fitted is not None:
            judged = judge(logits / np.float32(fitted.value), labels)
            for one in (
                Measured("temperature", fitted, None),
                *_calibration(judged, labels, resamples, "_calibrated"),
            ):
                said = {"support": f"{support}, {group.prompts}", "shots": None}
                yield group.row(one, (key.backbone,)) | said


def _logits(
    store: FeatureStore, key: FeatureKey, prompts: str, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32], float]:
    """(sample, class) of one backbone, and its logit scale."""
    reader = PoolReader(
        store,
        key.dataset,
        key.split,
        perturbation=key.perturbation,
        backbones=key.backbone,
        prompts=prompts,
    )
    pool = reader.read(rows)
    return pool.logits[:, 0], pool.logit_scales[key.backbone]


def _temperature(
    store: FeatureStore,
    draw: Callable[[NDArray[np.bool_]], NDArray[np.intp]],
    key: FeatureKey,
    prompts: str,
) -> Score | None:
    """Fitted on the cell, and on how many images; None without such a cell, or labels."""
    if key not in store.keys(dataset=[key.dataset], split=[key.split]):
        return None
    labels = store.samples(key.dataset, key.split).labels
    rows = draw(store.valid(key) & (labels >= 0))
    if not len(rows):
        return None
    logits, _ = _logits(store, key, prompts, rows)
    (found,) = fit_temperatures(logits[:, None], labels[rows])
    return Score(float(found), len(rows))


def _confidence(
    judged: Judged, labels: NDArray[np.int32], resamples: Resamples
) -> Iterator[Measured]:
    right = judged.prediction == labels
    means = resamples.means(np.stack([right, judged.confidence * right, judged.confidence], 1))
    share, of_right, every = means.T
    value = float(right.mean()) if len(right) else float("nan")
    yield Measured("acc1", Score(value, len(right)), percentiles(share))
    for metric, chosen, total, weight in (
        ("confidence_right", right, of_right, share),
        ("confidence_wrong", ~right, every - of_right, 1 - share),
    ):
        n = int(chosen.sum())
        value = float(judged.confidence[chosen].mean(dtype=np.float64)) if n else float("nan")
        some = weight > 1e-9  # a resample may have none
        interval = percentiles(total[some] / weight[some]) if n else UNKNOWN
        yield Measured(metric, Score(value, n), interval)


def _calibration(
    judged: Judged, labels: NDArray[np.int32], resamples: Resamples, suffix: str
) -> Iterator[Measured]:
    """nll and ece."""
    right, n = judged.prediction == labels, len(labels)
    gaps = calibration_gaps(judged.confidence, right)
    means = resamples.means(np.column_stack([judged.nll, gaps]))
    nll = float(judged.nll.mean(dtype=np.float64)) if n else float("nan")
    yield Measured(f"nll{suffix}", Score(nll, n), percentiles(means[:, 0]))
    ece = expected_calibration_error(judged.confidence, right)
    yield Measured(f"ece{suffix}", ece, percentiles(np.abs(means[:, 1:]).sum(axis=1)))

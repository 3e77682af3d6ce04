"""How alike the embeddings of a store's backbones are, and how sure their logits.

Similarities need neither labels nor prompts; logit statistics need both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, groupby
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.predicted import Predicted
from clipsyn.analyses.representation import RepresentationSettings
from clipsyn.analyses.representation.measures import compare, mutual_neighbours
from clipsyn.ensembles.calibrated import fit_temperatures
from clipsyn.errors import LeakError, UsageError
from clipsyn.numerics.metrics import (
    Judged,
    Score,
    calibration_floor,
    calibration_gaps,
    expected_calibration_error,
    judge,
)
from clipsyn.registry import unknown_name
from clipsyn.results.frame import Measured, Row, frame
from clipsyn.specs import CLEAN, FeatureKey, fingerprint
from clipsyn.stats import UNKNOWN, Interval, Resamples, bootstrap_mean, percentiles
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import Names, groups

SUPPORT = "train"
_LOG = logging.getLogger("clipsyn")


def measure(store: FeatureStore, settings: RepresentationSettings) -> pl.DataFrame:
    """Similarity of all pairs of backbones, and what the logits of each say.

    Filters are names or patterns with ``*``; None takes all there is. Everything is over the same
    images for all backbones: `samples` of those that every one could read, drawn with `seed`, or
    all if there are fewer. Returns a tidy frame with the columns of `RESULT`.

    Metrics of a pair, "a+b" in `backbones`, with head, prompts and shots null (no label is used):

    - cka and procrustes, with jackknife intervals (`measures.compare`);
    - mutual_knn: mean share of the `neighbours` nearest images that both agree on
      (`mutual_neighbours`), with a bootstrap interval over the images whose neighbours are asked
      for; those they are sought among stay the same.

    Metrics of a backbone and a prompt set, over labelled images (another draw, where some have no
    label), with bootstrap intervals:

    - acc1; logit_scale (not of imported logits, whose scale nobody knows);
    - confidence_right and confidence_wrong: mean largest probability where the prediction is
      right, and where it is wrong; NaN where it never is;
    - nll and ece, as `clipsyn.numerics.metrics` has them; both ECE and its interval are too high
      with few images for the 15 bins;
    - temperature, fitted by cross-entropy on clean images of the split `support` ("train" where
      there is one; at most `samples` of them), and nll_calibrated and ece_calibrated of
      ``logits / temperature``. They are missing where that split has no labelled images of the
      backbone, and for the split itself.

    Imported cells have a part in what they hold: embeddings in similarities, logits in the rest;
    predictions with confidences in acc1, both means of confidence, and ece.

    Raises MissingCell with the extract line that helps, UnknownName with near matches, LeakError
    where temperatures are to be fitted on "test", and UsageError for numbers below 1 and where
    there is nothing to compare.
    """
    keys = settings.keys(store)
    study = _Study(store, settings, _support(store, settings.support))
    rows: list[Row] = []
    for _, cells in groupby(sorted(_useful(store, keys), key=_place), key=_place):
        rows += study.of_cells(list(cells), settings.prompts)
    if not rows:
        raise UsageError(
            f"{store.path} has only one backbone there and no labels: name more backbones, or add "
            "one with `clipsyn extract`"
        )
    return frame(rows)


def _support(store: FeatureStore, wanted: str | None) -> str:
    if wanted == "test":
        raise LeakError(
            "temperatures are fitted on images that nothing is measured on: give support=… "
            "another split than test"
        )
    every = store.keys()
    known = {key.split for key in every}
    if wanted is not None and wanted not in known:
        hint = f"Looked for in {store.path}; `clipsyn extract` adds more."
        raise unknown_name("split", wanted, known, hint)
    return wanted or SUPPORT


def _useful(store: FeatureStore, keys: list[FeatureKey]) -> list[FeatureKey]:
    """Those with embeddings, logits or confidences. Raises MissingCell if there is none."""
    imported = ((key, store.imported(key)) for key in keys)
    silent = {
        key: cell
        for key, cell in imported
        if cell and cell.kind == "predictions" and not cell.has_confidences
    }
    if len(silent) == len(keys):
        silent[keys[0]].holding("image_embedding")  # says what is missing
    for name in sorted({key.backbone for key in silent}):
        _LOG.info(f"left out: {name}, of which there are imported predictions alone")
    return [key for key in keys if key not in silent]


def _place(key: FeatureKey) -> tuple[str, str, bool, str]:
    return key.dataset, key.split, key.perturbation != CLEAN.label, key.perturbation


class _Fitted(NamedTuple):
    temperature: Score  # and on how many images
    fingerprint: str  # of the cell they come from


@dataclass(frozen=True)
class _Study:
    """Settings, and the temperatures that were fitted so far."""

    store: FeatureStore
    settings: RepresentationSettings
    support: str

    def of_cells(self, keys: list[FeatureKey], prompts: Names) -> Iterator[Row]:
        """All rows about the backbones of one dataset, split and perturbation."""
        table = self.store.samples(keys[0].dataset, keys[0].split)
        readable = np.logical_and.reduce([self.store.valid(key) for key in keys])
        decisive = {
            "cells": [self.store.fingerprint(key) for key in keys],
            "samples": self.settings.samples,
            "seed": self.settings.seed,
        }
        embedded = [key for key in keys if _has_embeddings(self.store, key)]
        for row in self._similarities(Predicted(self.store, table, tuple(embedded), ""), readable):
            settings = decisive | {"neighbours": self.settings.neighbours}
            yield row | {"fingerprint": fingerprint(settings)}
        scoring = [key for key in keys if self.store.has_confidences(key)]
        if not scoring or not (table.labels >= 0).any():
            return
        for (_, prompt_set), members in groups(self.store, scoring, prompts):
            of = Predicted(self.store, table, tuple(members), prompt_set)
            valid = [self.store.valid(key, prompt_set) for key in members]
            usable = np.logical_and.reduce([readable, table.labels >= 0, *valid])
            cells = [of.fingerprints.get(key.backbone, self.store.fingerprint(key)) for key in keys]
            for row in self._logit_statistics(of, self._draw(usable)):
                settings = decisive | {"cells": cells, "support": row["fingerprint"]}
                yield row | {"fingerprint": fingerprint(settings)}

    def _draw(self, usable: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Row numbers, ascending: of all usable samples, or as many of them as are wanted."""
        rows = np.flatnonzero(usable)
        if len(rows) <= self.settings.samples:
            return rows
        return np.sort(
            np.random.default_rng(self.settings.seed).choice(
                rows, self.settings.samples, replace=False
            )
        )

    def _similarities(self, group: Predicted, readable: NDArray[np.bool_]) -> Iterator[Row]:
        if len(group.keys) < 2:
            return
        rows = self._draw(readable)
        embeddings = [self.store.embeddings(key)[rows] for key in group.keys]
        shares = mutual_neighbours(embeddings, self.settings.neighbours)
        estimates = compare(embeddings, seed=self.settings.seed)
        for i, j in combinations(range(len(embeddings)), 2):
            for name, found in estimates.items():
                score = Score(float(found.value[i, j]), len(rows))
                interval = Interval(float(found.low[i, j]), float(found.high[i, j]))
                yield _pair_row(group, i, j, Measured(name, score, interval))
            yield _pair_row(group, i, j, _agreement(shares[i, j]))

    def _logit_statistics(self, group: Predicted, rows: NDArray[np.intp]) -> Iterator[Row]:
        """All metrics of each backbone over the samples at `rows`."""
        resamples, labels = Resamples(len(rows)), group.labels[rows]
        for key in group.keys:
            if not self.store.has_logits(key):
                for one in _of_confidences(group, key, rows, resamples):
                    yield group.row(one, (key.backbone,)) | {"fingerprint": None}
                continue
            logits, scale = _logits(self.store, key, group.prompts, rows)
            judged = judge(logits, labels)
            measured = [*_confidence(judged, labels, resamples)]
            measured += _calibration(judged, labels, resamples, "")
            if scale is not None:
                measured.append(Measured("logit_scale", Score(scale, len(rows)), None))
            for one in measured:
                yield group.row(one, (key.backbone,)) | {"fingerprint": None}
            if (fitted := self._temperature(key, group.prompts)) is None:
                continue
            judged = judge(logits / np.float32(fitted.temperature.value), labels)
            said = {
                "support": self.support,
                "support_prompts": group.prompts,
                "shots": None,
                "fingerprint": fitted.fingerprint,
            }
            for one in (
                Measured("temperature", fitted.temperature, None),
                *_calibration(judged, labels, resamples, "_calibrated"),
            ):
                yield group.row(one, (key.backbone,)) | said

    def _temperature(self, of: FeatureKey, prompts: str) -> _Fitted | None:
        """None for the support itself, and where it has no such cell, or no labels."""
        key = replace(of, split=self.support, perturbation=CLEAN.label)
        if of.split == self.support or key not in self._supports:
            return None
        if (key, prompts) not in self._fitted:
            labels = self.store.samples(key.dataset, key.split).labels
            rows = self._draw(self.store.valid(key) & (labels >= 0))
            if not len(rows):
                return None
            logits, _ = _logits(self.store, key, prompts, rows)
            (found,) = fit_temperatures(logits[:, None], labels[rows])
            score = Score(float(found), len(rows))
            self._fitted[key, prompts] = _Fitted(score, self.store.fingerprint(key))
        return self._fitted[key, prompts]

    @cached_property
    def _supports(self) -> set[FeatureKey]:
        keys = self.store.keys(split=[self.support], perturbation=[CLEAN.label])
        return {key for key in keys if self.store.has_logits(key)}

    @cached_property
    def _fitted(self) -> dict[tuple[FeatureKey, str], _Fitted]:
        return {}


def _has_embeddings(store: FeatureStore, key: FeatureKey) -> bool:
    cell = store.imported(key)
    return cell is None or cell.kind == "embeddings"


def _pair_row(group: Predicted, i: int, j: int, measured: Measured) -> Row:
    row = group.row(measured, (group.backbones[i], group.backbones[j]))
    return row | {"head": None, "prompts": None, "shots": None}


def _agreement(shares: NDArray[np.float32]) -> Measured:
    """The mean of what two backbones share of each image's neighbours."""
    n = len(shares)
    if n == 0 or np.isnan(shares).any():
        return Measured("mutual_knn", Score(float("nan"), n), UNKNOWN)
    score = Score(float(shares.mean(dtype=np.float64)), n)
    return Measured("mutual_knn", score, bootstrap_mean(shares))


def _logits(
    store: FeatureStore, key: FeatureKey, prompts: str, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32], float | None]:
    """(sample, class) of one backbone, and its logit scale; None where logits were imported."""
    reader = PoolReader(
        store,
        key.dataset,
        key.split,
        perturbation=key.perturbation,
        backbones=key.backbone,
        prompts=prompts,
    )
    pool = reader.read(rows)
    return pool.logits[:, 0], pool.logit_scales.get(key.backbone)


def _confidence(
    judged: Judged, labels: NDArray[np.int32], resamples: Resamples
) -> Iterator[Measured]:
    right = judged.prediction == labels
    of_right, of_wrong = judged.confidence * right, judged.confidence * ~right
    share, *totals = resamples.means(np.stack([right, of_right, of_wrong], axis=1)).T
    value = float(right.mean()) if len(right) else float("nan")
    yield Measured("acc1", Score(value, len(right)), percentiles(share))
    for metric, chosen, total, weight in (
        ("confidence_right", right, totals[0], share),
        ("confidence_wrong", ~right, totals[1], 1 - share),
    ):
        n = int(chosen.sum())
        value = float(judged.confidence[chosen].mean(dtype=np.float64)) if n else float("nan")
        some = weight > 1e-9  # a resample may have none
        interval = percentiles(total[some] / weight[some]) if n else UNKNOWN
        yield Measured(metric, Score(value, n), interval)


def _of_confidences(
    group: Predicted, key: FeatureKey, rows: NDArray[np.intp], resamples: Resamples
) -> Iterator[Measured]:
    """Of predictions that were imported with their confidences: all but likelihoods."""
    labels = group.labels[rows]
    prediction = group.store.predictions(key, group.prompts)[rows]
    confidence = group.store.confidences(key, group.prompts)[rows]
    unknown = np.full(len(rows), np.nan, np.float32)
    yield from _confidence(Judged(prediction, unknown, unknown, confidence), labels, resamples)
    right = prediction == labels
    gaps = resamples.means(calibration_gaps(confidence, right))
    ece = expected_calibration_error(confidence, right)
    yield Measured("ece", ece, percentiles(np.abs(gaps).sum(axis=1)))
    yield Measured("ece_floor", calibration_floor(confidence), None)


def _calibration(
    judged: Judged, labels: NDArray[np.int32], resamples: Resamples, suffix: str
) -> Iterator[Measured]:
    """nll, ece and its floor."""
    right, n = judged.prediction == labels, len(labels)
    gaps = calibration_gaps(judged.confidence, right)
    means = resamples.means(np.column_stack([judged.nll, gaps]))
    nll = float(judged.nll.mean(dtype=np.float64)) if n else float("nan")
    yield Measured(f"nll{suffix}", Score(nll, n), percentiles(means[:, 0]))
    ece = expected_calibration_error(judged.confidence, right)
    yield Measured(f"ece{suffix}", ece, percentiles(np.abs(means[:, 1:]).sum(axis=1)))
    yield Measured(f"ece{suffix}_floor", calibration_floor(judged.confidence), None)

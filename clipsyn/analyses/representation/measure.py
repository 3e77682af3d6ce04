"""How alike the embeddings of a store's backbones are, and how sure their logits.

Everything is over the same images for all backbones: `samples` of those that every one could read,
drawn with `seed`, or all if there are fewer. docs/analysis.md lists the metrics. Those of a pair
need no label: head, prompts and shots are null. Those of a backbone and a prompt set are over
labelled images (another draw, where some have no label). What follows from a temperature is missing
where the split `support` ("train" where there is one) has no labelled images of the backbone, and
for that split itself. Images that are measured on are taken out of it.

Imported cells are measured by what they hold: embeddings in similarities, logits in the rest, but
for the scale, which nobody knows; predictions with confidences in acc1, both means of confidence,
and ece.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, groupby
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.predicted import Predicted, mean, share
from clipsyn.analyses.representation import RepresentationSettings
from clipsyn.analyses.representation.measures import compare, mutual_neighbours
from clipsyn.errors import LeakError, UsageError
from clipsyn.evaluation.results.frame import Measured, Row, frame, row
from clipsyn.methods.ensembles.weighted import fit_temperatures
from clipsyn.methods.numerics.metrics import (
    Score,
    calibration_floor,
    expected_calibration_error,
    judge,
    reliability_bins,
)
from clipsyn.names import CLEAN, FeatureKey, fingerprint, parse_perturbation
from clipsyn.registry import unknown_name
from clipsyn.settings import FULL
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import UNKNOWN, Interval, mean_loss_interval, mean_share_interval
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import learnable
from clipsyn.store.pools import PoolReader
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import groups

SUPPORT, CALIBRATED = "train", "_calibrated"
COLUMNS = {"bin": pl.Int32}  # tenth of the images, from 0, the least sure; null for other metrics
_LOG = logging.getLogger("clipsyn")


def measure(store: FeatureStore, settings: RepresentationSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT` and `COLUMNS`.

    Raises MissingCell with the extract line that helps, UnknownName with near matches, LeakError
    where temperatures are to be fitted on "test", or on images that are measured on, and UsageError
    where there is nothing to compare.
    """
    keys = _speaking(store, settings.keys(store))
    temperatures = _Temperatures(store, settings, _support(store, settings.support), keys)
    rows: list[Row] = []
    for _, cells in groupby(sorted(keys, key=_order), key=_order):
        images = _Images(store, settings, tuple(cells))
        rows += images.similarities()
        rows += images.logit_statistics(temperatures)
    if not rows:
        raise UsageError(
            f"{store.path} has only one backbone there and no labels: name more backbones, or add "
            "one with `clipsyn extract`"
        )
    return frame(rows, COLUMNS)


def _support(store: FeatureStore, wanted: str | None) -> str:
    """The split that temperatures are fitted on; raises LeakError or UnknownName."""
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


def _speaking(store: FeatureStore, keys: list[FeatureKey]) -> list[FeatureKey]:
    """The cells with embeddings, logits or confidences; raises MissingCell if there is none."""
    cells = {key: store.cell(key) for key in keys}
    silent = {
        key for key, cell in cells.items() if not (cell.has_embeddings or cell.has_confidences)
    }
    if len(silent) == len(keys):
        cells[keys[0]].holding("image_embedding")  # says what is missing
    for name in sorted({key.backbone for key in silent}):
        _LOG.info(f"left out: {name}, of which there are imported predictions alone")
    return [key for key in keys if key not in silent]


def _order(key: FeatureKey) -> tuple[str, str, bool, str]:
    """By dataset, split and perturbation, clean images first."""
    return key.dataset, key.split, key.perturbation != CLEAN.label, key.perturbation


@dataclass(frozen=True)
class _Images:
    """The images of one dataset, split and perturbation, as several backbones have them."""

    store: FeatureStore
    settings: RepresentationSettings
    keys: tuple[FeatureKey, ...]

    @cached_property
    def samples(self) -> SampleTable:
        return self.store.samples(self.keys[0].dataset, self.keys[0].split)

    @cached_property
    def readable(self) -> NDArray[np.bool_]:
        """(sample,) whether every backbone could read it."""
        return np.asarray(np.logical_and.reduce([self.store.valid(key) for key in self.keys]))

    def similarities(self) -> Iterator[Row]:
        """All rows about pairs of backbones."""
        embedded = [key for key in self.keys if self.store.cell(key).has_embeddings]
        if len(embedded) < 2:
            return
        rows = _drawn(self.readable, self.settings)
        cells = [self.store.fingerprint(key) for key in self.keys]
        about = {
            "dataset": self.samples.dataset,
            "split": self.samples.split,
            "perturbation": embedded[0].perturbation,
            "severity": parse_perturbation(embedded[0].perturbation).severity,
            "head": None,
            "prompts": None,
            "shots": None,
            "fingerprint": self._fingerprint(cells, neighbours=self.settings.neighbours),
        }
        embeddings = [self.store.embeddings(key)[rows] for key in embedded]
        images = self.samples.images.take(rows)
        for i, j, number in _similarities(embeddings, images, self.settings):
            yield row(number, backbones=[embedded[i].backbone, embedded[j].backbone], **about)

    def logit_statistics(self, temperatures: _Temperatures) -> Iterator[Row]:
        """All rows about the logits of a backbone, for each prompt set."""
        labelled = self.samples.labels >= 0
        scoring = [key for key in self.keys if self.store.cell(key).has_confidences]
        if not scoring or not labelled.any():
            return
        cells = {key.backbone: self.store.fingerprint(key) for key in self.keys}
        for (_, prompts), members in groups(self.store, scoring, self.settings.prompts):
            group = Predicted(self.store, self.samples, tuple(members), prompts)
            valid = [self.store.valid(key, prompts) for key in members]
            rows = _drawn(np.logical_and.reduce([self.readable, labelled, *valid]), self.settings)
            decisive = list((cells | group.fingerprints).values())
            images = self.samples.images.take(rows)
            for key in members:
                for measured, fitted, bin in _statistics(group, key, rows, images, temperatures):
                    support = fitted.fingerprint if fitted else None
                    about = {"fingerprint": self._fingerprint(decisive, support=support)}
                    about |= fitted.about if fitted else {}
                    yield group.row(measured, (key.backbone,)) | about | {"bin": bin}

    def _fingerprint(self, cells: list[str], **more: Any) -> str:
        drawn = {"samples": self.settings.samples, "seed": self.settings.seed}
        return fingerprint({"cells": cells, **drawn, **more})


class _Temperature(NamedTuple):
    score: Score  # the temperature, and the number of images that it was fitted on
    fingerprint: str  # of the cell that it was fitted on
    about: dict[str, Any]  # the support, in the columns of results


# what is measured of logits, the temperature that they were divided by, and the bin
_Number = tuple[Measured, _Temperature | None, int | None]


@dataclass(frozen=True)
class _Temperatures:
    """Temperatures, fitted on clean images of the support when they are first asked for."""

    store: FeatureStore
    settings: RepresentationSettings
    support: str
    measured: Sequence[FeatureKey]
    labels: dict[str, NDArray[np.int32]] = field(default_factory=dict)  # to fit on, by dataset
    fitted: dict[tuple[FeatureKey, str], _Temperature] = field(default_factory=dict)

    def of(self, cell: FeatureKey, prompts: str) -> _Temperature | None:
        """None for the support itself, and where it has no such cell, or no labels."""
        key = replace(cell, split=self.support, perturbation=CLEAN.label)
        if cell.split == self.support or key not in self._with_logits:
            return None
        if (key, prompts) not in self.fitted:
            labels = self._labels(key.dataset)
            rows = _drawn(self.store.valid(key) & (labels >= 0), self.settings)
            if not len(rows):
                return None
            logits, _ = _logits(self.store, key, prompts, rows)
            (temperature,) = fit_temperatures(logits[:, None], labels[rows])
            score = Score(float(temperature), len(rows))
            about = {"support": self.support, "support_prompts": prompts, "shots": FULL}
            self.fitted[key, prompts] = _Temperature(score, self.store.fingerprint(key), about)
        return self.fitted[key, prompts]

    def _labels(self, dataset: str) -> NDArray[np.int32]:
        """(sample,) of the support, without those of images that are measured on."""
        if dataset not in self.labels:
            splits = {key.split for key in self.measured if key.dataset == dataset}
            self.labels[dataset], notes = learnable(
                self.store.samples(dataset, self.support),
                [self.store.samples(dataset, split) for split in sorted(splits - {self.support})],
                allow_overlap=self.settings.allow_overlap,
            )
            for note in notes:
                _LOG.info("note: %s", note)
        return self.labels[dataset]

    @cached_property
    def _with_logits(self) -> set[FeatureKey]:
        keys = self.store.keys(split=[self.support], perturbation=[CLEAN.label])
        return {key for key in keys if self.store.cell(key).has_logits}


def _drawn(usable: NDArray[np.bool_], settings: RepresentationSettings) -> NDArray[np.intp]:
    """Row numbers, ascending: of all usable images, or as many of them as are wanted."""
    rows = np.flatnonzero(usable)
    if len(rows) <= settings.samples:
        return rows
    rng = np.random.default_rng(settings.seed)
    return np.sort(rng.choice(rows, settings.samples, replace=False))


def _similarities(
    embeddings: list[NDArray[np.float16]], images: Images, settings: RepresentationSettings
) -> Iterator[tuple[int, int, Measured]]:
    """All numbers about the embeddings (image, embed) of each pair of backbones i, j."""
    shares = mutual_neighbours(embeddings, settings.neighbours)
    compared = compare(embeddings, seed=settings.seed, images=images)
    for i, j in combinations(range(len(embeddings)), 2):
        for name, similarity in compared.items():
            value, low, high = (float(matrix[i, j]) for matrix in similarity)
            yield i, j, Measured(name, Score(value, len(embeddings[i])), Interval(low, high))
        agreed = shares[i, j]
        known = len(agreed) > 0 and not np.isnan(agreed).any()
        interval = mean_share_interval([agreed], [images]) if known else UNKNOWN
        yield i, j, Measured("mutual_knn", mean(agreed), interval)


def _statistics(
    group: Predicted,
    key: FeatureKey,
    rows: NDArray[np.intp],
    images: Images,
    temperatures: _Temperatures,
) -> Iterator[_Number]:
    """All numbers about the logits of one backbone, or about its imported confidences."""
    store, labels = group.store, group.labels[rows]
    if not store.cell(key).has_logits:
        right = store.predictions(key, group.prompts)[rows] == labels
        yield from _numbers(store.confidences(key, group.prompts)[rows], right, images)
        return
    logits, scale = _logits(store, key, group.prompts, rows)
    judged = judge(logits, labels)
    yield from _numbers(judged.confidence, judged.prediction == labels, images, judged.nll)
    if scale is not None:
        yield Measured("logit_scale", Score(scale, len(rows)), None), None, None
    if fitted := temperatures.of(key, group.prompts):
        yield Measured("temperature", fitted.score, None), fitted, None
        judged = judge(logits / np.float32(fitted.score.value), labels)
        right = judged.prediction == labels
        yield from _numbers(judged.confidence, right, images, judged.nll, fitted)


def _numbers(
    confidence: NDArray[np.float32],
    right: NDArray[np.bool_],
    images: Images,
    nll: NDArray[np.float32] | None = None,
    fitted: _Temperature | None = None,
) -> Iterator[_Number]:
    """By the confidences of some images, and whether they are right: all, and by tenths of them.

    Accuracy and mean confidences, which a temperature does not change, are of logits as they are.
    The calibration error is too high by chance, of which no interval knows.
    """
    end = CALIBRATED if fitted else ""
    if not fitted:
        yield share("acc1", int(np.count_nonzero(right)), images), None, None
        for metric, chosen in (("confidence_right", right), ("confidence_wrong", ~right)):
            values = confidence[chosen]
            interval = mean_share_interval([values], [images.take(chosen)])
            yield Measured(metric, mean(values), interval), None, None
    if nll is not None:
        interval = mean_loss_interval(nll, right, images)
        yield Measured(f"nll{end}", mean(nll), interval), fitted, None
    ece = expected_calibration_error(confidence, right)
    yield Measured(f"ece{end}", ece, None), fitted, None
    yield Measured(f"ece{end}_floor", calibration_floor(confidence), None), fitted, None
    for some in reliability_bins(confidence, right):
        accuracy = share(f"bin_accuracy{end}", some.right, images.take(some.rows))
        yield accuracy, fitted, some.number
        sure = Score(some.confidence, some.n)
        yield Measured(f"bin_confidence{end}", sure, None), fitted, some.number


def _logits(
    store: FeatureStore, key: FeatureKey, prompts: str, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32], float | None]:
    """(image, class) of one backbone, and its logit scale; None where logits were imported."""
    reader = PoolReader(
        store,
        key.dataset,
        key.split,
        perturbation=key.perturbation,
        backbones=key.backbone,
        prompts=prompts,
    )
    pool = reader.read(rows, embeddings=False)
    return pool.logits[:, 0], pool.logit_scales.get(key.backbone)

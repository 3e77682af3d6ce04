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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, groupby
from typing import Any

import numpy as np
import polars as pl

from clipsyn.analyses.predicted import Predicted
from clipsyn.analyses.representation import RepresentationSettings
from clipsyn.analyses.representation.measures import mutual_neighbours, similarities
from clipsyn.errors import LeakError, UsageError
from clipsyn.evaluation.results.frame import (
    Measured,
    Row,
    estimate,
    frame,
    mean,
    mean_share,
    row,
    share,
)
from clipsyn.methods.ensembles.weighted import fit_temperatures
from clipsyn.methods.numerics import Floats, Labels, Mask, Rows
from clipsyn.methods.numerics.metrics import (
    Score,
    calibration_floor,
    expected_calibration_error,
    judge,
    reliability_bins,
)
from clipsyn.names import CLEAN, FeatureKey, fingerprint
from clipsyn.registry import unknown_name
from clipsyn.settings import FULL
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import UNKNOWN, Interval, mean_loss_interval, mean_share_interval
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import labels_to_learn
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import groups
from clipsyn.text import LOG

SUPPORT, CALIBRATED = "train", "_calibrated"
COLUMNS = {"bin": pl.Int32}  # tenth of the images, from 0, the least sure; null for other metrics
# A temperature, what it was fitted on in the columns of results, and the fingerprint of that cell
_Temperature = tuple[Score, Row, str]
_Fit = Callable[[FeatureKey, str], _Temperature | None]  # for a cell and a prompt set
# The cells of a dataset, split and perturbation, the samples, and which every backbone could read
_Shown = tuple[tuple[FeatureKey, ...], SampleTable, Mask]


def measure(store: FeatureStore, settings: RepresentationSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT` and `COLUMNS`.

    Raises MissingCell with the extract line that helps, UnknownName with near matches, LeakError
    where temperatures are to be fitted on "test", or on images that are measured on, and UsageError
    where there is nothing to compare.
    """
    keys = _with_scores(store, settings.keys(store))
    temperature = _temperatures(store, settings, keys)
    rows: list[Row] = []
    for _, group in groupby(sorted(keys, key=_order), key=_order):
        cells = tuple(group)
        samples = store.samples(cells[0].dataset, cells[0].split)
        readable = np.logical_and.reduce([store.cell(key).valid() for key in cells])
        images = cells, samples, readable
        rows += _similarities(store, settings, images)
        rows += _logit_statistics(store, settings, images, temperature)
    if not rows:
        raise UsageError(
            f"{store.path} has one backbone there and no labels: name or extract more backbones"
        )
    return frame(rows, COLUMNS)


def _with_scores(store: FeatureStore, keys: list[FeatureKey]) -> list[FeatureKey]:
    """The cells with embeddings, logits or confidences; raises MissingCell if there is none."""
    cells = [store.cell(key) for key in keys]
    found = [cell.key for cell in cells if cell.has_embeddings or cell.has_confidences]
    if not found:
        cells[0].holding("image_embedding")  # says what is missing
    for name in sorted({key.backbone for key in keys} - {key.backbone for key in found}):
        LOG.info(f"left out: {name}, of which there are imported predictions alone")
    return found


def _order(key: FeatureKey) -> tuple[str, str, bool, str]:
    """By dataset, split and perturbation, clean images first."""
    return key.dataset, key.split, key.perturbation != CLEAN.label, key.perturbation


def _drawn(usable: Mask, settings: RepresentationSettings) -> Rows:
    """Row numbers, ascending: of all usable images, or as many of them as are wanted."""
    rows = np.flatnonzero(usable)
    if len(rows) <= settings.samples:
        return rows
    rng = np.random.default_rng(settings.seed)
    return np.sort(rng.choice(rows, settings.samples, replace=False))


def _fingerprint(settings: RepresentationSettings, cells: list[str], **more: Any) -> str:
    drawn = {"samples": settings.samples, "seed": settings.seed}
    return fingerprint({"cells": cells, **drawn, **more})


def _similarities(
    store: FeatureStore, settings: RepresentationSettings, images: _Shown
) -> Iterator[Row]:
    """All rows about pairs of backbones on one dataset, split and perturbation."""
    keys, samples, readable = images
    embedded = [key for key in keys if store.cell(key).has_embeddings]
    if len(embedded) < 2:
        return
    rows = _drawn(readable, settings)
    cells = [store.cell(key).fingerprint() for key in keys]
    about = {
        "dataset": samples.dataset,
        "split": samples.split,
        "perturbation": embedded[0].perturbation,
        "head": None,
        "prompts": None,
        "shots": None,
        "fingerprint": _fingerprint(settings, cells, neighbours=settings.neighbours),
    }
    embeddings = [store.cell(key).embeddings()[rows] for key in embedded]
    taken = samples.images.take(rows)
    shares = mutual_neighbours(embeddings, settings.neighbours)
    alike = similarities(embeddings, seed=settings.seed, images=taken)
    for i, j in combinations(range(len(embedded)), 2):
        of_pair = [
            Measured(metric, Score(value, len(rows)), Interval(low, high))
            for metric, matrices in alike.items()
            for value, low, high in [matrices[:, i, j].tolist()]
        ]
        agreed = shares[i, j]
        known = len(agreed) > 0 and not np.isnan(agreed).any()
        interval = mean_share_interval([agreed], [taken]) if known else UNKNOWN
        for measured in (*of_pair, Measured("mutual_knn", mean(agreed), interval)):
            yield row(measured, backbones=[embedded[i].backbone, embedded[j].backbone], **about)


def _temperatures(
    store: FeatureStore, settings: RepresentationSettings, measured: Sequence[FeatureKey]
) -> _Fit:
    """Function: the temperature of a cell, fitted on clean images of the support.

    None for the support itself, and where it has no such cell, or no labels. Raises LeakError or
    UnknownName for a support that cannot be.
    """
    support = settings.support or SUPPORT
    if support == "test":
        raise LeakError(
            "temperatures are fitted on another split than test: give another support=…"
        )
    there = store.keys()
    if settings.support and support not in (known := {key.split for key in there}):
        hint = f"Looked for in {store.path}; `clipsyn extract` adds more."
        raise unknown_name("split", support, known, hint)

    @cache
    def labels(dataset: str) -> Labels:
        """(sample,) of the support, without those of images that are measured on."""
        splits = {key.split for key in measured if key.dataset == dataset} - {support}
        tables = [store.samples(dataset, split) for split in sorted(splits)]
        of_support = store.samples(dataset, support)
        return labels_to_learn(of_support, tables, allow_overlap=settings.allow_overlap)

    @cache
    def fitted(key: FeatureKey, prompts: str) -> _Temperature | None:
        known = labels(key.dataset)
        rows = _drawn(store.cell(key).valid() & (known >= 0), settings)
        if not len(rows):
            return None
        group = Predicted(store, store.samples(key.dataset, support), (key,), prompts)
        (temperature,) = fit_temperatures(group.alone(key, rows).logits, known[rows])
        about = {"support": support, "support_prompts": prompts, "shots": FULL}
        return Score(float(temperature), len(rows)), about, store.cell(key).fingerprint()

    def of(cell: FeatureKey, prompts: str) -> _Temperature | None:
        key = replace(cell, split=support, perturbation=CLEAN.label)
        is_there = cell.split != support and key in there and store.cell(key).has_logits
        return fitted(key, prompts) if is_there else None

    return of


def _logit_statistics(
    store: FeatureStore, settings: RepresentationSettings, images: _Shown, temperature: _Fit
) -> Iterator[Row]:
    """All rows about the logits of a backbone, for each prompt set."""
    keys, samples, readable = images
    labelled = samples.labels >= 0
    scoring = [key for key in keys if store.cell(key).has_confidences]
    if not scoring or not labelled.any():
        return
    cells = {key.backbone: store.cell(key).fingerprint() for key in keys}
    for (_, prompts), members in groups(store, scoring, settings.prompts):
        group = Predicted(store, samples, tuple(members), prompts)
        valid = [store.cell(key).valid(prompts) for key in members]
        rows = _drawn(np.logical_and.reduce([readable, labelled, *valid]), settings)
        decisive = list((cells | group.fingerprints).values())
        for key in members:
            fitted = temperature(key, prompts) if store.cell(key).has_logits else None
            for measured, bin in _of_backbone(group, key, rows, fitted):
                about: Row = {"fingerprint": _fingerprint(settings, decisive, support=None)}
                if fitted and (CALIBRATED in measured.metric or measured.metric == "temperature"):
                    _, support, of_cell = fitted
                    about = support | {
                        "fingerprint": _fingerprint(settings, decisive, support=of_cell)
                    }
                yield group.row(measured, (key.backbone,)) | about | {"bin": bin}


def _of_backbone(
    group: Predicted, key: FeatureKey, rows: Rows, fitted: _Temperature | None
) -> Iterator[tuple[Measured, int | None]]:
    """All numbers about the logits of one backbone, or its imported confidences; with their bin."""
    store, labels = group.store, group.labels[rows]
    images = group.samples.images.take(rows)
    if not store.cell(key).has_logits:
        right = store.cell(key).predictions(group.prompts)[rows] == labels
        yield from _numbers(store.cell(key).confidences(group.prompts)[rows], right, images)
        return
    pool = group.alone(key, rows)
    logits = pool.logits[:, 0]
    judged = judge(logits, labels)
    yield from _numbers(judged.confidence, judged.prediction == labels, images, judged.nll)
    if scale := pool.logit_scales.get(key.backbone):
        yield estimate("logit_scale", scale, len(rows)), None
    if fitted:
        yield Measured("temperature", fitted[0]), None
        judged = judge(logits / np.float32(fitted[0].value), labels)
        right = judged.prediction == labels
        yield from _numbers(judged.confidence, right, images, judged.nll, CALIBRATED)


def _numbers(
    confidence: Floats, right: Mask, images: Images, nll: Floats | None = None, end: str = ""
) -> Iterator[tuple[Measured, int | None]]:
    """By the confidences of some images, and whether they are right: all, and by tenths of them.

    Accuracy and mean confidences, which a temperature does not change, are of logits as they are.
    The calibration error is too high by chance, of which no interval knows.
    """
    if not end:
        yield share("acc1", right, images), None
        for metric, chosen in (("confidence_right", right), ("confidence_wrong", ~right)):
            yield mean_share(metric, confidence[chosen], images.take(chosen)), None
    if nll is not None:
        yield Measured(f"nll{end}", mean(nll), mean_loss_interval(nll, right, images)), None
    ece = expected_calibration_error(confidence, right)
    yield Measured(f"ece{end}", ece), None
    yield Measured(f"ece{end}_floor", calibration_floor(confidence)), None
    for some in reliability_bins(confidence, right):
        yield share(f"bin_accuracy{end}", some.right, images.take(some.rows)), some.number
        yield estimate(f"bin_confidence{end}", some.confidence, some.n), some.number

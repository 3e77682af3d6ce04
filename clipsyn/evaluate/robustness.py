"""What perturbations do to the backbones of a store, to their order, their oracle and ensembles.

Reads predictions and labels alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analysis.robustness import (
    corruption_error,
    families,
    kendall_tau,
    relative_robustness,
)
from clipsyn.errors import MissingCell, UsageError
from clipsyn.evaluate.predicted import Predicted, predicted
from clipsyn.evaluate.results import RESULT, Measured, ResultsFile, Row
from clipsyn.metrics import Score, scored
from clipsyn.registry import unknown_name
from clipsyn.specs import CLEAN, FeatureKey, fingerprint, parse_perturbation
from clipsyn.stats import UNKNOWN, bootstrap_means, percentiles
from clipsyn.store.features import FeatureStore
from clipsyn.store.select import Names, select, terms_of

ALL = "all"  # stands for the mean over all perturbations
_NO_METHODS = ("oracle", "chance")  # in files of results


def robustness(
    store: FeatureStore,
    *,
    datasets: Names = None,
    splits: Names = ("test",),
    perturbations: Names = None,
    backbones: Names = None,
    prompts: Names = None,
    reference: str | None = None,
    results: Path | None = None,
) -> pl.DataFrame:
    """Accuracy of backbones, oracle and ensembles under perturbation, against clean images.

    Filters are names or patterns with ``*``; None takes all there is, and clean images are always
    taken. Returns a tidy frame with the columns of `RESULT`, over the samples that every backbone
    has predictions for, clean and under every perturbation. Rows are of

    - each perturbation at its severity ("jpeg-3", severity 3);
    - each perturbation, the mean over its severities ("jpeg", severity null);
    - "all", the mean over perturbations (severity null).

    Metrics of each backbone (`ensemble` null) and of the "oracle":

    - acc1; drop, what is lost of the clean accuracy; relative_robustness, accuracy over clean
      accuracy (NaN where that is 0);
    - of the mean over severities: ce, the sum of errors over that of the reference; its mean over
      perturbations, at "all", is mce (Hendrycks & Dietterich 2019; without their division by 100,
      and with the severities that there are).

    Of the oracle also gain, over the best single backbone under that perturbation. Of the best
    single backbone there, by its name: lead, over the backbone that is best on clean images. Of
    all backbones, "a+b+c": kendall_tau (b) of their order against that on clean images.

    reference: the backbone that errors are divided by; without one, the backbone with the lowest
    mean clean accuracy over the datasets shown, as AlexNet was the weakest of the original. The
    row of metric error and ensemble "reference" names it.

    Intervals are of the paired bootstrap over samples, the same resamples for everything.

    results: a file of `clipsyn evaluate -o`, whose ensembles get acc1, drop, relative_robustness,
    ce and mce too, for every head, number of shots and seed; acc1 with the interval it has there,
    the others with none, since predictions of ensembles are not kept.

    Raises MissingCell with the extract line where clean images, or a backbone under a
    perturbation, are missing; UnknownName with near matches; DatasetError where nothing has
    labels; UsageError for results that hold no ensemble on clean and perturbed images.
    """
    _refuse_gaps(store, datasets, splits, perturbations, backbones)
    if perturbations is not None:
        perturbations = (*terms_of("perturbation", perturbations), CLEAN.label)
    found = predicted(
        store,
        datasets=datasets,
        splits=splits,
        perturbations=perturbations,
        backbones=backbones,
        prompts=prompts,
    )
    by_set: dict[tuple[str, str, str], list[Predicted]] = {}
    for group in found:
        where = (group.samples.dataset, group.samples.split, group.prompts)
        by_set.setdefault(where, []).append(group)
    several = [_Trial.of(members) for members in by_set.values() if len(members) > 1]
    chosen = _reference(several, reference)
    rows = [row for trial in several for row in _backbone_rows(trial, chosen)]
    if results is not None:
        rows += _ensemble_rows(store, several, chosen, results)
    return pl.DataFrame(rows, schema=RESULT)


def _refuse_gaps(
    store: FeatureStore, datasets: Names, splits: Names, perturbations: Names, backbones: Names
) -> None:
    """Every backbone is needed on clean images and under every perturbation of its dataset."""
    keys = select(
        store, dataset=datasets, split=splits, perturbation=perturbations, backbone=backbones
    )
    perturbed = [key for key in keys if key.perturbation != CLEAN.label]
    if not perturbed:
        raise MissingCell(
            f"{store.path} has clean images only of what is asked for: run "
            f"`{store.extract_line(keys[0])} --perturb jpeg:3`"
        )
    there = set(store.keys())
    for _, cells in groupby(perturbed, key=lambda key: (key.dataset, key.split)):
        members = list(cells)
        names = {key.backbone: None for key in members}
        labels = {CLEAN.label: None} | {key.perturbation: None for key in members}
        for label in labels:
            for name in names:
                key = FeatureKey(members[0].dataset, members[0].split, label, name)
                if key not in there:
                    raise MissingCell(
                        f"{store.path} has no {key}, so that backbone cannot be compared: run "
                        f"`{store.extract_line(key)}`, or choose with --backbones and --perturb"
                    )


@dataclass(frozen=True)
class _Trial:
    """The backbones of one dataset, split and prompt set, clean and under perturbations."""

    clean: Predicted
    labels: tuple[str, ...]  # of the perturbations, clean first
    accuracy: NDArray[np.float64]  # (perturbation, method): backbones, then the oracle
    draws: NDArray[np.float64]  # (resample, perturbation, method)
    n: int
    cells: list[str]  # fingerprints of all that is read

    @classmethod
    def of(cls, groups: Sequence[Predicted]) -> _Trial:
        """From one group for each perturbation, clean images first."""
        predictions = np.stack([group.predictions for group in groups])
        perturbations, backbones, samples = predictions.shape
        labels = groups[0].labels
        counted = scored(predictions.reshape(-1, samples), labels)
        right = predictions[:, :, counted] == labels[counted]
        columns = np.concatenate([right, right.any(axis=1, keepdims=True)], axis=1)
        columns = columns.reshape(perturbations * (backbones + 1), -1).T
        shape = (-1, perturbations, backbones + 1)
        n = len(columns)
        whole = columns.mean(axis=0) if n else np.full(columns.shape[1], np.nan)
        return cls(
            groups[0],
            tuple(group.perturbation for group in groups),
            whole.reshape(shape)[0],
            bootstrap_means(columns).reshape(shape),
            n,
            [cell for group in groups for cell in group.fingerprints.values()],
        )

    @property
    def backbones(self) -> tuple[str, ...]:
        return self.clean.backbones


class _Setting(NamedTuple):
    """One perturbation at one severity, or a mean over some: arrays (…, method)."""

    label: str
    severity: int | None
    accuracy: NDArray[np.float64]  # (1 + resample, method): of the samples, then of resamples
    error: NDArray[np.float64] | None = None  # the same: ce, or mce


def _settings(
    labels: Sequence[str], accuracy: NDArray[np.float64], reference: int
) -> Iterator[_Setting]:
    """Every perturbation, their means over severities, and the mean of those.

    accuracy: (…, perturbation, method), clean images first. reference: a method.
    """
    for place, label in enumerate(labels[1:], 1):
        yield _Setting(label, parse_perturbation(label).severity, accuracy[..., place, :])
    means, errors = [], []
    for name, members in families(labels).items():
        several = accuracy[..., [labels.index(label) for label in members], :]
        means.append(several.mean(axis=-2))
        errors.append(corruption_error(several, reference))
        yield _Setting(name, None, means[-1], errors[-1])
    yield _Setting(ALL, None, np.mean(means, axis=0), np.mean(errors, axis=0))


def _reference(trials: Sequence[_Trial], wanted: str | None) -> str:
    """The backbone that errors are divided by; every trial has it."""
    if wanted is not None:
        for trial in trials:
            if wanted not in trial.backbones:
                where = f"{trial.clean.samples.dataset}/{trial.clean.samples.split}"
                raise unknown_name("reference", wanted, trial.backbones, f"Looked for in {where}.")
        return wanted
    shared = set.intersection(*(set(trial.backbones) for trial in trials))
    if not shared:
        raise UsageError(
            "no backbone is there for every dataset, so errors have no common reference: choose "
            "datasets with --dataset"
        )
    clean = {
        name: sum(float(trial.accuracy[0, trial.backbones.index(name)]) for trial in trials)
        for name in sorted(shared)
    }
    return min(clean, key=lambda name: clean[name])


def _backbone_rows(trial: _Trial, reference: str) -> Iterator[Row]:
    """Of backbones and oracle."""
    whole = fingerprint({"cells": trial.cells, "reference": reference})
    place = trial.backbones.index(reference)
    error = Measured("error", Score(1 - float(trial.accuracy[0, place]), trial.n), None)
    both = np.concatenate([trial.accuracy[None], trial.draws])
    clean = both[:, 0]
    first = _Setting(CLEAN.label, 0, clean)
    yield trial.clean.row(error, (reference,), "reference") | {"fingerprint": whole}
    for setting in (first, *_settings(trial.labels, both, place)):
        said = {
            "perturbation": setting.label,
            "severity": setting.severity,
            "fingerprint": whole,
        }
        for names, ensemble, measured in _measures(trial, setting, clean):
            yield trial.clean.row(measured, names, ensemble) | said


def _measures(
    trial: _Trial, setting: _Setting, clean: NDArray[np.float64]
) -> Iterator[tuple[tuple[str, ...], str | None, Measured]]:
    """Backbones, ensemble and number of everything that is measured under one setting."""
    count = len(trial.backbones)
    columns = {"acc1": setting.accuracy}
    if setting.label != CLEAN.label:
        columns["drop"] = clean - setting.accuracy
        columns["relative_robustness"] = relative_robustness(setting.accuracy, clean)
    if setting.error is not None:
        columns["mce" if setting.label == ALL else "ce"] = setting.error
    for metric, values in columns.items():
        for b, name in enumerate(trial.backbones):
            yield (name,), None, _measured(metric, values[:, b], trial.n)
        if count > 1:
            yield trial.backbones, "oracle", _measured(metric, values[:, count], trial.n)
    if count > 1:
        yield from _comparisons(trial, setting, clean)


def _comparisons(
    trial: _Trial, setting: _Setting, clean: NDArray[np.float64]
) -> Iterator[tuple[tuple[str, ...], str | None, Measured]]:
    """gain, lead and kendall_tau: the best backbones are those of the samples, not of resamples."""
    singles, before = setting.accuracy[:, :-1], clean[:, :-1]
    best, best_before = int(singles[0].argmax()), int(before[0].argmax())
    gain = setting.accuracy[:, -1] - singles[:, best]
    yield trial.backbones, "oracle", _measured("gain", gain, trial.n)
    if setting.label != CLEAN.label:
        lead = singles[:, best] - singles[:, best_before]
        yield (trial.backbones[best],), None, _measured("lead", lead, trial.n)
        tau = kendall_tau(singles, before)
        yield trial.backbones, None, _measured("kendall_tau", tau, trial.n)


def _measured(metric: str, values: NDArray[np.float64], n: int) -> Measured:
    """From the number over the samples, and those over resamples, of which some may be NaN."""
    draws = values[1:][np.isfinite(values[1:])]
    known = len(draws) and np.isfinite(values[0])
    return Measured(metric, Score(float(values[0]), n), percentiles(draws) if known else UNKNOWN)


def _ensemble_rows(
    store: FeatureStore, trials: Sequence[_Trial], reference: str, path: Path
) -> list[Row]:
    """Of the ensembles in a file of results."""
    if not path.exists():
        raise UsageError(f"{path} does not exist: {_evaluate_line(store, trials, path)}")
    frame = ResultsFile(path).frame.filter(
        pl.col("metric") == "acc1",
        pl.col("classes") == "all",
        pl.col("ensemble").is_not_null() & ~pl.col("ensemble").is_in(_NO_METHODS),
    )
    rows: list[Row] = []
    for trial in trials:
        table = trial.clean.samples
        part = frame.filter(
            pl.col("dataset") == table.dataset,
            pl.col("split") == table.split,
            pl.col("prompts") == trial.clean.prompts,
            pl.col("perturbation").is_in(trial.labels),
        )
        keys = ["head", "ensemble", "backbones", "support", "shots", "seed"]
        for _, method in part.group_by(keys, maintain_order=True):
            by_label = {row["perturbation"]: row for row in method.to_dicts()}
            if CLEAN.label in by_label and len(by_label) > 1:
                rows += _method_rows(trial, by_label, reference)
    if not rows:
        raise UsageError(
            f"{path} has no ensemble on both clean and perturbed images of what is shown: "
            f"{_evaluate_line(store, trials, path)}"
        )
    return rows


def _evaluate_line(store: FeatureStore, trials: Sequence[_Trial], path: Path) -> str:
    labels = ",".join(dict.fromkeys(label for trial in trials for label in trial.labels))
    return f"run `clipsyn evaluate {store.path} -p {labels} -o {path}`"


def _method_rows(trial: _Trial, by_label: Mapping[str, Row], reference: str) -> Iterator[Row]:
    """Of one ensemble. Means over what the file lacks in part are left out."""
    place = trial.backbones.index(reference)
    found = [by_label.get(label, {}).get("value", np.nan) for label in trial.labels]
    accuracy = np.stack([found, trial.accuracy[:, place]], axis=1)
    clean = by_label[CLEAN.label]
    yield clean
    cells = {"results": [row["fingerprint"] for row in by_label.values()], "cells": trial.cells}
    derived = {"ci_low": None, "ci_high": None, "fingerprint": fingerprint(cells)}
    for setting in _settings(trial.labels, accuracy, 1):
        value = float(setting.accuracy[0])
        if np.isnan(value):
            continue
        said = {"perturbation": setting.label, "severity": setting.severity}
        yield by_label.get(setting.label) or clean | said | derived | {"value": value}
        relative = relative_robustness(setting.accuracy[:1], np.array([clean["value"]]))
        numbers = {"drop": clean["value"] - value, "relative_robustness": float(relative[0])}
        if setting.error is not None:
            numbers["mce" if setting.label == ALL else "ce"] = float(setting.error[0])
        for metric, number in numbers.items():
            yield clean | said | derived | {"metric": metric, "value": number}

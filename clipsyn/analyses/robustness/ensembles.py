"""What perturbations do to the ensembles in a file of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from clipsyn.analyses.predicted import ALL
from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness.measures import relative_robustness
from clipsyn.analyses.robustness.trials import Setting, Trial
from clipsyn.errors import UsageError
from clipsyn.results.files import ensembles_in
from clipsyn.results.frame import Row
from clipsyn.specs import CLEAN, fingerprint
from clipsyn.store.features import FeatureStore

_METHOD = ["head", "ensemble", "support", "shots", "seed"]


def ensemble_rows(
    store: FeatureStore,
    trials: Sequence[Trial],
    reference: str,
    settings: RobustnessSettings,
) -> list[Row]:
    """Of the ensembles in a file of `clipsyn evaluate -o`, on one head and number of shots.

    Ensembles that learn nothing are there with any number of shots. Means over severities of which
    the file lacks some are left out. Raises UsageError where there is no such
    ensemble of the trials' backbones and samples, and UnknownName with near matches for a head.
    """
    assert settings.results is not None
    path = settings.results
    line = _evaluate_line(store, trials, path)
    frame = ensembles_in(path, ("acc1", "gain"), settings.head, settings.shots, line)
    frame = frame.filter(pl.col("ensemble") != "oracle")
    if frame["support"].drop_nulls().n_unique() > 1:
        raise UsageError(
            f"{path} has ensembles fitted on several splits or prompt sets: give a file with one "
            "of them"
        )
    rows = [
        row
        for trial in trials
        for method in _methods(trial, frame, path).values()
        for row in _method_rows(trial, reference, method)
    ]
    if not rows:
        raise UsageError(
            f"{path} has no ensemble of these backbones on both clean and perturbed images of what "
            f"is shown: run `{line}`"
        )
    return rows


def _evaluate_line(store: FeatureStore, trials: Sequence[Trial], path: Path) -> str:
    names = sorted({label.split("-")[0] for trial in trials for label in trial.labels[1:]})
    labels = ",".join([CLEAN.label, *(f"{name}-*" for name in names)])
    return f"clipsyn evaluate {store.path} --perturb '{labels}' -o {path}"


class _Method(NamedTuple):
    """Rows of one ensemble by perturbation."""

    accuracy: dict[str, Row]
    gain: dict[str, Row]  # over the best single backbone


def _methods(trial: Trial, frame: pl.DataFrame, path: Path) -> dict[tuple[Any, ...], _Method]:
    """The ensembles of a trial's backbones that were measured clean and perturbed."""
    if trial.members:
        of_each = [_methods(member, frame, path) for member in trial.members]
        shared = [key for key in of_each[0] if all(key in others for others in of_each)]
        return {key: _mean([methods[key] for methods in of_each]) for key in shared}
    found = {}
    for key, part in _of(trial, frame).group_by(_METHOD, maintain_order=True):
        rows = [part.filter(metric=metric).to_dicts() for metric in ("acc1", "gain")]
        method = _Method(*({row["perturbation"]: row for row in of} for of in rows))
        if CLEAN.label in method.accuracy and len(method.accuracy) > 1:
            _refuse_other_samples(trial, method, path)
            found[key] = method
    return found


def _mean(methods: Sequence[_Method]) -> _Method:
    """Over datasets; gains are taken anew, over the backbone with the best mean."""
    shared = set.intersection(*(set(method.accuracy) for method in methods))
    found = {}
    for label in (label for label in methods[0].accuracy if label in shared):
        rows = [method.accuracy[label] for method in methods]
        found[label] = rows[0] | {
            "dataset": None,
            "value": float(np.mean([row["value"] for row in rows])),
            "ci_low": None,
            "ci_high": None,
            "n": sum(row["n"] for row in rows),
            "fingerprint": fingerprint({"results": [row["fingerprint"] for row in rows]}),
        }
    return _Method(found, {})


def _of(trial: Trial, frame: pl.DataFrame) -> pl.DataFrame:
    """The results of a trial: of its samples, perturbations and backbones in any order."""
    of_these = pl.col("backbones").list.sort()
    return frame.filter(
        pl.col("dataset") == trial.clean.samples.dataset,
        pl.col("split") == trial.clean.samples.split,
        pl.col("prompts") == trial.clean.prompts,
        pl.col("perturbation").is_in(trial.labels),
        of_these == pl.lit(sorted(trial.backbones), pl.List(pl.String)),
    )


def _refuse_other_samples(trial: Trial, method: _Method, path: Path) -> None:
    for label, row in method.accuracy.items():
        if row["n"] != trial.n([label]):
            raise UsageError(
                f"{path} is of other samples: {row['n']:,} of {trial.name} ({label}), here "
                f"{trial.n([label]):,}; evaluate this store into another file"
            )


def _method_rows(trial: Trial, reference: str, method: _Method) -> Iterator[Row]:
    """Of one ensemble. Means over what the file lacks in part are left out."""
    by_label = method.accuracy
    found = [by_label[label]["value"] if label in by_label else np.nan for label in trial.labels]
    accuracy = np.column_stack([found, trial.accuracy[0, :, :-1]])  # beside all backbones
    place = 1 + trial.backbones.index(reference)
    prints = [row["fingerprint"] for row in by_label.values()]
    whole = fingerprint({"results": prints, "cells": trial.cells, "reference": reference})
    clean = Setting(CLEAN.label, 0, trial.n([CLEAN.label]), accuracy[0])
    derived = by_label[CLEAN.label] | {"ci_low": None, "ci_high": None, "fingerprint": whole}
    for setting in (clean, *trial.settings(accuracy, place)):
        if np.isnan(setting.accuracy[0]):
            continue
        said = {"perturbation": setting.label, "severity": setting.severity, "n": setting.n}
        read = {"acc1": by_label.get(setting.label), "gain": method.gain.get(setting.label)}
        for metric, value in _numbers(setting, clean).items():
            yield read.get(metric) or derived | said | {"metric": metric, "value": value}


def _numbers(setting: Setting, clean: Setting) -> dict[str, float]:
    """Settings of the ensemble, then all backbones."""
    accuracy, before = float(setting.accuracy[0]), clean.accuracy[:1]
    numbers = {"acc1": accuracy, "gain": accuracy - float(setting.accuracy[1:].max())}
    if setting is not clean:
        numbers["drop"] = float(before[0]) - accuracy
        relative = relative_robustness(setting.accuracy[:1], before)
        numbers["relative_robustness"] = float(relative[0])
    if setting.error is not None:
        numbers["mce" if setting.label == ALL else "ce"] = float(setting.error[0])
    return numbers

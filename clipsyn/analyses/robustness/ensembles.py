"""What perturbations do to the ensembles in a file of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness.trials import Trial
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.data import check_data
from clipsyn.evaluation.results.files import ensembles_in
from clipsyn.evaluation.results.frame import Row
from clipsyn.names import CLEAN, fingerprint, parse_perturbation
from clipsyn.store.features import FeatureStore
from clipsyn.text import advised

_SUPPORT = ["support", "support_prompts"]
_FITTED = ["head", "ensemble", *_SUPPORT, "shots", "seed"]  # what tells ensembles apart


class _Results(NamedTuple):
    """Rows of one ensemble, by perturbation."""

    accuracy: dict[str, Row]
    gain: dict[str, Row]  # over the best single backbone


def ensemble_rows(
    store: FeatureStore,
    trials: Sequence[Trial],
    reference: str,
    settings: RobustnessSettings,
) -> list[Row]:
    """Rows of the ensembles in `settings.results`, on one head and number of shots, for each seed.

    Ensembles that learn nothing are there with any number of shots. A mean over severities is left
    out where the file lacks one of them. Raises UsageError where there is no such ensemble of the
    trials' backbones and samples, and UnknownName with near matches for a head.
    """
    assert settings.results is not None
    path = settings.results
    words = _evaluating(store, trials, path)
    frame = ensembles_in(path, ("acc1", "gain"), settings.head, settings.shots, words)
    frame = frame.filter(pl.col("ensemble") != "oracle")
    if frame.select(_SUPPORT).drop_nulls().n_unique() > 1:
        raise UsageError(
            f"{path} has ensembles fitted on several splits or prompt sets: give a file with one "
            "of them"
        )
    rows = [
        row
        for trial in trials
        for results in _results(trial, frame, path).values()
        for row in _rows(trial, reference, results)
    ]
    if not rows:
        raise UsageError(
            f"{path} has no ensemble of these backbones on both clean and perturbed images of what "
            f"is shown: run `{advised(*words)}`"
        )
    return rows


def _evaluating(store: FeatureStore, trials: Sequence[Trial], path: Path) -> tuple[object, ...]:
    perturbed = {label for trial in trials for label in trial.labels[1:]}
    names = sorted({parse_perturbation(label).name for label in perturbed})
    labels = ",".join([CLEAN.label, *(f"{name}-*" for name in names)])
    return "evaluate", store.path, "--perturb", labels, "-o", path


def _results(trial: Trial, frame: pl.DataFrame, path: Path) -> dict[tuple[Any, ...], _Results]:
    """The ensembles of a trial's backbones that were measured clean and perturbed."""
    if trial.members:
        of_members = [_results(member, frame, path) for member in trial.members]
        shared = [key for key in of_members[0] if all(key in others for others in of_members)]
        return {key: _mean([results[key] for results in of_members]) for key in shared}
    by_ensemble = {}
    for key, part in _about(trial, frame).group_by(_FITTED, maintain_order=True):
        accuracy, gain = (
            {row["perturbation"]: row for row in part.filter(metric=metric).iter_rows(named=True)}
            for metric in ("acc1", "gain")
        )
        if CLEAN.label in accuracy and len(accuracy) > 1:
            check_data(trial.clean.store, part, path)
            by_ensemble[key] = _Results(accuracy, gain)
    return by_ensemble


def _mean(members: Sequence[_Results]) -> _Results:
    """Over datasets; gains are taken anew, over the backbone with the best mean."""
    first, *others = (results.accuracy for results in members)
    accuracy = {}
    for label in (label for label in first if all(label in other for other in others)):
        rows = [first[label], *(other[label] for other in others)]
        accuracy[label] = rows[0] | {
            "dataset": None,
            "value": float(np.mean([row["value"] for row in rows])),
            "ci_low": None,
            "ci_high": None,
            "n": sum(row["n"] for row in rows),
            "fingerprint": fingerprint({"results": [row["fingerprint"] for row in rows]}),
        }
    return _Results(accuracy, {})


def _about(trial: Trial, frame: pl.DataFrame) -> pl.DataFrame:
    """The results of a trial's samples, perturbations and backbones, in any order."""
    return frame.filter(
        pl.col("dataset") == trial.clean.samples.dataset,
        pl.col("split") == trial.clean.samples.split,
        pl.col("prompts") == trial.clean.prompts,
        pl.col("perturbation").is_in(trial.labels),
        pl.col("backbones").list.sort() == pl.lit(sorted(trial.backbones), pl.List(pl.String)),
    )


def _rows(trial: Trial, reference: str, results: _Results) -> Iterator[Row]:
    """All rows about one ensemble."""
    rows = results.accuracy
    known = [rows[label]["value"] if label in rows else np.nan for label in trial.labels]
    accuracy = np.column_stack([known, trial.accuracy[0, :, :-1]])  # beside all backbones
    clean, *others = trial.conditions(accuracy, 1 + trial.backbones.index(reference))
    cells = {"cells": trial.cells, "reference": reference}
    prints = [row["fingerprint"] for row in rows.values()]
    derived = rows[CLEAN.label] | {
        "ci_low": None,
        "ci_high": None,
        "fingerprint": fingerprint({"results": prints, **cells}),
    }
    for condition in (clean, *others):
        value, best = float(condition.accuracy[0]), float(condition.accuracy[1:].max())
        if np.isnan(value):
            continue
        about = {"perturbation": condition.label, "severity": condition.severity, "n": condition.n}
        in_file = {"acc1": rows.get(condition.label), "gain": results.gain.get(condition.label)}
        numbers = {"acc1": value, "gain": value - best}
        numbers |= {name: float(values[0]) for name, values in condition.metrics(clean).items()}
        for metric, number in numbers.items():
            yield in_file.get(metric) or derived | about | {"metric": metric, "value": number}

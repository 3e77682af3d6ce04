"""What perturbations do to the backbones of a store, to their order, their oracle and ensembles.

All numbers under a perturbation are over the samples that every backbone has a prediction for
there; clean images are always taken. There are rows for each perturbation at its severity
("jpeg-3", severity 3), for the mean over its severities ("jpeg", severity null), and for "all", the
mean over perturbations. Several datasets with the same backbones and perturbations also have rows
of their mean accuracy, and of what follows from it: `dataset` null, n the sum. docs/analysis.md
lists the metrics and says how their intervals are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.predicted import estimate
from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness.measures import kendall_tau
from clipsyn.analyses.robustness.trials import Condition, Trial, means, trials
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.data import check_data
from clipsyn.evaluation.results.files import ensembles_in
from clipsyn.evaluation.results.frame import Measured, Row, frame
from clipsyn.methods.numerics.metrics import Score
from clipsyn.names import CLEAN, fingerprint, parse_perturbation
from clipsyn.registry import unknown_name
from clipsyn.stats.differences import difference_interval, ratio_interval
from clipsyn.stats.images import variance_of_mean
from clipsyn.stats.intervals import Interval, loss_interval, mean_share_interval, share_interval
from clipsyn.store.features import FeatureStore
from clipsyn.text import advised

_About = tuple[tuple[str, ...], str | None, Measured]  # backbones, ensemble, their number
_SUPPORT = ["support", "support_prompts"]
_FITTED = ["head", "ensemble", *_SUPPORT, "shots", "seed"]  # what tells ensembles apart


def measure(store: FeatureStore, settings: RobustnessSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT`.

    Raises MissingCell with the extract line where clean images, or a backbone under a
    perturbation, are missing; UnknownName with near matches; DatasetError where nothing has
    labels; UsageError for results of no such ensemble, or of other samples.
    """
    single = trials(store, settings)
    reference = _reference(single, settings.reference)
    every = [*single, *means(single)]
    rows = [row for trial in every for row in _rows(trial, reference)]
    if settings.results is not None:
        rows += ensemble_rows(store, every, reference, settings)
    return frame(rows)


def _reference(single: Sequence[Trial], wanted: str | None) -> str:
    """The backbone that errors are divided by; every trial has it."""
    if wanted is not None:
        for trial in single:
            if wanted not in trial.backbones:
                hint = f"Looked for in {trial.name}."
                raise unknown_name("reference", wanted, trial.backbones, hint)
        return wanted
    shared = set.intersection(*(set(trial.backbones) for trial in single))
    if not shared:
        raise UsageError(
            "no backbone is there for every dataset, so errors have no common reference: choose "
            "them with datasets=…"
        )
    clean = {
        name: sum(float(trial.accuracy[0, trial.backbones.index(name)]) for trial in single)
        for name in sorted(shared)
    }
    return min(clean, key=lambda name: clean[name])


def _rows(trial: Trial, reference: str) -> Iterator[Row]:
    """All rows about backbones and oracle."""
    whole = {"fingerprint": fingerprint({"cells": trial.cells, "reference": reference})}
    place = trial.backbones.index(reference)
    conditions = trial.measured(place)
    clean = next(conditions)
    error = estimate("error", 1 - clean.accuracy[place], clean.n)
    yield trial.row(error, (reference,), "reference") | whole
    for condition in chain([clean], conditions):
        about = {"perturbation": condition.label, "severity": condition.severity}
        for names, ensemble, measured in numbers(trial, condition, clean):
            yield trial.row(measured, names, ensemble) | about | whole


def numbers(trial: Trial, condition: Condition, clean: Condition) -> Iterator[_About]:
    """Everything that is measured under one condition."""
    several = len(trial.backbones) > 1
    methods: list[tuple[tuple[str, ...], str | None]]
    methods = [((name,), None) for name in trial.backbones]
    methods += [(trial.backbones, "oracle")] if several else []
    for metric, values in condition.metrics(clean).items():
        for column, (names, ensemble) in enumerate(methods):
            value, interval = values[column], _interval(metric, column, trial, condition, clean)
            yield names, ensemble, Measured(metric, Score(float(value), condition.n), interval)
    if several:
        mark = trial.independent[condition.label]
        yield trial.backbones, "oracle", estimate("acc1_independent", mark, condition.n)
        yield from _comparisons(trial, condition, clean)


def _interval(
    metric: str, column: int, trial: Trial, condition: Condition, clean: Condition
) -> Interval:
    """Of a number about one method."""
    here, before = ([rows[column] for rows in of.by_image.right] for of in (condition, clean))
    if metric == "drop":
        return _of_lead(trial, before, here)
    if metric == "relative_robustness":
        return ratio_interval(here, before, trial.images)
    if metric != "acc1":
        return _of_errors(trial, condition, column)
    return _of_share(float(condition.accuracy[column]), here, trial, condition)


def _of_share(
    value: float, by_image: Sequence[NDArray[np.float64]], trial: Trial, condition: Condition
) -> Interval:
    if condition.severity is None or trial.members or not condition.n:
        return mean_share_interval(by_image, trial.images)
    return share_interval(round(value * condition.n), condition.images)


def _of_errors(trial: Trial, condition: Condition, column: int) -> Interval:
    """Of ce and mce: ratios of errors, which the method and the reference need some of."""
    assert condition.error is not None
    assert condition.by_image.error is not None
    variance = variance_of_mean([of[column] for of in condition.by_image.error], trial.images)
    value = float(condition.error[column])
    wrong = (1 - condition.accuracy[column]) * min(1, 1 / value if value else 1)
    return loss_interval(value, sqrt(variance), wrong * condition.images.effective)


def _of_lead(
    trial: Trial, first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]]
) -> Interval:
    leads = [one - other for one, other in zip(first, second, strict=True)]
    return difference_interval(leads, trial.images)


def _comparisons(trial: Trial, condition: Condition, clean: Condition) -> Iterator[_About]:
    """Of backbones with each other: the best is chosen on the samples."""
    names, accuracy = trial.backbones, condition.accuracy
    first, second = np.argsort(-accuracy[:-1].round(12), kind="stable")[:2]

    def difference(metric: str, one: int, other: int) -> Measured:
        of_one, of_other = ([rows[at] for rows in condition.by_image.right] for at in (one, other))
        score = Score(float(accuracy[one] - accuracy[other]), condition.n)
        interval = _of_lead(trial, of_one, of_other) if one != other else Interval(0.0, 0.0)
        return Measured(metric, score, interval)

    lead = difference("gain_over_best_on_test", len(names), int(first))
    parts = [rows[-1] - rows[first] for rows in condition.by_image.right]
    share = _of_share(lead.score.value, parts, trial, condition)  # the oracle is never behind
    yield names, "oracle", lead._replace(interval=share)
    yield (names[first],), None, difference("lead", int(first), int(second))
    if condition is not clean:
        before = clean.accuracy[:-1]
        yield (names[first],), None, difference("switch", int(first), int(before.argmax()))
        tau = float(kendall_tau(accuracy[:-1], before))
        yield names, None, estimate("kendall_tau", tau, condition.n)


_Results = dict[tuple[str, str], Row]  # of one ensemble, by metric and perturbation


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
    frame = ensembles_in(
        path, ("acc1", "gain_over_best_on_test"), settings.head, settings.shots, words
    )
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
        for row in _rows_of(trial, reference, results)
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
        rows = {(row["metric"], row["perturbation"]): row for row in part.iter_rows(named=True)}
        if ("acc1", CLEAN.label) in rows and sum(metric == "acc1" for metric, _ in rows) > 1:
            check_data(trial.clean.store, part, path)
            by_ensemble[key] = rows
    return by_ensemble


def _mean(members: Sequence[_Results]) -> _Results:
    """Accuracies over datasets; gains are taken anew, over the backbone with the best mean."""
    first, *others = members
    means = {}
    for key in first:
        if key[0] == "acc1" and all(key in other for other in others):
            rows = [results[key] for results in members]
            means[key] = rows[0] | {
                "dataset": None,
                "value": float(np.mean([row["value"] for row in rows])),
                "ci_low": None,
                "ci_high": None,
                "n": sum(row["n"] for row in rows),
                "fingerprint": fingerprint({"results": [row["fingerprint"] for row in rows]}),
            }
    return means


def _about(trial: Trial, frame: pl.DataFrame) -> pl.DataFrame:
    """The results of a trial's samples, perturbations and backbones, in any order."""
    return frame.filter(
        pl.col("dataset") == trial.clean.samples.dataset,
        pl.col("split") == trial.clean.samples.split,
        pl.col("prompts") == trial.clean.prompts,
        pl.col("perturbation").is_in(trial.labels),
        pl.col("backbones").list.sort() == pl.lit(sorted(trial.backbones), pl.List(pl.String)),
    )


def _rows_of(trial: Trial, reference: str, results: _Results) -> Iterator[Row]:
    """All rows about one ensemble."""
    in_file = {label: row for (metric, label), row in results.items() if metric == "acc1"}
    known = [in_file[it]["value"] if it in in_file else np.nan for it in trial.labels]
    accuracy = np.column_stack([known, trial.accuracy[:, :-1]])  # beside all backbones
    clean, *others = trial.conditions(accuracy, 1 + trial.backbones.index(reference))
    prints = [row["fingerprint"] for row in in_file.values()]
    decisive = {"results": prints, "cells": trial.cells, "reference": reference}
    none = {"ci_low": None, "ci_high": None, "fingerprint": fingerprint(decisive)}
    for condition in (clean, *others):
        value, best = float(condition.accuracy[0]), float(condition.accuracy[1:].max())
        if np.isnan(value):
            continue
        about = {"perturbation": condition.label, "severity": condition.severity, "n": condition.n}
        numbers = {"acc1": value, "gain_over_best_on_test": value - best}
        numbers |= {name: float(values[0]) for name, values in condition.metrics(clean).items()}
        for metric, number in numbers.items():
            derived = in_file[CLEAN.label] | none | about | {"metric": metric, "value": number}
            yield results.get((metric, condition.label), derived)

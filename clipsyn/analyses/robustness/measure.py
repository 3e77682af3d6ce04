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
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness.trials import (
    Condition,
    Trial,
    Trials,
    conditions,
    kendall_tau,
    mean_of,
)
from clipsyn.errors import MissingCell, UsageError
from clipsyn.evaluation.results.data import check_data
from clipsyn.evaluation.results.files import ensembles_in
from clipsyn.evaluation.results.frame import OVER_BEST_ON_TEST, Measured, Row, estimate, frame
from clipsyn.methods.numerics import Doubles
from clipsyn.methods.numerics.metrics import Score
from clipsyn.names import CLEAN, FeatureKey, fingerprint
from clipsyn.registry import unknown_name
from clipsyn.stats.differences import difference_interval, ratio_interval
from clipsyn.stats.images import variance_of_mean
from clipsyn.stats.intervals import Interval, loss_interval, mean_share_interval, share_interval
from clipsyn.store.features import FeatureStore
from clipsyn.store.select import matching, terms_of
from clipsyn.text import advised

_About = tuple[tuple[str, ...], str | None, Measured]  # backbones, ensemble, their number
_FITTED = ["ensemble", "support", "support_prompts", "shots", "seed"]  # tells ensembles apart


def measure(store: FeatureStore, settings: RobustnessSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT`.

    Raises MissingCell with the extract line where clean images, or a backbone under a
    perturbation, are missing; UnknownName with near matches; DatasetError where nothing has
    labels; UsageError for results of no such ensemble, or of other samples.
    """
    single = _trials(store, settings)
    reference = _reference(single, settings.reference)
    every = [*([trial] for trial in single), *_compared(single)]
    rows = [row for trials in every for row in _rows(trials, reference)]
    if settings.results is not None:
        rows += _ensemble_rows(store, every, reference, settings, settings.results)
    return frame(rows)


def _trials(store: FeatureStore, settings: RobustnessSettings) -> list[Trial]:
    """One for every dataset, split and prompt set that has perturbed images."""
    selection = settings
    if settings.perturbations is not None:
        wanted = (*terms_of("perturbation", settings.perturbations), CLEAN.label)
        selection = settings.replaced(perturbations=wanted)
    found: dict[tuple[str, str], list[Predicted]] = {}
    for group in predicted(store, selection):
        found.setdefault((group.samples.name, group.prompts), []).append(group)
    for groups in found.values():
        _refuse_gaps(store, groups)
    perturbed = [groups for groups in found.values() if len(groups) > 1]
    shown = {groups[0].samples.dataset for groups in perturbed}
    for term in terms_of("dataset", settings.datasets or "*"):
        if not matching(term, shown):
            clean = next(of[0] for of in found.values() if matching(term, [of[0].samples.dataset]))
            line = store.extract_line(
                clean.keys[0], "--perturb", "jpeg:3", others=clean.backbones[1:]
            )
            raise MissingCell(
                f"{store.path} has clean images only of {clean.samples.name}: run `{line}`"
            )
    return [Trial.of(groups) for groups in perturbed]


def _refuse_gaps(store: FeatureStore, groups: Sequence[Predicted]) -> None:
    """Every backbone is needed on clean images and under every perturbation."""
    labels = dict.fromkeys([CLEAN.label, *(group.perturbation for group in groups)])
    there = {key for group in groups for key in group.keys}
    for label in labels:
        for name in sorted({key.backbone for key in there}):
            key = FeatureKey(groups[0].samples.dataset, groups[0].samples.split, label, name)
            if key not in there:
                raise MissingCell(
                    f"{store.path} has no {key} with prompts {groups[0].prompts}, so that backbone "
                    f"cannot be compared: run `{store.extract_line(key)}`, or choose with "
                    "backbones=…, perturbations=… or prompts=…"
                )


def _compared(single: Trials) -> list[list[Trial]]:
    """For each split and prompt set the most datasets that have a mean: the same backbones and
    perturbations."""
    alike: dict[tuple[str, str], dict[tuple[tuple[str, ...], ...], list[Trial]]] = {}
    for trial in single:
        kinds = alike.setdefault((trial.clean.samples.split, trial.clean.prompts), {})
        kinds.setdefault((trial.backbones, trial.labels), []).append(trial)
    most = (max(kinds.values(), key=len) for kinds in alike.values())
    return [trials for trials in most if len(trials) > 1]


def _reference(single: Trials, wanted: str | None) -> str:
    """The backbone that errors are divided by; every trial has it."""
    shared = sorted(set.intersection(*(set(trial.backbones) for trial in single)))
    if not shared:
        raise UsageError(
            "no backbone is there for every dataset, so errors have no common reference: choose "
            "some with datasets=…"
        )
    if wanted is not None and wanted not in shared:
        names = ", ".join(trial.clean.samples.name for trial in single)
        raise unknown_name("reference", wanted, shared, f"Looked for in {names}.")
    clean = [
        sum(float(trial.accuracy[0, trial.backbones.index(name)]) for trial in single)
        for name in shared
    ]
    return wanted or shared[clean.index(min(clean))]


def _rows(trials: Trials, reference: str) -> Iterator[Row]:
    """All rows about backbones and oracle."""
    cells = [cell for trial in trials for cell in trial.cells]
    whole: Row = {"fingerprint": fingerprint({"cells": cells, "reference": reference})}
    whole |= {"dataset": None} if len(trials) > 1 else {}
    group, place = trials[0].clean, trials[0].backbones.index(reference)
    clean: Condition | None = None
    for condition in conditions(trials, place):
        if clean is None:
            clean = condition
            error = estimate("error", 1 - clean.accuracy[place], clean.n)
            yield group.row(error, (reference,), "reference") | whole
        about = {"perturbation": condition.label, "severity": condition.severity}
        for names, ensemble, measured in numbers(group.backbones, condition, clean):
            yield group.row(measured, names, ensemble) | about | whole


def numbers(names: tuple[str, ...], condition: Condition, clean: Condition) -> Iterator[_About]:
    """Everything that is measured under one condition."""
    several = len(names) > 1
    methods: list[tuple[tuple[str, ...], str | None]] = [((name,), None) for name in names]
    methods += [(names, "oracle")] if several else []
    for metric, values in condition.metrics(clean).items():
        for column, (some, ensemble) in enumerate(methods):
            score = Score(float(values[column]), condition.n)
            yield (
                some,
                ensemble,
                Measured(metric, score, _interval(metric, column, condition, clean)),
            )
    if several:
        yield names, "oracle", estimate("acc1_independent", condition.accuracy[-1], condition.n)
        yield from _comparisons(names, condition, clean)


def _interval(metric: str, column: int, condition: Condition, clean: Condition) -> Interval:
    """Of a number about one method."""
    here, before = ([rows[column] for rows in of.right] for of in (condition, clean))
    if metric == "acc1":
        return _of_share(float(condition.accuracy[column]), here, condition)
    if metric == "drop":
        return _of_lead(before, here, condition)
    if metric == "relative_robustness":
        return ratio_interval(here, before, condition.images)
    # ce and mce are ratios of errors, which the method and the reference need some of
    variance = variance_of_mean([of[column] for of in condition.lost], condition.images)
    value = float(condition.error[column])
    wrong = (1 - condition.accuracy[column]) * min(1, 1 / value if value else 1)
    return loss_interval(value, sqrt(variance), wrong * condition.shown.effective)


def _of_share(value: float, by_image: Sequence[Doubles], condition: Condition) -> Interval:
    if condition.severity is None or len(condition.images) > 1 or not condition.n:
        return mean_share_interval(by_image, condition.images)
    return share_interval(round(value * condition.n), condition.shown)


def _of_lead(first: Sequence[Doubles], second: Sequence[Doubles], condition: Condition) -> Interval:
    leads = [one - other for one, other in zip(first, second, strict=True)]
    return difference_interval(leads, condition.images)


def _comparisons(
    names: tuple[str, ...], condition: Condition, clean: Condition
) -> Iterator[_About]:
    """Of backbones with each other: the best is chosen on the samples."""
    count, accuracy = len(names), condition.accuracy
    first, second = np.argsort(-accuracy[:count].round(12), kind="stable")[:2]

    def difference(metric: str, one: int, other: int) -> Measured:
        of_one, of_other = ([rows[at] for rows in condition.right] for at in (one, other))
        score = Score(float(accuracy[one] - accuracy[other]), condition.n)
        interval = _of_lead(of_one, of_other, condition) if one != other else Interval(0.0, 0.0)
        return Measured(metric, score, interval)

    lead = difference(OVER_BEST_ON_TEST, count, int(first))
    parts = [rows[count] - rows[first] for rows in condition.right]
    share = _of_share(lead.score.value, parts, condition)  # the oracle is never behind
    yield names, "oracle", lead._replace(interval=share)
    yield (names[first],), None, difference("lead", int(first), int(second))
    if condition is not clean:
        before = clean.accuracy[:count]
        yield (names[first],), None, difference("switch", int(first), int(before.argmax()))
        tau = kendall_tau(accuracy[:count], before)
        yield names, None, estimate("kendall_tau", tau, condition.n)


_Results = dict[tuple[str, str], Row]  # of one ensemble, by metric and perturbation


def _ensemble_rows(
    store: FeatureStore,
    every: Sequence[Trials],
    reference: str,
    settings: RobustnessSettings,
    path: Path,
) -> list[Row]:
    """Rows of the ensembles in a file of results, on one head and number of shots, for each seed.

    Ensembles that learn nothing are there with any number of shots. A mean over severities is left
    out where the file lacks one of them. Raises UsageError where there is no such ensemble of the
    trials' backbones and samples, and UnknownName with near matches for a head.
    """
    words = "evaluate", store.path, "--perturb", "*", "-o", path
    metrics = "acc1", OVER_BEST_ON_TEST
    frame = ensembles_in(path, metrics, settings.head, settings.shots, words)
    frame = frame.filter(pl.col("ensemble") != "oracle")
    rows: list[Row] = []
    for trials in every:
        first, *others = (_ensembles(trial, frame, path) for trial in trials)
        for fitted, results in first.items():
            if all(fitted in found for found in others):
                rows += _rows_of(trials, reference, [results, *(of[fitted] for of in others)])
    if not rows:
        raise UsageError(
            f"{path} has no ensemble of these backbones on both clean and perturbed images of what "
            f"is shown: run `{advised(*words)}`"
        )
    return rows


def _ensembles(trial: Trial, frame: pl.DataFrame, path: Path) -> dict[tuple[Any, ...], _Results]:
    """The ensembles of all backbones of a trial that were measured clean and perturbed."""
    group = trial.clean
    about = frame.filter(
        pl.col("perturbation").is_in(trial.labels),
        pl.col("backbones").list.sort() == pl.lit(sorted(trial.backbones), pl.List(pl.String)),
        dataset=group.samples.dataset,
        split=group.samples.split,
        prompts=group.prompts,
    )
    by_ensemble = {}
    for fitted, part in about.group_by(_FITTED, maintain_order=True):
        rows = {(row["metric"], row["perturbation"]): row for row in part.iter_rows(named=True)}
        if ("acc1", CLEAN.label) in rows and sum(metric == "acc1" for metric, _ in rows) > 1:
            check_data(group.store, part, path)
            by_ensemble[fitted] = rows
    return by_ensemble


def _rows_of(trials: Trials, reference: str, found: Sequence[_Results]) -> Iterator[Row]:
    """All rows about one ensemble; of several datasets its mean accuracies."""
    backbones, labels = trials[0].backbones, trials[0].labels
    by_label = [[of[key] for of in found if (key := ("acc1", label)) in of] for label in labels]
    known = [
        np.mean([row["value"] for row in rows]) if len(rows) == len(found) else np.nan
        for rows in by_label
    ]
    others = mean_of([trial.accuracy[:, : len(backbones)] for trial in trials])
    prints = [row["fingerprint"] for rows in by_label for row in rows]
    cells = [cell for trial in trials for cell in trial.cells]
    decisive = {"results": prints, "cells": cells, "reference": reference}
    whole = found[0]["acc1", CLEAN.label] | {"ci_low": None, "ci_high": None}
    whole |= {"fingerprint": fingerprint(decisive)}
    in_file = found[0] if len(found) == 1 else {}
    whole |= {} if in_file else {"dataset": None}
    accuracy = np.column_stack([known, others])  # beside all backbones
    every = list(conditions(trials, 1 + backbones.index(reference), accuracy))
    for condition in every:
        value, best = float(condition.accuracy[0]), float(condition.accuracy[1:].max())
        if np.isnan(value):
            continue
        about = {"perturbation": condition.label, "severity": condition.severity, "n": condition.n}
        numbers = {"acc1": value, OVER_BEST_ON_TEST: value - best}
        numbers |= {name: float(values[0]) for name, values in condition.metrics(every[0]).items()}
        for metric, number in numbers.items():
            derived = whole | about | {"metric": metric, "value": number}
            yield in_file.get((metric, condition.label), derived)

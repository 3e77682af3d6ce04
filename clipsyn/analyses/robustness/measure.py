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

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness.ensembles import ensemble_rows
from clipsyn.analyses.robustness.measures import kendall_tau
from clipsyn.analyses.robustness.trials import Condition, Trial, means, trials
from clipsyn.analyses.shares import estimate
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import Measured, Row, frame
from clipsyn.names import fingerprint
from clipsyn.registry import unknown_name
from clipsyn.stats.intervals import wilson_interval
from clipsyn.store.features import FeatureStore

_About = tuple[tuple[str, ...], str | None, Measured]  # backbones, ensemble, their number


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
        name: sum(float(trial.accuracy[0, 0, trial.backbones.index(name)]) for trial in single)
        for name in sorted(shared)
    }
    return min(clean, key=lambda name: clean[name])


def _rows(trial: Trial, reference: str) -> Iterator[Row]:
    """All rows about backbones and oracle."""
    whole = {"fingerprint": fingerprint({"cells": trial.cells, "reference": reference})}
    place = trial.backbones.index(reference)
    clean, *others = trial.conditions(trial.accuracy, place)
    error = estimate("error", 1 - clean.accuracy[0, place], clean.n)
    yield trial.row(error, (reference,), "reference") | whole
    for condition in (clean, *others):
        about = {"perturbation": condition.label, "severity": condition.severity}
        for names, ensemble, measured in _numbers(trial, condition, clean):
            yield trial.row(measured, names, ensemble) | about | whole


def _numbers(trial: Trial, condition: Condition, clean: Condition) -> Iterator[_About]:
    """Everything that is measured under one condition."""
    several = len(trial.backbones) > 1
    methods: list[tuple[tuple[str, ...], str | None]]
    methods = [((name,), None) for name in trial.backbones]
    methods += [(trial.backbones, "oracle")] if several else []
    for metric, values in condition.metrics(clean).items():
        is_share = metric == "acc1" and condition.severity is not None and not trial.members
        for column, (names, ensemble) in enumerate(methods):
            yield names, ensemble, _measured(metric, values[:, column], condition.n, is_share)
    if several:
        mark = trial.independent[condition.label]
        yield trial.backbones, "oracle", estimate("acc1_independent", mark, condition.n)
        yield from _comparisons(trial.backbones, condition, clean)


def _comparisons(
    names: tuple[str, ...], condition: Condition, clean: Condition
) -> Iterator[_About]:
    """Of backbones with each other: the best is chosen on the samples, not on each resample."""
    singles, before = condition.accuracy[:, :-1], clean.accuracy[:, :-1]
    first, second = np.argsort(-singles[0].round(12), kind="stable")[:2]
    gain = condition.accuracy[:, -1] - singles[:, first]
    yield names, "oracle", _measured("gain", gain, condition.n)
    lead = singles[:, first] - singles[:, second]
    yield (names[first],), None, _measured("lead", lead, condition.n)
    if condition is not clean:
        switch = singles[:, first] - singles[:, int(before[0].argmax())]
        yield (names[first],), None, _measured("switch", switch, condition.n)
        tau = kendall_tau(singles, before)
        yield names, None, _measured("kendall_tau", tau, condition.n)


def _measured(metric: str, values: NDArray[np.float64], n: int, is_share: bool = False) -> Measured:
    """From the number over the samples, and those over resamples, of which some may be NaN."""
    measured = estimate(metric, values[0], n, values[1:])
    if is_share and n:
        return measured._replace(interval=wilson_interval(round(measured.score.value * n), n))
    return measured

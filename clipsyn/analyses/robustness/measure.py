"""What perturbations do to the backbones of a store, to their order, their oracle and ensembles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.predicted import ALL
from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness.ensembles import ensemble_rows
from clipsyn.analyses.robustness.measures import kendall_tau, relative_robustness
from clipsyn.analyses.robustness.trials import Setting, Trial, means, trials
from clipsyn.errors import UsageError
from clipsyn.numerics.metrics import Score
from clipsyn.registry import unknown_name
from clipsyn.results.frame import Measured, Row, frame
from clipsyn.specs import CLEAN, fingerprint
from clipsyn.stats import UNKNOWN, Interval, percentiles, wilson_interval
from clipsyn.store.features import FeatureStore

_Found = tuple[tuple[str, ...], str | None, Measured]  # backbones, ensemble and number


def measure(store: FeatureStore, settings: RobustnessSettings) -> pl.DataFrame:
    """Accuracy of backbones, oracle and ensembles under perturbation, against clean images.

    Filters are names or patterns with ``*``; None takes all there is, and clean images are always
    taken. Returns a tidy frame with the columns of `RESULT`, over the samples that every backbone
    has predictions for under that perturbation. Several datasets with the same backbones and
    perturbations have rows of their mean accuracy too, and what follows from it: `dataset` null,
    n the sum. Rows are of

    - each perturbation at its severity ("jpeg-3", severity 3);
    - each perturbation, the mean over its severities ("jpeg", severity null);
    - "all", the mean over perturbations (severity null).

    Metrics of each backbone (`ensemble` null) and of the "oracle":

    - acc1; drop, what is lost of the clean accuracy; relative_robustness, accuracy over clean
      accuracy (NaN where that is 0);
    - of the mean over severities: ce, the sum of errors over that of the reference; its mean over
      perturbations, at "all", is mce (Hendrycks & Dietterich 2019; as a ratio, not times 100, and
      with the severities that there are).

    Of the oracle also gain, over the backbone that is best under that perturbation, and
    acc1_independent, what it would be if errors were independent within each class. Of that
    backbone, by its name: lead, over the second best, and switch, over the backbone that is best
    on clean images. Of all backbones, "a+b+c": kendall_tau (b) of their order against that on
    clean images.

    reference: the backbone that errors are divided by; without one, the backbone with the lowest
    mean clean accuracy over the datasets shown, as AlexNet was the weakest of the original. The
    row of metric error and ensemble "reference" names it.

    Intervals are of the paired bootstrap over samples, the same resamples for everything; of
    acc1 at one severity of a dataset Wilson's. Of means over datasets that share images, images
    are drawn, in all of them together.

    results: a file of `clipsyn evaluate -o`, whose ensembles of these backbones, on `head` at
    `shots` images a class ("full" is the whole support; None the most there are), get acc1, gain,
    drop, relative_robustness, ce and mce too, a row for each seed; acc1 and gain with the
    intervals of the file, the others with none, since predictions of ensembles are not kept.

    Raises MissingCell with the extract line where clean images, or a backbone under a
    perturbation, are missing; UnknownName with near matches; DatasetError where nothing has
    labels; UsageError for results of no such ensemble, or of other samples.
    """
    found = trials(store, settings)
    chosen = _reference(found, settings.reference)
    found += means(found)
    rows = [row for trial in found for row in _rows(trial, chosen)]
    if settings.results is not None:
        rows += ensemble_rows(store, found, chosen, settings)
    return frame(rows)


def _reference(found: Sequence[Trial], wanted: str | None) -> str:
    """The backbone that errors are divided by; every trial has it."""
    if wanted is not None:
        for trial in found:
            if wanted not in trial.backbones:
                hint = f"Looked for in {trial.name}."
                raise unknown_name("reference", wanted, trial.backbones, hint)
        return wanted
    shared = set.intersection(*(set(trial.backbones) for trial in found))
    if not shared:
        raise UsageError(
            "no backbone is there for every dataset, so errors have no common reference: choose "
            "them with datasets=…"
        )
    clean = {
        name: sum(float(trial.accuracy[0, 0, trial.backbones.index(name)]) for trial in found)
        for name in sorted(shared)
    }
    return min(clean, key=lambda name: clean[name])


def _rows(trial: Trial, reference: str) -> Iterator[Row]:
    """Of backbones and oracle."""
    whole = {"fingerprint": fingerprint({"cells": trial.cells, "reference": reference})}
    place, n = trial.backbones.index(reference), trial.n([CLEAN.label])
    clean = Setting(CLEAN.label, 0, n, trial.accuracy[:, 0])
    error = Measured("error", Score(1 - float(clean.accuracy[0, place]), n), None)
    yield trial.row(error, (reference,), "reference") | whole
    for setting in (clean, *trial.settings(trial.accuracy, place)):
        said = {"perturbation": setting.label, "severity": setting.severity}
        for names, ensemble, measured in _measures(trial, setting, clean):
            yield trial.row(measured, names, ensemble) | said | whole


def _measures(trial: Trial, setting: Setting, clean: Setting) -> Iterator[_Found]:
    """Everything that is measured under one setting."""
    several = len(trial.backbones) > 1
    methods: list[tuple[tuple[str, ...], str | None]]
    methods = [((name,), None) for name in trial.backbones]
    methods += [(trial.backbones, "oracle")] if several else []
    for metric, values in _columns(setting, clean).items():
        for column, (names, ensemble) in enumerate(methods):
            share = metric == "acc1" and setting.severity is not None and not trial.members
            measured = _measured(metric, values[:, column], setting.n, share)
            yield names, ensemble, measured
    if several:
        mark = Score(trial.independent[setting.label], setting.n)
        yield trial.backbones, "oracle", Measured("acc1_independent", mark, None)
        yield from _comparisons(trial.backbones, setting, clean)


def _columns(setting: Setting, clean: Setting) -> dict[str, NDArray[np.float64]]:
    """(1 + resample, method) of each metric."""
    columns = {"acc1": setting.accuracy}
    if setting is not clean:
        columns["drop"] = clean.accuracy - setting.accuracy
        columns["relative_robustness"] = relative_robustness(setting.accuracy, clean.accuracy)
    if setting.error is not None:
        columns["mce" if setting.label == ALL else "ce"] = setting.error
    return columns


def _comparisons(names: tuple[str, ...], setting: Setting, clean: Setting) -> Iterator[_Found]:
    """Of backbones with each other: which is best is chosen on the samples, not on resamples."""
    singles, before = setting.accuracy[:, :-1], clean.accuracy[:, :-1]
    first, second = np.argsort(-singles[0].round(12), kind="stable")[:2]
    gain = setting.accuracy[:, -1] - singles[:, first]
    yield names, "oracle", _measured("gain", gain, setting.n)
    lead = singles[:, first] - singles[:, second]
    yield (names[first],), None, _measured("lead", lead, setting.n)
    if setting is not clean:
        switch = singles[:, first] - singles[:, int(before[0].argmax())]
        yield (names[first],), None, _measured("switch", switch, setting.n)
        tau = kendall_tau(singles, before)
        yield names, None, _measured("kendall_tau", tau, setting.n)


def _measured(metric: str, values: NDArray[np.float64], n: int, share: bool = False) -> Measured:
    """From the number over the samples, and those over resamples, of which some may be NaN."""
    value = float(values[0])
    if not np.isfinite(value):
        return Measured(metric, Score(value, n), UNKNOWN)
    draws = values[1:][np.isfinite(values[1:])]
    interval: Interval = wilson_interval(round(value * n), n) if share else percentiles(draws)
    return Measured(metric, Score(value, n), interval)

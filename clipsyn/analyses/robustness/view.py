"""What is lost to perturbations, by whom, and who is best under what: tables, and curves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import polars as pl

from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness.trials import families
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import ALL, METHOD, Row, backbones, refuse_several, singles
from clipsyn.methods.ensembles import place_of
from clipsyn.names import CLEAN as CLEAN_IMAGES
from clipsyn.settings import SINGLE
from clipsyn.show.figure import (
    INK,
    Axes,
    Figure,
    accuracies,
    key,
    look,
    marks,
    matrix_size,
    methods,
    needed,
    panels,
    panels_size,
)
from clipsyn.show.frames import is_nan
from clipsyn.show.table import UNKNOWN, Table
from clipsyn.show.tables import Line, Measure, measures_table, notes_beside
from clipsyn.show.titles import (
    ShortNames,
    common,
    fitted_on,
    shortened,
    subject,
    title,
    typical_interval,
    where,
)

CLEAN = CLEAN_IMAGES.label
ORACLE = ("oracle", "oracle")  # see `TrialRows.rows`
_REFERENCE = "reference"
_TRIAL = ("dataset", "split", "prompts")
_ABOUT = (*_TRIAL, "n")

_NOTES = notes_beside(__file__)
_GAIN, _TAU = "gain_over_best_on_test", "kendall_tau"
_SUMMARY = (
    Measure("clean", ("acc1", CLEAN), interval="known", best="most"),
    Measure("perturbed", ("acc1", ALL), interval="known", best="most"),
    Measure("drop", ("drop", ALL), interval="known", best="least"),
    Measure("relative", ("relative_robustness", ALL), best="most"),
    Measure("mCE", ("mce", ALL), interval="known", best="least"),
)
_DATASETS = (
    "clean",
    Measure("top-1 of clean", ("acc1", CLEAN), "top-1"),
    Measure("drop", ("drop", ALL), interval="known"),
    "perturbed",
    Measure("top-1 of perturbed", ("acc1", ALL), "top-1"),
    Measure("gain clean", (_GAIN, CLEAN), "gain\nclean"),
    Measure("gain perturbed", (_GAIN, ALL), "gain\nperturbed"),
    Measure("tau", (_TAU, ALL), percent=False, digits=2),
)


@dataclass(frozen=True, eq=False)
class TrialRows:
    """The rows about one dataset, split and prompt set; or about the mean over so many datasets."""

    frame: pl.DataFrame
    datasets: int = 1

    @cached_property
    def about(self) -> Row:
        """The columns `dataset`, `split` and `prompts`, and `n`."""
        return self.frame.row(0, named=True) | {"n": self.frame["n"].max()}

    @property
    def is_mean(self) -> bool:
        return self.about["dataset"] is None

    @property
    def kind(self) -> tuple[object, ...]:
        """What datasets and a mean over them have in common."""
        return self.about["split"], self.about["prompts"], [*self.names.short], self.severities

    @cached_property
    def names(self) -> ShortNames:
        """Of all backbones, in order."""
        return shortened(backbones(singles(self.frame).filter(metric="acc1")))

    @cached_property
    def severities(self) -> dict[str, dict[int, str]]:
        """For every perturbation: severity -> label."""
        conditions = self.frame.select("perturbation", "severity").unique(maintain_order=True)
        known = {label: severity for label, severity in conditions.iter_rows() if severity}
        return {
            name: {known[label]: label for label in labels}
            for name, labels in families(known).items()
        }

    @cached_property
    def rows(self) -> dict[tuple[str, str], dict[tuple[str, str], Row]]:
        """By metric and condition, by ensemble and name: the row, of several seeds their mean.

        The ensemble of a backbone on its own is "single"; others are named as it is.
        """
        seeds: dict[tuple[str, str], dict[tuple[str, str], list[Row]]] = {}
        named = self.frame.with_columns(METHOD.alias("method"))
        for row in named.iter_rows(named=True):
            methods = seeds.setdefault((row["metric"], row["perturbation"]), {})
            methods.setdefault((row["ensemble"], row["method"]), []).append(row)
        return {
            key: {method: _mean(rows) for method, rows in methods.items()}
            for key, methods in seeds.items()
        }

    def once(self, metric: str, condition: str) -> Row:
        """The row of a metric that each condition has once, or {}."""
        return next(iter(self.rows.get((metric, condition), {}).values()), {})

    @cached_property
    def methods(self) -> dict[tuple[str, str], str]:
        """Backbones, the oracle and ensembles in the order of the registry, as `rows` has them."""
        others = [it for it in self.rows["acc1", CLEAN] if it[0] != SINGLE]
        others.sort(key=lambda it: (it != ORACLE, place_of(it[0]), it))
        alone = {(SINGLE, name): text for name, text in self.names.short.items()}
        return alone | {method: method[0] for method in others}

    def of(self, method: tuple[str, str]) -> dict[Any, Row]:
        """Every row about a method by its metric and condition."""
        return {key: rows[method] for key, rows in self.rows.items() if method in rows}


def _mean(rows: list[Row]) -> Row:
    """The mean over seeds, without an interval; a single row as it is."""
    if len(rows) == 1:
        return rows[0]
    mean = sum(row["value"] for row in rows) / len(rows)
    return rows[0] | {"value": mean, "ci_low": None, "ci_high": None}


def _shown(frame: pl.DataFrame) -> tuple[list[TrialRows], list[TrialRows]]:
    """Every dataset, split and prompt set; and what is shown of all: means, and what is in none."""
    every = [TrialRows(part) for part in frame.partition_by(_TRIAL, maintain_order=True)]
    single = [trial for trial in every if not trial.is_mean]
    means, left = [], list(single)
    for mean in every:
        if mean.is_mean:
            members = [trial for trial in single if trial.kind == mean.kind]
            left = [trial for trial in left if trial not in members]
            means.append(TrialRows(mean.frame, len(members)))
    return single, means + left


def tables(frame: pl.DataFrame, settings: RobustnessSettings) -> dict[str, Table]:
    """Tables of what `clipsyn.analyses.robustness.measure` returns, by name.

    "datasets" has a line for each dataset; "summary" one for each method; "accuracy", "errors" and
    "gains" (of oracle and ensembles) have one for each perturbation. Of several datasets the mean
    has these; one that is in no mean has its own, named behind a comma ("gains, birds/test, own").
    """
    single, summed_up = _shown(frame)
    shown = {"datasets": _datasets(single)}
    for trial in summed_up:
        text = "mean, {split}, {prompts}" if trial.is_mean else "{dataset}/{split}, {prompts}"
        end = f", {text.format(**trial.about)}" if len(summed_up) > 1 else ""
        shown |= {f"{name}{end}": table for name, table in _tables(trial).items()}
    return shown


def _tables(trial: TrialRows) -> dict[str, Table]:
    perturbed = [*trial.severities, ALL]
    clean_too = [CLEAN, *perturbed]
    shown = {
        "summary": _summary(trial),
        "accuracy": _by_method(trial, "accuracy", "acc1", clean_too),
        "errors": _by_method(trial, "errors", "ce", perturbed, "least of line"),
    }
    if ORACLE in trial.methods:
        shown["gains"] = _by_method(trial, "gains", _GAIN, clean_too)
    about = where(trial.about, _ABOUT)
    if trial.is_mean:
        about[:1] = f"mean over {trial.datasets} datasets", f"split {about[0]}"
    head = title(*about, trial.names.phrase)
    ((reference,),) = trial.frame.filter(ensemble=_REFERENCE)["backbones"]
    reference = trial.names.short[reference]
    return {
        name: replace(table, title=head, notes=table.notes.replace("{reference}", reference))
        for name, table in shown.items()
    }


def _summary(trial: TrialRows) -> Table:
    """A line for each method."""
    lines: list[Line] = [({"method": text}, trial.of(it)) for it, text in trial.methods.items()]
    notes = _NOTES["summary"] + _fitted(trial)
    return measures_table(lines, _SUMMARY, len(trial.names.short), notes=notes)


def _by_method(
    trial: TrialRows,
    name: str,
    metric: str,
    conditions: Iterable[str],
    best: Literal["most of line", "least of line"] = "most of line",
) -> Table:
    """A line for each perturbation, a column for each backbone and the oracle.

    Of gains for the oracle and each ensemble.
    """
    lines: list[Line] = []
    for condition in conditions:
        here = "mce" if (metric, condition) == ("ce", ALL) else metric
        lines.append(({"perturbation": condition}, trial.rows.get((here, condition), {})))
    if metric == _GAIN:
        columns = [
            Measure(text, method, interval="known")
            for method, text in trial.methods.items()
            if method[0] != SINGLE
        ]
        return measures_table(lines, columns, notes=_NOTES[name] + _fitted(trial))
    columns = [
        Measure(column, (SINGLE, backbone), best=best)
        for backbone, column in trial.names.columns.items()
    ]
    columns += [Measure("oracle", ORACLE)] * (ORACLE in trial.methods)
    return measures_table(lines, columns, names=trial.names, notes=_NOTES[name])


def _datasets(trials: Iterable[TrialRows]) -> Table:
    """A line for each dataset."""
    about = [{name: trial.about[name] for name in _ABOUT} for trial in trials]
    shared = common(pl.DataFrame(about), ("split", "prompts"))
    lines: list[Line] = []
    for trial, of_trial in zip(trials, about, strict=True):
        first, second = (
            (trial.once("lead", condition).get("backbones") or [*trial.names.short])[0]
            for condition in (CLEAN, ALL)
        )
        cells = {name: value for name, value in of_trial.items() if name not in shared}
        numbers = trial.of(ORACLE) | trial.of((SINGLE, first))
        numbers["acc1", ALL] = trial.of((SINGLE, second))["acc1", ALL]
        numbers[_TAU, ALL] = trial.once(_TAU, ALL)
        for name, condition, best in (("clean", CLEAN, first), ("perturbed", ALL, second)):
            unknown = is_nan(numbers["acc1", condition]["value"])
            cells[name] = UNKNOWN if unknown else trial.names.cell(best)
        lines.append((cells, numbers))
    return measures_table(lines, _DATASETS, notes=_NOTES["datasets"])


def _fitted(trial: TrialRows) -> str:
    """What the ensembles were fitted on."""
    rows = trial.frame.filter(~pl.col("ensemble").is_in([SINGLE, ORACLE[0], _REFERENCE]))
    seeds = "means over seeds" if rows["seed"].n_unique() > 1 else ""
    about = [f"head {rows['head'][0]}", fitted_on(rows), seeds] if len(rows) else []
    return f"\nEnsembles: {', '.join(filter(None, about))}." if about else ""


_FEW = 4  # ensembles that are drawn, beside backbones
_NUMBERS = ("value", "ci_low", "ci_high", "n")


def _drawn(frame: pl.DataFrame) -> TrialRows:
    """The dataset, or the mean over several, that a figure shows."""
    needed(frame.filter(metric="relative_robustness"), "accuracy under perturbation", "robustness")
    refuse_several(frame, ("split", "prompts"))
    trial, *others = _shown(frame)[1]
    if others:
        raise UsageError(
            "the backbones or perturbations of these datasets differ, so there is no mean over "
            "them: name some with datasets=…"
        )
    return trial


def _accuracies(trial: TrialRows, conditions: Iterable[tuple[str, str, int]]) -> pl.DataFrame:
    """A row for each condition and method. conditions: (label, perturbation, severity).

    More than a few ensembles are left out.
    """
    crowd = len(trial.methods) > len(trial.names.short) + 1 + _FEW
    about = {name: trial.about[name] for name in _TRIAL} | {"datasets": trial.datasets}
    rows = [
        about
        | {"perturbation": name, "severity": level}
        | {"backbone" if ensemble == SINGLE else "ensemble": method}
        | {number: row[number] for number in _NUMBERS}
        for label, name, level in conditions
        for ensemble, method in trial.methods
        if not crowd or (ensemble, method) == ORACLE or ensemble == SINGLE
        if (row := trial.rows["acc1", label].get((ensemble, method)))
        if not is_nan(row["value"])
    ]
    schema = (*about, "perturbation", "severity", "ensemble", "backbone", *_NUMBERS)
    return pl.DataFrame(rows, schema, infer_schema_length=None)


def _curves(frame: pl.DataFrame) -> pl.DataFrame:
    """Each perturbation by severity; severity 0 is clean images. Of several datasets their mean."""
    trial = _drawn(frame)
    every = {name: {0: CLEAN} | labels for name, labels in trial.severities.items()}
    return _accuracies(trial, ((it, name, at) for name in every for at, it in every[name].items()))


def _matrix(frame: pl.DataFrame) -> pl.DataFrame:
    """Clean images, the mean over severities of each perturbation, and the mean over all."""
    trial = _drawn(frame)
    names = CLEAN, *trial.severities, ALL
    return _accuracies(trial, zip(names, names, [0] * len(names), strict=True)).drop("severity")


def _draw_matrix(data: pl.DataFrame, ax: Axes) -> None:
    texts, parts, shares, best = methods(data)[0], _panels(data), {}, []
    columns = [*texts]
    for row, part in enumerate(parts.values()):
        for name, value in part.select(pl.coalesce("ensemble", "backbone"), "value").iter_rows():
            shares[row, columns.index(name)] = value
        alone = part.filter(pl.col("backbone").is_not_null())
        most = alone.filter(value=alone["value"].max())["backbone"]
        best += [(row, columns.index(name)) for name in most]
    accuracies(ax, parts, texts.values(), shares, best)


def _panels(data: pl.DataFrame) -> dict[str, pl.DataFrame]:
    parts = data.group_by("perturbation", maintain_order=True)
    return {str(name): part for (name,), part in parts}


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    texts, _ = methods(data)
    by_method = marks([name for name in texts if name != ORACLE[0]])
    by_method |= {name: look(INK, "*", ":") for name in texts if name == ORACLE[0]}
    parts = _panels(data)
    drawn_on = panels(ax, list(parts), "severity", "top-1 accuracy, %")
    for part, panel in zip(parts.values(), drawn_on, strict=True):
        for name, mark in by_method.items():
            rows = part.filter(pl.coalesce("ensemble", "backbone") == name)
            panel.plot(rows["severity"], 100 * rows["value"], **mark, ms=3, lw=1)
        panel.set_xticks(sorted({*data["severity"]}))
    key(ax, {texts[name]: mark for name, mark in by_method.items()})


severity = Figure(
    name="severity",
    short="Accuracy of every backbone by severity, for each perturbation.",
    caption=_NOTES["severity"].format(few=_FEW),
    source="robustness",
    data=_curves,
    draw=_draw,
    size=lambda data: panels_size(len(_panels(data))),
    about=lambda data: title(subject(data, _ABOUT), methods(data)[1], typical_interval(data)),
)


corruptions = Figure(
    name="corruptions",
    short="Accuracy of every backbone under each perturbation.",
    caption=_NOTES["corruptions"],
    source="robustness",
    data=_matrix,
    draw=_draw_matrix,
    size=lambda data: matrix_size(_panels(data), methods(data)[0].values()),
    about=severity.about,
)

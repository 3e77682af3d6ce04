"""Tables of robustness: what is lost to perturbations, by whom, and who is best under what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from clipsyn.analyses.predicted import ALL
from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness.rows import ORACLE, Predictor, TrialRows, labelled, trial_rows
from clipsyn.evaluation.results.frame import Row
from clipsyn.names import CLEAN as CLEAN_IMAGES
from clipsyn.show.frames import is_nan
from clipsyn.show.table import UNKNOWN, Cell, Table, Tables, known
from clipsyn.show.tables import Line, Measure, measures_of, measures_table
from clipsyn.show.titles import ShortNames, common, fitted_on

CLEAN = CLEAN_IMAGES.label
BARS = "▁▂▃▄▅▆▇█"
_ABOUT = ("dataset", "split", "prompts", "n")

_NOTES = {
    "independent": """
independent: the oracle if errors were independent within each class, an upper mark; with few images
a class it says little.""",
    "summary": """\
perturbed: mean over perturbations of the mean over their severities. drop: points lost of clean.
relative: perturbed in % of clean. mCE: mean over perturbations of the errors, summed over
severities, in % of those of {reference} (Hendrycks & Dietterich 2019).""",
    "accuracy": """\
Top-1 accuracy in %, mean over severities; all: mean over perturbations.""",
    "drop": "Points lost of the clean accuracy, mean over severities; all: over perturbations.",
    "relative_robustness": "Accuracy in % of the clean accuracy, mean over severities.",
    "errors": """\
Corruption error: errors, summed over severities, in % of those of {reference}; below 100 is better
than it. mCE: their mean.""",
    "order": """\
lead: of the best backbone over the second best, in points. switch: over the one that is best on
clean images, {best}. tau: Kendall's, of the order of the backbones there with that on clean
images; 1 the same, -1 the opposite. The best are chosen on these very images.""",
    "gains": """\
Gain of {methods} over the backbone that is best under that perturbation, in points;
negative: worse.""",
    "severities": """\
Mean accuracy of the backbones in % by severity. Bars: each backbone from clean, the first, to the
highest severity, all on one scale from 0 to {top:.0f} %.""",
    "every severity": "Top-1 accuracy in %.",
    "datasets": """\
clean, perturbed: the best backbone of each and its accuracy; perturbed is the mean over all
perturbations. drop: points that the clean best loses. gain: of the oracle over the best. tau:
Kendall's, of the order of the backbones clean and perturbed.""",
}


_SUMMARY = (
    Measure("clean", f"acc1 {CLEAN}", interval="known", best="most"),
    Measure("perturbed", f"acc1 {ALL}", interval="known", best="most"),
    Measure("drop", f"drop {ALL}", interval="known", best="least"),
    Measure("relative", f"relative_robustness {ALL}", best="most"),
    Measure("mCE", f"mce {ALL}", interval="known", best="least"),
)
_ORDER = (
    Measure("top-1", "acc1"),
    Measure("lead", "lead", interval="known"),
    Measure("switch", "switch", interval="known"),
    Measure("tau", "kendall_tau", interval="known", percent=False, digits=2),
)
_DATASETS = (
    "clean",
    Measure("top-1 of clean", "acc1 of clean", "top-1"),
    Measure("drop", "drop", interval="known"),
    "perturbed",
    Measure("top-1 of perturbed", "acc1 of perturbed", "top-1"),
    Measure("gain clean", "gain clean", "gain\nclean"),
    Measure("gain perturbed", "gain perturbed", "gain\nperturbed"),
    Measure("tau", "kendall_tau", percent=False, digits=2),
)


def tables(frame: pl.DataFrame, settings: RobustnessSettings) -> dict[str, Tables]:
    """Tables of what `clipsyn.analyses.robustness.measure` returns, by name.

    "summary" has a line for each method; "accuracy", "errors", "order" (which backbone is best
    where), "gains" (of oracle and ensembles) and "severities" (curves) have a line for each
    perturbation. Of several datasets the mean has these, and "datasets" a line for each. With
    `details` there are also "drop", "relative_robustness" and "every severity", and all tables of
    each dataset, its name behind a comma ("order, birds/test, own").
    """
    single, summed_up = trial_rows(frame)
    shown: dict[str, Tables] = {"datasets": (_datasets(single),)} if len(single) > 1 else {}
    asked = [*labelled(summed_up)]
    if settings.details and single != summed_up:
        asked += labelled(single)
    for name, trial in asked:
        of_trial = _tables(trial, settings.details)
        shown |= {f"{kind}{name}": of_kind for kind, of_kind in of_trial.items()}
    return shown


def _tables(trial: TrialRows, details: bool) -> dict[str, Tables]:
    perturbed = [*trial.severities, ALL]
    shown = {
        "summary": _summary(trial),
        "accuracy": _by_perturbation(trial, "accuracy", "acc1", [CLEAN, *perturbed]),
    }
    if details:
        names = ("drop", "relative_robustness")
        shown |= {name: _by_perturbation(trial, name, name, perturbed) for name in names}
    shown["errors"] = _by_perturbation(trial, "errors", "ce", perturbed)
    if trial.has_oracle:
        shown["order"] = _order(trial)
    if trial.has_oracle or trial.ensembles:
        shown["gains"] = _gains(trial)
    shown["severities"] = _severities(trial)
    if details:
        labels = [label for of_name in trial.severities.values() for label in of_name.values()]
        name = "every severity"
        shown[name] = _by_perturbation(trial, name, "acc1", [CLEAN, *labels])
    return {name: (replace(table, title=trial.title),) for name, table in shown.items()}


def _summary(trial: TrialRows) -> Table:
    """A line for each predictor."""
    lines: list[Line] = []
    for predictor, text in trial.predictors.items():
        numbers = trial.numbers(predictor)
        if predictor == Predictor(trial.reference):  # always 100 %
            numbers[f"mce {ALL}"] = {"value": trial.row("mce", ALL, predictor).get("value")}
        lines.append(({"predictor": Cell(text, predictor.name)}, numbers))
        if predictor == ORACLE:
            mark = {
                f"acc1 {it}": {"value": trial.row("acc1_independent", it, ORACLE).get("value")}
                for it in (CLEAN, ALL)
            }
            lines.append(({"predictor": "independent"}, mark))
    note = _NOTES["summary"].format(reference=trial.names.short[trial.reference])
    note += _NOTES["independent"] if trial.has_oracle else ""
    head, count = {"predictor": ""}, len(trial.backbones)
    return measures_table(lines, _SUMMARY, count, headers=head, notes=note + _fitted(trial))


def _by_perturbation(trial: TrialRows, name: str, metric: str, conditions: Sequence[str]) -> Table:
    """A line for each perturbation, a column for each backbone, and the oracle."""
    lines: list[Line] = []
    for condition in conditions:
        is_mce = (metric, condition) == ("ce", ALL)
        here, head = ("mce", "mCE") if is_mce else (metric, condition)
        numbers: dict[Any, Row] = {
            it: trial.row(here, condition, Predictor(it)) for it in trial.backbones
        }
        numbers[ORACLE] = trial.row(here, condition, ORACLE)
        numbers["if independent"] = trial.row("acc1_independent", condition, ORACLE)
        lines.append(({"perturbation": head}, numbers))
    lower = metric in ("ce", "drop")
    columns = measures_of(trial.names, best="least of line" if lower else "most of line")
    columns += [Measure("oracle", ORACLE)] * trial.has_oracle
    if trial.has_oracle and metric == "acc1":
        columns.append(Measure("independent", "if independent", "indep."))
    note = _NOTES[name].format(reference=trial.names.short[trial.reference])
    return measures_table(lines, columns, names=trial.names, notes=note)


def _order(trial: TrialRows) -> Table:
    """A line for each perturbation: which backbone is best there."""
    lines: list[Line] = []
    for condition in (CLEAN, *trial.severities, ALL):
        numbers = {name: trial.row(name, condition) for name in ("lead", "switch", "kendall_tau")}
        (best,) = numbers["lead"]["backbones"]
        numbers["acc1"] = trial.row("acc1", condition, Predictor(best))
        if not numbers["switch"].get("value"):  # the best is the one that is best on clean images
            numbers["switch"] = {"value": numbers["switch"].get("value")}
        unknown = is_nan(numbers["acc1"].get("value"))
        shown = UNKNOWN if unknown else trial.names.cell(best)
        lines.append(({"perturbation": condition, "best": shown}, numbers))
    note = _NOTES["order"].format(best=lines[0][0]["best"].text)
    return measures_table(lines, _ORDER, notes=note)


def _gains(trial: TrialRows) -> Table:
    """A line for each perturbation."""
    names = ShortNames({name: name for name in trial.ensembles}, "")
    columns = [Measure("oracle", ORACLE, interval="known")] * trial.has_oracle
    columns += [
        Measure(column, Predictor(name, is_ensemble=True), name)
        for name, column in names.columns.items()
    ]
    lines: list[Line] = [
        (
            {"perturbation": condition},
            {it: trial.row("gain_over_best_on_test", condition, it) for it in trial.predictors},
        )
        for condition in (CLEAN, *trial.severities, ALL)
    ]
    methods = ["the oracle"] * trial.has_oracle + ["ensembles"] * bool(trial.ensembles)
    note = _NOTES["gains"].format(methods=" and ".join(methods))
    return measures_table(lines, columns, notes=note + _fitted(trial))


def _severities(trial: TrialRows) -> Table:
    """A line for each perturbation: mean accuracies, and a curve of bars for each backbone."""

    def accuracies(label: str) -> list[float | None]:
        rows = (trial.row("acc1", label, Predictor(name)) for name in trial.backbones)
        return [known(row.get("value")) for row in rows]

    curves = {
        name: {level: accuracies(label) for level, label in ({0: CLEAN} | labels).items()}
        for name, labels in trial.severities.items()
    }
    every = (value for curve in curves.values() for values in curve.values() for value in values)
    top = max((value for value in every if value is not None), default=0.0)
    lines: list[Line] = []
    for name, curve in curves.items():
        bars = (
            "".join(_bar(value, top) for value in values)
            for values in zip(*curve.values(), strict=True)
        )
        about = {"perturbation": name} | dict(zip(trial.names.columns.values(), bars, strict=True))
        lines.append((about, {level: {"value": _mean(values)} for level, values in curve.items()}))
    levels = sorted({level for curve in curves.values() for level in curve})
    columns: list[Measure | str] = [Measure(str(level or CLEAN), level) for level in levels]
    columns += trial.names.columns.values()
    note = _NOTES["severities"].format(top=100 * top)
    return measures_table(lines, columns, names=trial.names, notes=note)


def _datasets(trials: Sequence[TrialRows]) -> Table:
    """A line for each dataset."""
    about = [{name: trial.about[name] for name in _ABOUT} for trial in trials]
    shared = common(pl.DataFrame(about), ("split", "prompts"))
    lines: list[Line] = []
    for trial, of_trial in zip(trials, about, strict=True):
        first, second = (
            (trial.row("lead", condition).get("backbones") or trial.backbones)[0]
            for condition in (CLEAN, ALL)
        )
        shown = {name: value for name, value in of_trial.items() if name not in shared}
        best = {"clean": trial.names.cell(first), "perturbed": trial.names.cell(second)}
        numbers = {
            "acc1 of clean": trial.row("acc1", CLEAN, Predictor(first)),
            "acc1 of perturbed": trial.row("acc1", ALL, Predictor(second)),
            "drop": trial.row("drop", ALL, Predictor(first)),
            "gain clean": trial.row("gain_over_best_on_test", CLEAN, ORACLE),
            "gain perturbed": trial.row("gain_over_best_on_test", ALL, ORACLE),
            "kendall_tau": trial.row("kendall_tau", ALL),
        }
        lines.append((shown | best, numbers))
    return measures_table(lines, _DATASETS, notes=_NOTES["datasets"])


def _fitted(trial: TrialRows) -> str:
    """What the ensembles were fitted on."""
    rows = trial.frame.filter(pl.col("ensemble").is_in(trial.ensembles))
    if rows.is_empty():
        return ""
    seeds = "means over seeds" if rows["seed"].n_unique() > 1 else ""
    about = filter(None, [f"head {rows['head'][0]}", fitted_on(rows), seeds])
    return f"\nEnsembles: {', '.join(about)}."


def _mean(values: Sequence[float | None]) -> float | None:
    """None where a value is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) / len(values) if len(known) == len(values) else None


def _bar(value: float | None, top: float) -> str:
    return " " if value is None or not top else BARS[round(value / top * (len(BARS) - 1))]

"""Tables of robustness: what is lost to perturbations, by whom, and who is best under what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import polars as pl

from clipsyn.analyses.predicted import ALL
from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness.view import ORACLE, Predictor, TrialRows, labelled, trial_rows
from clipsyn.evaluation.results.frame import Row
from clipsyn.names import CLEAN as CLEAN_IMAGES
from clipsyn.show.frames import is_nan
from clipsyn.show.table import UNKNOWN, Cell, Table, Tables
from clipsyn.show.tables import Line, Measure, measures_of, measures_table
from clipsyn.show.titles import ShortNames, common, fitted_on

CLEAN = CLEAN_IMAGES.label
BARS = "▁▂▃▄▅▆▇█"
_FEW = 6  # as many backbones have their curves beside the numbers, not below
_MOST = 8  # severities, or ensembles, in the columns of one table

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
    shown: dict[str, Tables] = {
        "summary": (_summary(trial),),
        "accuracy": (_by_perturbation(trial, "acc1", [CLEAN, *perturbed]),),
    }
    if details:
        for metric in ("drop", "relative_robustness"):
            shown[metric] = (_by_perturbation(trial, metric, perturbed),)
    shown["errors"] = (_by_perturbation(trial, "ce", perturbed),)
    if trial.has_oracle:
        shown["order"] = (_order(trial),)
    if trial.has_oracle or trial.ensembles:
        shown["gains"] = _gains(trial)
    shown["severities"] = _severities(trial)
    if details:
        conditions = [CLEAN, *trial.labels]
        shown["every severity"] = (_by_perturbation(trial, "acc1", conditions),)
    return {
        name: (replace(first, title=trial.title), *others)
        for name, (first, *others) in shown.items()
    }


def _summary(trial: TrialRows) -> Table:
    """A line for each predictor."""
    lines: list[Line] = []
    for predictor, text in trial.predictors.items():
        numbers = trial.numbers(predictor)
        if predictor.name == trial.reference and not predictor.is_ensemble:  # always 100 %
            numbers |= {f"mce {ALL}": {"value": trial.value("mce", ALL, predictor)}}
        lines.append(({"predictor": Cell(text, predictor.name)}, numbers))
    count = len(trial.backbones)
    if trial.has_oracle:
        mark = {
            f"acc1 {condition}": {"value": trial.value("acc1_independent", condition, ORACLE)}
            for condition in (CLEAN, ALL)
        }
        lines.insert(count + 1, ({"predictor": "independent"}, mark))
    note = _NOTES["summary"].format(reference=_reference(trial))
    note += _NOTES["independent"] if trial.has_oracle else ""
    return measures_table(
        lines, _SUMMARY, count, headers={"predictor": ""}, notes=note + _fitted(trial)
    )


def _by_perturbation(trial: TrialRows, metric: str, conditions: Sequence[str]) -> Table:
    """A line for each perturbation, a column for each backbone, and the oracle."""
    lines: list[Line] = []
    for condition in conditions:
        is_mce = (metric, condition) == ("ce", ALL)
        here, head = ("mce", "mCE") if is_mce else (metric, condition)
        numbers: dict[Any, Row] = {
            name: trial.row(here, condition, Predictor(name)) for name in trial.backbones
        }
        numbers[ORACLE] = trial.row(here, condition, ORACLE)
        numbers["if independent"] = trial.row("acc1_independent", condition, ORACLE)
        lines.append(({"perturbation": head}, numbers))
    best: Literal["most of line", "least of line"] = (
        "least of line" if metric in ("ce", "drop") else "most of line"
    )
    columns = measures_of(trial.names, best=best)
    columns += [Measure("oracle", ORACLE)] * trial.has_oracle
    if trial.has_oracle and metric == "acc1":
        columns.append(Measure("independent", "if independent", "indep."))
    notes = {"acc1": "accuracy" if ALL in conditions else "every severity", "ce": "errors"}
    note = _NOTES[notes.get(metric, metric)].format(reference=_reference(trial))
    return measures_table(lines, columns, names=trial.names, notes=note)


def _order(trial: TrialRows) -> Table:
    """A line for each perturbation: which backbone is best there."""
    lines: list[Line] = []
    for condition in (CLEAN, *trial.severities, ALL):
        numbers = {name: trial.only(name, condition) for name in ("lead", "switch", "kendall_tau")}
        (best,) = numbers["lead"]["backbones"]
        numbers["acc1"] = trial.row("acc1", condition, Predictor(best))
        if not numbers["switch"].get("value"):  # the best is the one that is best on clean images
            numbers["switch"] = {"value": numbers["switch"].get("value")}
        unknown = is_nan(numbers["acc1"].get("value"))
        shown = UNKNOWN if unknown else trial.names.cell(best)
        lines.append(({"perturbation": condition, "best": shown}, numbers))
    note = _NOTES["order"].format(best=lines[0][0]["best"].text)
    return measures_table(lines, _ORDER, notes=note)


def _gains(trial: TrialRows) -> Tables:
    """A line for each perturbation; many ensembles are split over several tables."""
    gains = [Measure("oracle", ORACLE, interval="known")] * trial.has_oracle
    names = ShortNames({name: name for name in trial.ensembles}, "")
    blocks = [[*names.columns.items()][at : at + _MOST] for at in range(0, len(names.short), _MOST)]
    lines: list[Line] = [
        (
            {"perturbation": condition},
            {it: trial.row("gain_over_best_on_test", condition, it) for it in trial.predictors},
        )
        for condition in (CLEAN, *trial.severities, ALL)
    ]
    tables = []
    for block in blocks or [[]]:
        gains += [Measure(column, Predictor(name, True), name) for name, column in block]
        tables.append(measures_table(lines, gains))
        gains = []
    methods = ["the oracle"] * trial.has_oracle + ["ensembles"] * bool(trial.ensembles)
    note = _NOTES["gains"].format(methods=" and ".join(methods))
    return (*tables[:-1], replace(tables[-1], notes=note + _fitted(trial)))


def _severities(trial: TrialRows) -> Tables:
    """A line for each perturbation: mean accuracies, and a curve of bars for each backbone."""
    levels = sorted({level for labels in trial.severities.values() for level in labels})
    levels = levels if len(levels) <= _MOST else []
    accuracies = {label: trial.accuracies(label) for label in (CLEAN, *trial.labels)}
    top = max(_known(value for values in accuracies.values() for value in values), default=0.0)
    means = {label: {"value": _mean(values)} for label, values in accuracies.items()}
    lines: list[Line] = []
    for perturbation, labels in trial.severities.items():
        curves = zip(*(accuracies[label] for label in (CLEAN, *labels.values())), strict=True)
        bars = ("".join(_bar(value, top) for value in curve) for curve in curves)
        about = {"perturbation": perturbation}
        about |= dict(zip(trial.names.columns.values(), bars, strict=True))
        lines.append(
            (about, {level: means[label] for level, label in ({0: CLEAN} | labels).items()})
        )
    numbers = [Measure(str(level) if level else CLEAN, level) for level in [0, *levels]]
    names, note = trial.names, _NOTES["severities"].format(top=100 * top)
    if not levels:
        return (measures_table(lines, (), names=names, notes=note),)
    if len(trial.backbones) <= _FEW:
        columns: list[Measure | str] = [*numbers, *names.columns.values()]
        return (measures_table(lines, columns, names=names, notes=note),)
    alone = [({"perturbation": about["perturbation"]}, of) for about, of in lines]
    bars_below = measures_table(lines, (), names=names, notes=note)
    return measures_table(alone, numbers), bars_below


def _datasets(trials: Sequence[TrialRows]) -> Table:
    """A line for each dataset."""
    shared = common(pl.DataFrame([trial.about for trial in trials]), ("split", "prompts"))
    lines: list[Line] = []
    for trial in trials:
        first, second = (
            (trial.only("lead", condition).get("backbones") or trial.backbones)[0]
            for condition in (CLEAN, ALL)
        )
        about = {name: value for name, value in trial.about.items() if name not in shared}
        best = {"clean": trial.names.cell(first), "perturbed": trial.names.cell(second)}
        numbers = {
            "acc1 of clean": trial.row("acc1", CLEAN, Predictor(first)),
            "acc1 of perturbed": trial.row("acc1", ALL, Predictor(second)),
            "drop": trial.row("drop", ALL, Predictor(first)),
            "gain clean": trial.row("gain_over_best_on_test", CLEAN, ORACLE),
            "gain perturbed": trial.row("gain_over_best_on_test", ALL, ORACLE),
            "kendall_tau": trial.only("kendall_tau", ALL),
        }
        lines.append((about | best, numbers))
    return measures_table(lines, _DATASETS, notes=_NOTES["datasets"])


def _reference(trial: TrialRows) -> str:
    return trial.names.short[trial.reference]


def _fitted(trial: TrialRows) -> str:
    """What the ensembles were fitted on."""
    rows = trial.frame.filter(pl.col("ensemble").is_in(trial.ensembles))
    if rows.is_empty():
        return ""
    seeds = "means over seeds" if rows["seed"].n_unique() > 1 else ""
    about = filter(None, [f"head {rows['head'][0]}", fitted_on(rows), seeds])
    return f"\nEnsembles: {', '.join(about)}."


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and not is_nan(value)]


def _mean(values: Sequence[float | None]) -> float:
    """NaN where a value is unknown."""
    known = _known(values)
    return sum(known) / len(values) if len(known) == len(values) else float("nan")


def _bar(value: float | None, top: float) -> str:
    if value is None or is_nan(value) or not top:
        return " "
    return BARS[round(value / top * (len(BARS) - 1))]

"""Accuracy under perturbation: curves by severity, and a matrix of perturbations and methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from clipsyn.analyses.predicted import ALL
from clipsyn.analyses.robustness.view import ORACLE, Predictor, TrialRows, trial_rows
from clipsyn.errors import UsageError
from clipsyn.frames import is_nan
from clipsyn.show.figure import Figure, Size, needed
from clipsyn.show.panels import Grid, drawn, headed, key, methods, panels, room, underlined
from clipsyn.show.style import COLUMN, INK, Mark, heat_map, label, marks
from clipsyn.show.titles import subject, title, typical_interval
from clipsyn.specs import CLEAN as CLEAN_IMAGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLEAN = CLEAN_IMAGES.label
_FEW = 4  # ensembles that are drawn as curves, beside those of backbones
_ROW, _CELL = 0.19, 0.36  # inches
_ABOUT = ("dataset", "split", "prompts", "n")
_NUMBERS = ("value", "ci_low", "ci_high", "n")
_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("dataset", "split", "prompts"), pl.String),
    "datasets": pl.Int64,
    "perturbation": pl.String,
    "severity": pl.Int32,
    **dict.fromkeys(("ensemble", "backbone"), pl.String),
    **dict.fromkeys(_NUMBERS[:3], pl.Float64),
    "n": pl.Int64,
}
_Shown = Sequence[tuple[str, str, int | None]]  # label, and what it is drawn as


def _trial(frame: pl.DataFrame) -> TrialRows:
    """The one dataset that there is, or the mean over all; raises UsageError for others."""
    needed(
        frame.filter(metric="relative_robustness"),
        "accuracy under perturbation",
        "give a store with such images, or what `clipsyn robustness STORE --parquet FILE` wrote",
    )
    _, shown = trial_rows(frame)
    if len(shown) > 1:
        labels = "; ".join(trial.label for trial in shown[:3])
        raise UsageError(
            f"there is no mean over these, which differ in split, prompts, backbones or "
            f"perturbations: {labels}; this shows one, so choose it with datasets=…, splits=… or "
            "prompts=…"
        )
    return shown[0]


def _rows(trial: TrialRows, predictors: Iterable[Predictor], shown: _Shown) -> pl.DataFrame:
    """A row for each accuracy that is known."""
    about = {name: trial.about[name] for name in _ABOUT[:3]} | {"datasets": trial.datasets}
    kinds = [(one, "ensemble" if one.is_ensemble else "backbone") for one in predictors]
    rows = [
        about
        | {"perturbation": perturbation, "severity": severity, kind: predictor.name}
        | {name: row[name] for name in _NUMBERS}
        for label, perturbation, severity in shown
        for predictor, kind in kinds
        if (row := trial.row("acc1", label, predictor)) and not is_nan(row["value"])
    ]
    return pl.DataFrame(rows, schema=_SCHEMA)


def _curves(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each perturbation, severity and method; severity 0 is clean images.

    More than a few ensembles are left out.
    """
    trial = _trial(frame)
    shown = [
        (label, perturbation, severity)
        for perturbation, labels in trial.severities.items()
        for severity, label in ({0: CLEAN} | labels).items()
    ]
    crowd = set(trial.ensembles) if len(trial.ensembles) > _FEW else set()
    return _rows(trial, [it for it in trial.predictors if it.name not in crowd], shown)


def _matrix(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for clean images, each perturbation and their mean, and each method."""
    trial = _trial(frame)
    shown = [(label, label, None) for label in (CLEAN, *trial.severities, ALL)]
    return _rows(trial, trial.predictors, shown)


def _heading(data: pl.DataFrame, names: str) -> str:
    return title(subject(data, _ABOUT), names, typical_interval(data))


def _curves_size(data: pl.DataFrame) -> Size:
    return Grid.of(data["perturbation"].n_unique()).size(methods(data)[0].values())


def _draw_curves(data: pl.DataFrame, ax: Axes) -> None:
    texts, cut = methods(data)
    by_method = marks([name for name in texts if name != ORACLE.name])
    by_method |= {name: Mark(INK, "*", ":") for name in texts if name == ORACLE.name}
    parts = data.partition_by("perturbation", maintain_order=True)
    titles = [part["perturbation"][0] for part in parts]
    for part, panel in zip(parts, panels(ax, titles, "severity", "top-1 accuracy, %"), strict=True):
        for name, mark in by_method.items():
            rows = part.filter(pl.coalesce("ensemble", "backbone") == name)
            panel.plot(rows["severity"], 100 * rows["value"], **drawn(mark), ms=3, lw=1)
        panel.set_xticks(sorted(set(data["severity"])))
    entries = {texts[name]: drawn(mark) for name, mark in by_method.items()}
    key(ax, entries, _heading(data, cut), titled=1)


def _matrix_size(data: pl.DataFrame) -> Size:
    columns, rows = (
        _labels(texts) for texts in (methods(data)[0].values(), _conditions(data).values())
    )
    width = _CELL * len(columns) + room(rows) + 0.6  # with the scale
    return max(COLUMN, width), _ROW * max(len(rows), 6) + 0.7 * room(
        columns
    ) + 0.5  # with the heading


def _labels(names: Iterable[str]) -> list[str]:
    return [label(name) for name in names]


def _conditions(data: pl.DataFrame) -> dict[str, str]:
    """What each perturbation is called, by its name."""
    names = data["perturbation"].unique(maintain_order=True)
    return {name: "mean" if name == ALL else name for name in names}


def _draw_matrix(data: pl.DataFrame, ax: Axes) -> None:
    texts, cut = methods(data)
    columns, rows = (list(names) for names in (texts, _conditions(data)))
    values: dict[tuple[int, int], float] = {}
    best: list[tuple[int, int]] = []
    for row, part in enumerate(data.partition_by("perturbation", maintain_order=True)):
        known = part.select(pl.coalesce("ensemble", "backbone"), "value").iter_rows()
        values |= {(row, columns.index(name)): 100 * value for name, value in known}
        singles = part.filter(pl.col("backbone").is_not_null())
        most = singles.filter(value=singles["value"].max())["backbone"]
        best += [(columns.index(name), row) for name in most]
    labels = _labels(_conditions(data).values()), _labels(texts.values())
    headed(ax, _heading(data, cut), room(labels[0]))  # before a scale takes of the width
    heat_map(ax, *labels, values, decimals=1, label="top-1 accuracy, %", vmin=0)
    underlined(ax, best)
    for line in (0.5, len(rows) - 1.5):  # below clean images, above the mean
        ax.axhline(line, color="white", lw=2.5)
    ax.axvline(data["backbone"].drop_nulls().n_unique() - 0.5, color="white", lw=2.5)


severity = Figure(
    name="severity",
    short="Accuracy of every backbone by severity, for each perturbation.",
    caption="Top-1 accuracy by severity of each perturbation; severity 0 is clean images. "
    f"Ensembles are shown where there are {_FEW} at most.",
    source="robustness",
    data=_curves,
    draw=_draw_curves,
    size=_curves_size,
)
corruptions = Figure(
    name="corruptions",
    short="Accuracy of every backbone under every perturbation, as a matrix.",
    caption="Top-1 accuracy in percent under each perturbation, mean over its severities, and the "
    "mean over perturbations; the best backbone of each row is underlined.",
    source="robustness",
    data=_matrix,
    draw=_draw_matrix,
    size=_matrix_size,
)

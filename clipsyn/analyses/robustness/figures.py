"""Accuracy under perturbation: curves by severity, and a matrix of perturbations and methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from clipsyn.analyses.predicted import ALL
from clipsyn.analyses.robustness.rows import ORACLE, Predictor, TrialRows, trial_rows
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import refuse_several
from clipsyn.names import CLEAN as CLEAN_IMAGES
from clipsyn.show.figure import INK, Figure, Mark, Size, marks, needed
from clipsyn.show.frames import is_nan
from clipsyn.show.panels import Grid, accuracies, drawn, key, matrix_size, methods, panels
from clipsyn.show.titles import subject, title, typical_interval, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLEAN = CLEAN_IMAGES.label
_FEW = 4  # ensembles that are drawn as curves, beside those of backbones
_MOST = 60  # panels, or perturbations with rows in a matrix
_PLACE = ("dataset", "perturbation")
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


def _trials(frame: pl.DataFrame) -> list[TrialRows]:
    """The mean over all datasets, or what has none; raises UsageError for what is not mixed."""
    needed(
        frame.filter(metric="relative_robustness"),
        "accuracy under perturbation",
        "give a store with such images, or what `clipsyn robustness STORE -o FILE.parquet` wrote",
    )
    refuse_several(frame, ("split", "prompts"))
    shown = trial_rows(frame)[1]
    if (count := sum(len(trial.severities) for trial in shown)) > _MOST:
        raise UsageError(
            f"{count} perturbations of {len(shown)} datasets cannot be read: choose up to {_MOST} "
            "with datasets=… and perturbations=…"
        )
    return shown


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
    """A row for each dataset, perturbation, severity and method; severity 0 is clean images.

    More than a few ensembles are left out.
    """
    trials = _trials(frame)
    ensembles = {name for trial in trials for name in trial.ensembles}
    crowd = ensembles if len(ensembles) > _FEW else set()
    return pl.concat(
        _rows(
            trial,
            [predictor for predictor in trial.predictors if predictor.name not in crowd],
            [
                (label, perturbation, severity)
                for perturbation, labels in trial.severities.items()
                for severity, label in ({0: CLEAN} | labels).items()
            ],
        )
        for trial in trials
    )


def _matrix(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each dataset, perturbation and method; for clean images, and for the mean.

    Raises UsageError for severities that were chosen out of more, of which a file has no mean.
    """
    parts = []
    for trial in _trials(frame):
        shown = [(CLEAN, CLEAN)]
        for name, labels in trial.severities.items():
            label = name
            if len(labels) == 1 and not trial.row("acc1", name):
                (label,) = labels.values()  # is its own mean
            if not trial.row("acc1", label):
                raise UsageError(
                    f"the mean over {' and '.join(labels.values())} is not in the results: choose "
                    f"one severity of {name} or all with perturbations=…, or draw the store"
                )
            shown.append((label, name))
        shown += [(ALL, ALL)] if len(trial.severities) > 1 else []
        parts.append(_rows(trial, trial.predictors, [(*one, None) for one in shown]))
    return pl.concat(parts)


def _parts(data: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The rows of each dataset and perturbation, by what it is called."""
    several = data["dataset"].n_unique() > 1
    parts = {}
    for (dataset, perturbation), part in data.group_by(_PLACE, maintain_order=True):
        name = "mean" if perturbation == ALL else str(perturbation)
        parts[f"{dataset or 'mean'}: {name}" if several else name] = part
    return parts


def _about(data: pl.DataFrame) -> str:
    about = subject(data, _ABOUT)
    if (datasets := data["dataset"].n_unique()) > 1:
        first = data.row(0, named=True) | {"dataset": None}
        about = title(f"{datasets} datasets", *where(first, _ABOUT[:3]))
    return title(about, methods(data)[1], typical_interval(data))


def _same_severities(parts: Iterable[pl.DataFrame]) -> bool:
    return len({tuple(sorted({*part["severity"]})) for part in parts}) == 1


def _curves_size(data: pl.DataFrame) -> Size:
    parts = _parts(data)
    lines = 1 if _same_severities(parts.values()) else 2  # with numbers below each
    return Grid.of(len(parts)).size(lines)


def _draw_curves(data: pl.DataFrame, ax: Axes) -> None:
    texts, _ = methods(data)
    by_method = marks([name for name in texts if name != ORACLE.name])
    by_method |= {name: Mark(INK, "*", ":") for name in texts if name == ORACLE.name}
    parts = _parts(data)
    same = _same_severities(parts.values())
    drawn_on = panels(ax, list(parts), "severity", "top-1 accuracy, %", same_x=same)
    for part, panel in zip(parts.values(), drawn_on, strict=True):
        for name, mark in by_method.items():
            rows = part.filter(pl.coalesce("ensemble", "backbone") == name)
            panel.plot(rows["severity"], 100 * rows["value"], **drawn(mark), ms=3, lw=1)
        panel.set_xticks(sorted({*part["severity"]}))
    entries = {texts[name]: drawn(mark) for name, mark in by_method.items()}
    key(ax, entries)


def _draw_matrix(data: pl.DataFrame, ax: Axes) -> None:
    texts, _ = methods(data)
    columns, parts = list(texts), _parts(data)
    shares: dict[tuple[int, int], float] = {}
    best: list[tuple[int, int]] = []
    for row, part in enumerate(parts.values()):
        known = part.select(pl.coalesce("ensemble", "backbone"), "value").iter_rows()
        shares |= {(row, columns.index(name)): value for name, value in known}
        singles = part.filter(pl.col("backbone").is_not_null())
        most = singles.filter(value=singles["value"].max())["backbone"]
        best += [(row, columns.index(name)) for name in most]
    accuracies(ax, parts, texts.values(), shares, best)
    for row in _gaps(parts.values()):
        ax.axhline(row - 0.5, color="white", lw=2.5)
    ax.axvline(data["backbone"].drop_nulls().n_unique() - 0.5, color="white", lw=2.5)


def _gaps(parts: Iterable[pl.DataFrame]) -> list[int]:
    """The rows before which another dataset begins; of one dataset, what is no perturbation."""
    kinds = [part.select(_PLACE).row(0) for part in parts]
    if len({dataset for dataset, _ in kinds}) == 1:
        kinds = [(None, name if name in (CLEAN, ALL) else None) for _, name in kinds]
    else:
        kinds = [(dataset, None) for dataset, _ in kinds]
    return [row for row in range(1, len(kinds)) if kinds[row] != kinds[row - 1]]


severity = Figure(
    name="severity",
    short="Accuracy of every backbone by severity, for each perturbation.",
    caption="Top-1 accuracy by severity of each perturbation; severity 0 is clean images. "
    f"Ensembles are shown where there are {_FEW} at most.",
    source="robustness",
    data=_curves,
    draw=_draw_curves,
    size=_curves_size,
    about=_about,
)
corruptions = Figure(
    name="corruptions",
    short="Accuracy of every backbone under every perturbation, as a matrix.",
    caption="Top-1 accuracy in percent under each perturbation, mean over its severities, and the "
    "mean over perturbations; the best backbone of each row is underlined.",
    source="robustness",
    data=_matrix,
    draw=_draw_matrix,
    size=lambda data: matrix_size(_parts(data), methods(data)[0].values()),
    about=_about,
)

"""Tables of what differs from published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import polars as pl

from clipsyn.evaluation.published import CompareSettings
from clipsyn.show.table import UNKNOWN, Cell, Table, Tables, points_cell
from clipsyn.show.tables import Line, Measure, measures_of, measures_table
from clipsyn.show.titles import WIDTH, shortened

_MARK = "*"
_NOTE = (
    "in %, differences in points. The intervals are those of our accuracies over images; a "
    "published number has none. On the same images the same weights differ by rounding alone, so a "
    "difference within its interval may still come from other images, prompts or preprocessing."
)
_METRICS = {"acc1": "top-1", "mean_per_class_recall": "mean per class"}
_PLACE = ("dataset", "split", "prompts", "metric")


def tables(frame: pl.DataFrame, settings: CompareSettings) -> dict[str, Tables]:
    """ "differences", a line for each dataset, and "numbers", a line for each number.

    "numbers" has those that are beyond the tolerance, or all if details are asked for.
    """
    parts: dict[str, Tables] = {"differences": (_differences(frame, settings),)}
    listed = frame if settings.details else frame.filter("beyond")
    if not listed.is_empty():
        parts["numbers"] = (_numbers(listed),)
    return parts


def _differences(frame: pl.DataFrame, settings: CompareSettings) -> Table:
    names = shortened(sorted(frame["backbone"].unique()))
    lines = []
    for (*place, metric), part in frame.group_by(_PLACE, maintain_order=True):
        about = dict(zip(_PLACE, [*place, _METRICS[str(metric)]], strict=True))
        lines.append((about, {row["backbone"]: row for row in part.rows(named=True)}))
    return measures_table(
        lines,
        measures_of(names, cell=_points),
        title="zero-shot accuracy minus the published one, in points",
        names=names,
        notes=_summary(frame, settings, names.phrase),
    )


def _points(row: Mapping[str, Any]) -> Cell:
    if not row:
        return UNKNOWN
    points = points_cell(row["difference"])
    low, high = _scaled(row, "difference_low", "difference_high")
    return Cell(f"{_MARK if row['beyond'] else ''}{points.text}", points.value, low, high)


def _scaled(row: Mapping[str, Any], *names: str) -> list[float | None]:
    return [None if row[name] is None else 100 * row[name] for name in names]


def _summary(frame: pl.DataFrame, settings: CompareSettings, phrase: str) -> str:
    beyond, sources = int(frame["beyond"].sum()), frame["source"].unique(maintain_order=True)
    within = f"{len(frame) - beyond} of {len(frame)} numbers are within"
    marked = f"; {_MARK} marks the {beyond} beyond" if beyond else ""
    about = "; ".join(filter(None, [*sources, phrase]))
    return (
        f"{within} {settings.tolerance:g} points of the published ones{marked}.\n"
        f"{fill(f'published: {about}.', WIDTH)}"
    )


_NUMBERS = (
    Measure("ours", "ours", interval=True),
    Measure("published", "published"),
    Measure("difference", "difference", interval=True),
)


def _numbers(frame: pl.DataFrame) -> Table:
    rows = frame.rows(named=True)
    return measures_table([*map(_line, rows)], (*_NUMBERS, "n", "usual n"), notes=_note(rows))


def _line(row: Mapping[str, Any]) -> Line:
    about = {name: row[name] for name in ("dataset", "prompts", "backbone")}
    about |= {"metric": _METRICS[row["metric"]], "n": row["n"], "usual n": row["usual_n"]}
    low, high = row["difference_low"], row["difference_high"]
    return about, {
        "ours": row,
        "published": {"value": row["published"]},
        "difference": {"value": row["difference"], "ci_low": low, "ci_high": high},
    }


def _note(rows: Sequence[Mapping[str, Any]]) -> str:
    other = [row for row in rows if row["usual_n"] is not None and row["n"] != row["usual_n"]]
    names = ", ".join(dict.fromkeys(row["dataset"] for row in other))
    return "\n".join(
        [
            fill(_NOTE, WIDTH),
            *([fill(f"Not as many images as usual: {names}.", WIDTH)] if other else []),
        ]
    )

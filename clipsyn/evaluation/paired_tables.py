"""Tables of methods compared pair by pair: a line for each dataset, or for each pair of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from clipsyn.evaluation.paired import PLACE
from clipsyn.evaluation.tables import BEST
from clipsyn.show.table import Cell, Table, Tables, interval_cell, p_cell, paragraph, points_cell
from clipsyn.show.tables import Measure, interval_of, measures_table
from clipsyn.show.titles import fitted_on, title, where
from clipsyn.stats.images import copies_note

NOTE = """\
Top-1 accuracy in %, mean of all draws; differences in points. only: images that one of the two gets
right alone. McNemar: p over images, the draws of an image kept together. p: over draws and images
where there are several draws, else McNemar's. p (Holm): corrected for {comparisons}, all pairs
of methods on a dataset; = a tie, where it is 0.05 or more."""
_ENDS = "low", "high"
_LUCK = "best on test: the backbone that is best on these very images, partly by luck."
_ONE_DRAW = "With one draw nobody knows how far another would be off: p is over images alone."


def tables(frame: pl.DataFrame) -> dict[str, Tables]:
    """The tables by name, and what they mean; of several pairs those of the mean, if any."""
    shown: dict[str, Tables] = {}
    if frame.select("first", "second").n_unique() == 1:
        for keys, part in frame.group_by("split", "prompts", "classes", maintain_order=True):
            own = ["dataset", *["perturbation"] * (part["perturbation"].n_unique() > 1)]
            shown[", ".join(map(str, keys))] = (_table(part, own),)
    else:
        is_mean = pl.col("dataset").is_null()
        above = frame.filter(is_mean | ~is_mean.any().over(PLACE))
        for keys, part in above.group_by("dataset", *PLACE, maintain_order=True):
            name = ", ".join(str(key or "mean") for key in keys)
            ranked = part.sort("first", "second_acc1", descending=[False, True])
            shown[f"pairs, {name}"] = (_table(ranked, ["first", "second"]),)
    return shown | {"what they mean": (paragraph(_note(frame)),)}


def _note(frame: pl.DataFrame) -> str:
    place = pl.concat_str("dataset", "split", separator="/")
    sets = frame.drop_nulls("dataset").select(place, "n", "distinct")
    counts = sorted({*frame["comparisons"]}) or [0]
    count = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    notes = [
        NOTE.format(comparisons=f"{count} comparison{'s' * (counts[-1] != 1)}"),
        _LUCK if BEST in [*frame["first"], *frame["second"]] else "",
        _ONE_DRAW if 1 in frame["draws"] else "",
        copies_note(sets.iter_rows()),
    ]
    return "\n".join(filter(None, notes))


def _table(part: pl.DataFrame, own: Sequence[str]) -> Table:
    """A line for each row, which begins with its own columns."""
    names = (part["first"][0], part["second"][0]) if "first" not in own else ("first", "second")
    lines = [
        (
            {name: row[name] or f"mean over {row['datasets']}" for name in own} | {"n": row["n"]},
            {name: {"value": row[name]} for name in row}
            | {"difference": row, "both": {f"ci_{end}": row[f"both_{end}"] for end in _ENDS}},
        )
        for row in part.iter_rows(named=True)
    ]
    first, second = names
    counts: dict[str, Any] = {"percent": False, "digits": 1, "optional": True}
    columns = (
        Measure("first top-1", "first_acc1", f"{first}\ntop-1"),
        Measure("second top-1", "second_acc1", f"{second}\ntop-1"),
        Measure("difference", "difference", cell=_lead),
        Measure(interval_of("difference"), "difference", "95 % over\nimages", cell=interval_cell),
        Measure("both", "both", "95 % over draws\nand images", cell=interval_cell),
        Measure("only_first", "only_first", f"only\n{first}", **counts),
        Measure("only_second", "only_second", f"only\n{second}", **counts),
        Measure("mcnemar", "mcnemar", "McNemar", cell=_p, optional=True),
        Measure("p", "p", cell=_p),
        Measure("holm", "p_holm", "p (Holm)", cell=_p),
    )
    about = title(f"{first} less {second}", _about(part, own))
    return measures_table(lines, columns, title=about)


def _p(row: Mapping[str, Any]) -> Cell:
    return p_cell(row["value"])


def _lead(row: Mapping[str, Any]) -> Cell:
    """ "+1.2=" for a tie, else "+1.2 ", so that the digits are in line."""
    return points_cell(row["difference"], "=" if row["tie"] else " ")


def _about(part: pl.DataFrame, without: Sequence[str]) -> str:
    """What all lines of a table are about."""
    row = part.row(0, named=True)
    over = "" if row["dataset"] or "dataset" in without else f"mean over {row['datasets']} datasets"
    row["classes"] = None if row["classes"] == "all" else f"{row['classes']} classes"
    columns = [name for name in ("dataset", *PLACE, "head") if name not in without]
    draws = max(part["draws"].to_list())
    drawn = f"{draws} draw{'s' * (draws != 1)}" if draws else ""
    return title(over, *where(row, columns), fitted_on(part), drawn)

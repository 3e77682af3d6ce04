"""Tables of methods compared pair by pair.

Two methods have a line for each dataset and perturbation. Several have a ranking, against one of
them, and a matrix of all pairs: of the mean over datasets, where there are several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from clipsyn.evaluation.paired import PLACE
from clipsyn.evaluation.results.frame import Row
from clipsyn.evaluation.tables import BEST
from clipsyn.show.table import (
    UNKNOWN,
    Cell,
    Table,
    Tables,
    interval_cell,
    p_cell,
    paragraph,
    points_cell,
)
from clipsyn.show.tables import Line, Measure, interval_of, measures_table
from clipsyn.show.titles import fitted_on, title, where
from clipsyn.stats.images import copies_note

NOTE = """\
Top-1 accuracy in %, mean of all draws; differences in points. only: images that one of the two gets
right alone. McNemar: p over images, the draws of an image kept together. p: over draws and images
where there are several draws, else McNemar's. p (Holm): corrected for {comparisons}, all pairs
of methods on a dataset; = a tie, where it is 0.05 or more."""
_MATRIX = "All pairs: line less column, in points; = a tie (Holm over the pairs)."
_LUCK = "best on test: the backbone that is best on these very images, partly by luck."
_ONE_DRAW = "With one draw nobody knows how far another would be off: p is over images alone."


def tables(frame: pl.DataFrame) -> dict[str, Tables]:
    """The tables by name, and what they mean."""
    shown: dict[str, Tables] = {}
    if frame.select("first", "second").n_unique() == 1:
        for keys, part in frame.group_by("split", "prompts", "classes", maintain_order=True):
            shown[", ".join(map(str, keys))] = (_of_two(part),)
    else:
        is_mean = pl.col("dataset").is_null()
        above = frame.filter(is_mean | ~is_mean.any().over(PLACE))
        for keys, pairs in above.group_by("dataset", *PLACE, maintain_order=True):
            name = ", ".join(str(key or "mean") for key in keys)
            shown |= {f"{kind}, {name}": (table,) for kind, table in _of_all(pairs)}
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


def _of_two(part: pl.DataFrame) -> Table:
    """A line for each dataset and perturbation."""
    own = ["perturbation"] * (part["perturbation"].n_unique() > 1)
    lines = [
        (
            {"dataset": row["dataset"] or f"mean over {row['datasets']}"}
            | {name: row[name] for name in (*own, "n")},
            _numbers(row),
        )
        for row in part.iter_rows(named=True)
    ]
    first, second = part["first"][0], part["second"][0]
    columns = (
        Measure("first top-1", "first", first),
        Measure("second top-1", "second", second),
        *_difference(first, second),
    )
    about = title(f"{first} less {second}", _about(part, without=["dataset", *own]))
    return measures_table(lines, columns, title=about)


def _of_all(pairs: pl.DataFrame) -> Iterator[tuple[str, Table]]:
    """A line for each method against one: the only `first`, or the best; and all against all."""
    rows = [*pairs.iter_rows(named=True)]
    both_ways = {(row["first"], row["second"]): row for row in rows}
    both_ways |= {names[::-1]: _turned(row) for names, row in both_ways.items()}
    accuracy = {first: row["first_acc1"] for (first, _), row in both_ways.items()}
    ranked = sorted(accuracy, key=lambda name: (-accuracy[name], name))
    is_matrix = pairs["first"].n_unique() > 1
    reference = next(it for it in ranked if it != BEST) if is_matrix else rows[0]["first"]
    lines: list[Line] = []
    for name in ranked:
        row = both_ways.get((name, reference))
        if row or name == reference:
            numbers = _numbers(row) if row else {}
            lines.append(({"method": name}, numbers | {"first": {"value": accuracy[name]}}))
    about = title(f"differences from {reference}", _about(pairs))
    columns = Measure("top-1", "first"), *_difference("it", reference)
    yield "ranking", measures_table(lines, columns, title=about)
    if is_matrix:
        yield "all pairs", _matrix(both_ways, ranked)


def _matrix(both_ways: dict[tuple[str, str], Row], ranked: Sequence[str]) -> Table:
    """A line and a column for each method, the best first; columns have the numbers of lines."""
    lines = [
        (
            {"": number, "method": name},
            {other: both_ways.get((name, other), {}) for other in ranked},
        )
        for number, name in enumerate(ranked, 1)
    ]
    columns = [
        Measure(f"method {number}", name, str(number), cell=_lead_or_blank)
        for number, name in enumerate(ranked, 1)
    ]
    return measures_table(lines, columns, title=_MATRIX)


def _turned(row: Row) -> Row:
    """The same pair the other way round."""
    turned = row | {"difference": -row["difference"]}
    for one, other in (("first", "second"), ("second", "first")):
        for name in ("{}", "{}_acc1", "only_{}"):
            turned[name.format(one)] = row[name.format(other)]
    for kind in ("ci", "both"):
        turned |= {f"{kind}_low": -row[f"{kind}_high"], f"{kind}_high": -row[f"{kind}_low"]}
    return turned


def _numbers(row: Row) -> dict[str, Row]:
    """What every table shows of a pair, by the name of its column."""
    names = ("only_first", "only_second", "mcnemar", "p", "p_holm")
    accuracies = {name: {"value": row[f"{name}_acc1"]} for name in ("first", "second")}
    both = {"ci_low": row["both_low"], "ci_high": row["both_high"]}
    return {"difference": row, "both": both} | accuracies | {it: {"value": row[it]} for it in names}


def _difference(first: str, second: str) -> tuple[Measure, ...]:
    """The columns that every table has; some are of a dataset, and not of a mean."""
    counts: dict[str, Any] = {"percent": False, "digits": 1, "optional": True}
    return (
        Measure("difference", "difference", cell=_lead),
        Measure(interval_of("difference"), "difference", "95 % over\nimages", cell=interval_cell),
        Measure("both", "both", "95 % over draws\nand images", cell=interval_cell),
        Measure("only_first", "only_first", f"only\n{first}", **counts),
        Measure("only_second", "only_second", f"only\n{second}", **counts),
        Measure("mcnemar", "mcnemar", "McNemar", cell=_p, optional=True),
        Measure("p", "p", cell=_p),
        Measure("holm", "p_holm", "p (Holm)", cell=_p),
    )


def _p(row: Mapping[str, Any]) -> Cell:
    return p_cell(row.get("value"))


def _lead(row: Mapping[str, Any]) -> Cell:
    """ "+1.2=" for a tie, else "+1.2 ", so that the digits are in line."""
    return points_cell(row["difference"], "=" if row["tie"] else " ") if row else UNKNOWN


def _lead_or_blank(row: Mapping[str, Any]) -> Cell:
    return _lead(row) if row else Cell("")


def _about(part: pl.DataFrame, without: Sequence[str] = ()) -> str:
    """What all lines of a table are about."""
    row = part.row(0, named=True)
    over = "" if row["dataset"] or "dataset" in without else f"mean over {row['datasets']} datasets"
    row["classes"] = None if row["classes"] == "all" else f"{row['classes']} classes"
    columns = [name for name in ("dataset", *PLACE, "head") if name not in without]
    draws = max(part["draws"].to_list())
    drawn = f"{draws} draw{'s' * (draws != 1)}" if draws else ""
    return title(over, *where(row, columns), fitted_on(part), drawn)

"""Tables of methods compared pair by pair.

Two methods have a line for each dataset and perturbation. Several have a ranking, against one of
them, and a matrix of all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from clipsyn.evaluation.paired import PairedSettings
from clipsyn.evaluation.paired.answers import PLACE
from clipsyn.evaluation.results.frame import Row
from clipsyn.evaluation.tables import BEST
from clipsyn.show.table import UNKNOWN, Cell, Table, Tables, interval_cell, p_cell, paragraph
from clipsyn.show.tables import interval_of, table_of
from clipsyn.show.titles import fitted_on, title, where

_HEADS = {
    interval_of("difference"): "95 % over\nimages",
    "both": "95 % over draws\nand images",
    "holm": "p (Holm)",
    "mcnemar": "McNemar",
}
_OF_ONE = ("only_first", "only_second", "mcnemar")  # of a dataset, not of a mean
NOTE = """\
Top-1 accuracy in %, means over draws; differences in points. = a tie: taken together with the other
lines of its table, the difference is none at the level 0.05 (Holm). only: images that one of the
two alone gets right. McNemar: p over images, the draws of an image kept together. p: over draws and
images where there are several draws, else McNemar's."""
_MATRIX = "All pairs: line less column, in points; = a tie (Holm over the pairs)."
_LUCK = "\nbest on test: the backbone that is best on these very images, partly by luck."
_ONE_DRAW = "\nWith one draw nobody knows how far another would be off: p is over images alone."


def tables(frame: pl.DataFrame, settings: PairedSettings) -> dict[str, Tables]:
    """The tables by name, and what they mean."""
    shown: dict[str, Tables] = {}
    if frame.select("first", "second").n_unique() == 1:
        for keys, part in frame.group_by("split", "prompts", "classes", maintain_order=True):
            shown[", ".join(map(str, keys))] = (_of_two(part),)
    else:
        for keys, part in frame.group_by(PLACE, maintain_order=True):
            is_mean = part["dataset"].is_null()
            wanted = part if settings.details or not is_mean.any() else part.filter(is_mean)
            for (dataset,), pairs in wanted.group_by("dataset", maintain_order=True):
                name = ", ".join([str(dataset or "mean"), *map(str, keys)])
                shown |= {f"{kind}, {name}": (table,) for kind, table in _of_all(pairs)}
                if settings.details:
                    shown[f"pairs, {name}"] = (_of_pairs(pairs),)
    return shown | {"what they mean": (paragraph(_note(frame)),)}


def _note(frame: pl.DataFrame) -> str:
    luck = _LUCK if BEST in [*frame["first"], *frame["second"]] else ""
    return NOTE + luck + (_ONE_DRAW if 1 in frame["draws"] else "")


def _of_two(part: pl.DataFrame) -> Table:
    """A line for each dataset and perturbation."""
    several = part["perturbation"].n_unique() > 1
    lines = [
        {"dataset": _over(row)}
        | ({"perturbation": row["perturbation"]} if several else {})
        | {"n": row["n"], "first top-1": row["first_acc1"], "second top-1": row["second_acc1"]}
        | _difference(row)
        for row in part.iter_rows(named=True)
    ]
    first, second = part["first"][0], part["second"][0]
    about = _about(part, without=["dataset", *(["perturbation"] if several else [])])
    heads = {"first top-1": first, "second top-1": second} | _only(first, second)
    return _table(lines, title(f"{first} less {second}", about), heads)


def _of_pairs(pairs: pl.DataFrame) -> Table:
    """A line for each pair."""
    lines = [
        {"first": row["first"], "second": row["second"]}
        | {"first top-1": row["first_acc1"], "second top-1": row["second_acc1"]}
        | _difference(row)
        for row in pairs.iter_rows(named=True)
    ]
    heads = {"first top-1": "first\ntop-1", "second top-1": "second\ntop-1"}
    heads |= _only("first", "second")
    return _table(lines, title("first less second", _about(pairs)), heads)


def _of_all(pairs: pl.DataFrame) -> Iterator[tuple[str, Table]]:
    """A line for each method against one: the only `first`, or the best; and all against all."""
    rows = [*pairs.iter_rows(named=True)]
    both_ways = {(row["first"], row["second"]): row for row in rows}
    both_ways |= {(row["second"], row["first"]): _turned(row) for row in rows}
    accuracy = {first: row["first_acc1"] for (first, _), row in both_ways.items()}
    ranked = sorted(accuracy, key=lambda name: (-accuracy[name], name))
    is_matrix = pairs["first"].n_unique() > 1
    fair = [name for name in ranked if name != BEST]
    reference = fair[0] if is_matrix else rows[0]["first"]
    lines = []
    for name in ranked:
        line = {"method": name, "top-1": accuracy[name]}
        if row := both_ways.get((name, reference)):
            line |= _difference(row)
        if row or name == reference:
            lines.append(line)
    about = title(f"differences from {reference}", _about(pairs))
    yield "ranking", _table(lines, about, _only("it", reference))
    if is_matrix:
        yield "all pairs", _matrix(both_ways, ranked)


def _matrix(both_ways: dict[tuple[str, str], Row], ranked: Sequence[str]) -> Table:
    """A line and a column for each method, the best first; columns have the numbers of lines."""
    columns = {name: f"method {number}" for number, name in enumerate(ranked, 1)}
    lines = [
        {"": number, "method": name}
        | {column: _lead(both_ways.get((name, other))) for other, column in columns.items()}
        for number, name in enumerate(ranked, 1)
    ]
    heads = {column: str(number) for number, column in enumerate(columns.values(), 1)}
    labels = {column: name for name, column in columns.items()}
    return table_of(lines, title=_MATRIX, headers=heads, labels=labels, right=list(heads))


def _turned(row: Row) -> Row:
    """The same pair the other way round."""
    turned = dict(row)
    for one, other in (("first", "second"), ("first_acc1", "second_acc1")):
        turned |= {one: row[other], other: row[one]}
    turned |= {"only_first": row["only_second"], "only_second": row["only_first"]}
    turned |= {"difference": -row["difference"]}
    for kind in ("ci", "both"):
        turned |= {f"{kind}_low": -row[f"{kind}_high"], f"{kind}_high": -row[f"{kind}_low"]}
    return turned


def _difference(row: Row) -> dict[str, Any]:
    """The cells that every table has."""
    over_both = {"ci_low": row["both_low"], "ci_high": row["both_high"]}
    return {
        "difference": _lead(row),
        interval_of("difference"): interval_cell(row),
        "both": interval_cell(over_both),
        "only_first": row["only_first"],
        "only_second": row["only_second"],
        "mcnemar": p_cell(row["mcnemar"]),
        "p": p_cell(row["p"]),
        "holm": p_cell(row["p_holm"]),
    }


def _only(first: str, second: str) -> dict[str, str]:
    """Heads of the numbers of images that one of two gets right."""
    return {"only_first": f"only\n{first}", "only_second": f"only\n{second}"}


def _lead(row: Row | None) -> Cell:
    """ "+1.2=" for a tie, else "+1.2 ", so that the digits are in line."""
    if row is None:
        return Cell("")
    points = 100 * row["difference"]
    text = f"{round(points, 1) + 0.0:+.1f}"  # no -0.0
    return Cell(text + ("=" if row["tie"] else " "), points)


def _over(row: Row) -> str:
    return row["dataset"] or f"mean over {row['datasets']}"


def _about(part: pl.DataFrame, without: Sequence[str] = ()) -> str:
    """What all lines of a table are about."""
    row = part.row(0, named=True)
    over = "" if row["dataset"] or "dataset" in without else f"mean over {row['datasets']} datasets"
    row["classes"] = None if row["classes"] == "all" else f"{row['classes']} classes"
    columns = [name for name in ("dataset", *PLACE, "head") if name not in without]
    draws = max(part["draws"].to_list())
    drawn = f"{draws} draw{'s' * (draws != 1)}" if draws else ""
    return title(over, *where(row, columns), fitted_on(part), drawn)


def _table(lines: Sequence[dict[str, Any]], about: str, heads: dict[str, str]) -> Table:
    empty = {name for name in _OF_ONE if all(_is_empty(line.get(name)) for line in lines)}
    return table_of(
        [{name: cell for name, cell in line.items() if name not in empty} for line in lines],
        title=about,
        percent=["first top-1", "second top-1", "top-1"],
        digits={"only_first": 1, "only_second": 1},
        headers=_HEADS | heads,
        right=("difference", "both", "mcnemar", "p", "holm"),
    )


def _is_empty(cell: float | Cell | None) -> bool:
    return cell is None or cell == UNKNOWN

"""Frames as aligned text."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from textwrap import fill
from typing import Any

import polars as pl

from clipsyn.frames import is_nan
from clipsyn.printable import printable, printable_lines
from clipsyn.report.layout import NOTE, Column, broken, drawn, fitted, is_whole, width_of, wrapped

NOTHING = "\N{EN DASH}"  # for null and NaN
Cell = tuple[int, str]  # row, column
_MANY = 6  # backbones, beyond which columns are narrow
_NUMBERED = 12  # backbones, from which on columns have numbers
WIDTH = 100  # characters of a paragraph
_COMMON_IMAGES = "\nOracle and gain are over the images that all backbones have a prediction for."
_ORACLES = ("oracle", "independent", "gain")
_GROUP = ("dataset", "split", "perturbation", "prompts")  # what one table, or row, is about


def show(
    frame: pl.DataFrame,
    *,
    title: str = "",
    percent: Collection[str] = (),
    headers: Mapping[str, str] | None = None,
    right: Collection[str] = (),
    bold: Collection[Cell] = (),
    terminal: bool | None = None,
) -> str:
    """`frame` as an aligned text table, nothing cut off; on a terminal it fits the width.

    percent: columns of fractions to show as percent with one decimal. headers: other texts above
    columns. right: text columns to align right as numbers are. bold: cells to set in bold on
    a terminal. terminal: None asks standard output. See `clipsyn.report.layout` for what becomes
    of a table that is wider than the terminal; `layout.NOTE` stands below it.
    """
    terminal = sys.stdout.isatty() if terminal is None else terminal
    columns = [
        Column(
            printable_lines((headers or {}).get(name, name)),
            tuple(_texts(frame[name], name in percent)) if len(frame) else (),
            frame.schema[name].is_numeric() or name in right,
            frozenset(row for row, column in bold if column == name),
        )
        for name in frame.columns
    ]
    width = width_of(terminal)
    tables = fitted(columns, width)
    parts = [broken(printable_lines(title), width)] if title else []
    parts.append("\n\n".join(drawn(table, terminal) for table in tables))
    return "\n".join(parts if is_whole(columns, tables) else [*parts, NOTE])


def accuracy_frame(tidy: pl.DataFrame) -> pl.DataFrame:
    """Top-1 accuracy, one row a dataset, split, perturbation and prompt set; all fractions.

    tidy: what `clipsyn.evaluate.zeroshot` returns. Columns: dataset, split, perturbation,
    prompts, n, chance, one for each backbone, best (its name; the first of equals), oracle,
    independent (the oracle of errors independent within each class), gain (of the oracle over the
    best). Null where a backbone or the oracle is missing.
    """
    single, oracle, chance = _is_single(), pl.col("ensemble") == "oracle", _is_chance()
    top1, mark = pl.col("metric") == "acc1", pl.col("metric") == "acc1_independent"
    value = pl.col("value")
    names = tidy.filter(single)["backbones"].unique(maintain_order=True).sort()
    rows = []
    for keys, group in tidy.group_by(*_GROUP, maintain_order=True):
        singles = group.filter(single & top1).sort("backbones")
        if singles.is_empty():
            continue
        found = dict(singles.select("backbones", "value").iter_rows())
        rows.append(
            {
                **dict(zip(_GROUP, keys, strict=True)),
                "n": singles["n"].max(),
                "chance": _only(group.filter(chance & top1).select(value)),
                **{name: found.get(name) for name in names},
                "best": max(found, key=lambda name: _nan_last(found[name])),
                "oracle": _only(group.filter(oracle & top1).select(value)),
                "independent": _only(group.filter(oracle & mark).select(value)),
                "gain": _only(group.filter(pl.col("metric") == "oracle_gain").select(value)),
            }
        )
    kinds = dict.fromkeys(["chance", *names, *_ORACLES], pl.Float64)
    schema = {**dict.fromkeys(_GROUP, pl.String), "n": pl.Int64, **kinds, "best": pl.String}
    order = [*_GROUP, "n", "chance", *names, "best", *_ORACLES]
    return pl.DataFrame(rows, schema={name: schema[name] for name in order})


def accuracy_table(tidy: pl.DataFrame, *, terminal: bool | None = None) -> str:
    """`accuracy_frame` as text: percent, gain in points, the best backbone of each row in bold.

    What all rows have in common, a split, the prompts, a tag, is said once, below the table.
    """
    frame = accuracy_frame(tidy)
    if frame.is_empty():
        return "no accuracy to show"
    names = frame.columns[len(_GROUP) + 2 : -1 - len(_ORACLES)]
    common = [name for name in ("split", "prompts") if frame[name].n_unique() == 1]
    short, pattern = shortened(names)
    bold = {
        (number, name)
        for number, row in enumerate(frame.iter_rows(named=True))
        for name in names
        if row[name] == row[row["best"]]  # NaN is not even equal to itself
    }
    text = show(
        frame.drop(common).with_columns(pl.col("best").replace(short)),
        percent=["chance", *names, *_ORACLES],
        headers=column_heads(short) | {"independent": "indep."},
        bold=bold,
        terminal=terminal,
    )
    said = [f"{name} {frame[name][0]}" for name in common]
    if pattern:
        said.append(f"backbones {pattern}")
    notes = ["zero-shot top-1 accuracy in %", *said]
    return (
        f"{text}\n\n{'; '.join(notes)}.\n"
        "oracle: share of images that at least one backbone gets right. indep.: what it would "
        "be if errors\nwere independent within each class, an upper mark; with few images a class "
        "it says little. gain: the\nlead of the oracle in points over the best single backbone, "
        "which is chosen row by row on these very\nimages."
        + ("" if _same_images(tidy) else _COMMON_IMAGES)
        + legend(short)
    )


def backbone_tables(tidy: pl.DataFrame, *, terminal: bool | None = None) -> str:
    """A table for each dataset, split, perturbation and prompt set: a line a backbone.

    Top-1 with its 95 % interval, top-5 and mean per-class recall in percent, n; the oracle below.
    """
    tables = []
    for (dataset, split, perturbation, prompts), group in tidy.group_by(
        *_GROUP, maintain_order=True
    ):
        title = f"{dataset}/{split} · {perturbation} · prompts {prompts}"
        chance = _only(group.filter(_is_chance()).select("value"))
        title += "" if chance is None else f" · chance {100 * chance:.1f} %"
        tables.append(_backbone_table(group, title, terminal))
    return "\n\n".join(tables) or "no accuracy to show"


def interval_text(low: float | None, high: float | None) -> str:
    """Two fractions as percent, with an en dash between them, or "to" beside a minus sign."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return NOTHING
    between = " to " if low < 0 else "\N{EN DASH}"
    return f"{100 * low:.1f}{between}{100 * high:.1f}"


def shortened(names: Sequence[str]) -> tuple[dict[str, str], str]:
    """Short names of backbones, and what was cut off: "tiny-*/zoo", or nothing.

    Cut off is what all names begin with, up to a hyphen, and end with, from a slash.
    """
    prefix, tag = _pattern(names)
    short = {name: name.removeprefix(prefix).removesuffix(tag) for name in names}
    return short, f"{prefix}*{tag}" if prefix or tag else ""


def column_heads(short: Mapping[str, str]) -> dict[str, str]:
    """Heads of columns that are backbones: narrower where there are many, numbers from a dozen on.

    short: what each name is shown as; `legend` says what numbers stand for.
    """
    if len(short) >= _NUMBERED:
        return {name: str(number) for number, name in enumerate(short, 1)}
    width = 9 if len(short) <= _MANY else 7
    return {name: wrapped(text, width) for name, text in short.items()}


def legend(short: Mapping[str, str]) -> str:
    """A paragraph for below the table, or nothing where the heads are names."""
    if len(short) < _NUMBERED:
        return ""
    numbers = (f"{number}\N{NO-BREAK SPACE}{text}" for number, text in enumerate(short.values(), 1))
    return "\n" + fill(", ".join(numbers) + ".", WIDTH).replace("\N{NO-BREAK SPACE}", " ")


def _backbone_table(group: pl.DataFrame, title: str, terminal: bool | None) -> str:
    rows = [
        _backbone_row(name, part)
        for (name,), part in group.filter(_is_single()).group_by("backbones", maintain_order=True)
    ]
    best = max(rows, key=lambda row: _nan_last(row["top-1"]))
    oracle = group.filter(pl.col("ensemble") == "oracle")
    marks = {row["metric"]: row for row in oracle.to_dicts()}
    if marks:
        rows.append(_backbone_row("oracle", oracle))
    frame = pl.DataFrame(rows)
    unused = [name for name in ("top-5", "mean per class") if frame[name].null_count() == len(rows)]
    text = show(
        frame.drop(unused),
        title=title,
        percent=["top-1", "top-5", "mean per class"],
        right=["95 % interval"],
        bold={(r, "top-1") for r, row in enumerate(rows) if row["top-1"] == best["top-1"]},
        terminal=terminal,
    )
    if marks and not is_nan((gain := marks["oracle_gain"])["value"]):
        interval = interval_text(gain["ci_low"], gain["ci_high"])
        over = f"here, {best['backbone']}" if _same_images(group) else "on the images that all have"
        text += (
            f"\noracle: {100 * gain['value']:+.1f} points ({interval}) over the best single "
            f"backbone {over};\nif errors were independent within each class it would be "
            f"{100 * marks['acc1_independent']['value']:.1f} %"
        )
    return text


def _same_images(tidy: pl.DataFrame) -> bool:
    """Whether accuracies are of the same images, those of one backbone and of the oracle."""
    top1 = tidy.filter(pl.col("metric") == "acc1", ~_is_chance().fill_null(False))
    return bool((top1.group_by(*_GROUP).agg(pl.col("n").n_unique())["n"] == 1).all())


def _backbone_row(name: str, part: pl.DataFrame) -> dict[str, Any]:
    by_metric = {row["metric"]: row for row in part.to_dicts()}
    top1 = by_metric["acc1"]
    return {
        "backbone": name,
        "top-1": top1["value"],
        "95 % interval": interval_text(top1["ci_low"], top1["ci_high"]),
        "top-5": by_metric.get("acc5", {}).get("value"),
        "mean per class": by_metric.get("mean_per_class_recall", {}).get("value"),
        "n": top1["n"],
    }


def _is_single() -> pl.Expr:
    return pl.col("ensemble").is_null()


def _is_chance() -> pl.Expr:
    return pl.col("ensemble") == "chance"


def _only(column: pl.DataFrame) -> float | None:
    return column.item() if len(column) else None


def _nan_last(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _pattern(names: Sequence[str]) -> tuple[str, str]:
    """What all names begin with, up to a hyphen, and end with, from a slash: "tiny-", "/zoo".

    What is left of each name begins with a letter: "ViT-B-16" and "ViT-B-32" share "ViT-" only.
    """
    if len(names) < 2:
        return "", ""
    prefix = ""
    for parts in zip(*(name.split("-")[:-1] for name in names), strict=False):
        longer = f"{prefix}{parts[0]}-"
        if len(set(parts)) > 1:
            break
        if all(name.removeprefix(longer)[:1].isalpha() for name in names):
            prefix = longer
    tags = {"/" + name.rpartition("/")[2] if "/" in name else "" for name in names}
    return prefix, tags.pop() if len(tags) == 1 else ""


def _texts(column: pl.Series, percent: bool) -> list[str]:
    if percent:
        return [_text(value, 1) for value in (100.0 * column).to_list()]
    values = column.to_list()
    decimals = _decimals(values)
    return [_text(value, decimals) for value in values]


def _text(value: Any, decimals: int) -> str:
    if value is None or is_nan(value):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{round(value, decimals) + 0.0:,.{decimals}f}"  # no -0.0
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _decimals(values: list[Any]) -> int:
    """Decimals that keep three digits of the largest number, fewer where all are round."""
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    largest = max(map(abs, floats), default=0)
    most = next((places for bound, places in ((100, 1), (1, 2)) if largest >= bound), 3)
    rounded = [round(v, most) for v in floats]
    return next((p for p in range(most) if all(round(v, p) == v for v in rounded)), most)

"""What a table is about, as text: its title, and what all its lines have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from clipsyn.show.numbers import shots_text

_PHRASES = {"prompts": "prompts {}", "head": "head {}", "n": "n {:,}"}
_PLURALS = {"prompts": "prompt sets"}


def title(*phrases: str | None) -> str:
    """ "birds/test · clean · prompts own": phrases that are empty are left out."""
    return " · ".join(phrase for phrase in phrases if phrase)


def where(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """What a row of results is about, a phrase for each of the columns, null left out.

    "birds/test" for dataset and split together, "prompts own", "head zero-shot", "n 1,500"; values
    of other columns stand for themselves.
    """
    about = {name: row[name] for name in columns if row[name] is not None}
    if "dataset" in about and "split" in about:
        about["dataset"] = f"{about['dataset']}/{about.pop('split')}"
    return [_PHRASES.get(name, "{}").format(value) for name, value in about.items()]


def common(frame: pl.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Those of the columns that have one value in all rows, with that value."""
    return {name: str(frame[name][0]) for name in columns if frame[name].n_unique() == 1}


def mean_over(frame: pl.DataFrame, columns: Sequence[str]) -> str:
    """ "mean over 3 datasets": what differs between the rows; empty where nothing does.

    "mean over 6 combinations of dataset, split" where several columns differ.
    """
    kinds = [name for name in columns if frame[name].n_unique() > 1]
    if not kinds:
        return ""
    count = frame.select(kinds).n_unique()
    if len(kinds) > 1:
        return f"mean over {count} combinations of {', '.join(kinds)}"
    return f"mean over {count} {_PLURALS.get(kinds[0], f'{kinds[0]}s')}"


def subject(frame: pl.DataFrame, columns: Sequence[str]) -> str:
    """What means over datasets are of, or the one dataset: "mean over 3 datasets · test · clean".

    frame: has the number of datasets in a column `datasets`, and no `dataset` where that is over 1.
    """
    over = frame.select(pl.col("datasets").max()).item()
    mean = f"mean over {over} datasets" if frame["dataset"][0] is None else ""
    return title(mean, *where(frame.row(0, named=True), columns))


def typical_interval(frame: pl.DataFrame) -> str:
    """ "95 % interval about ±2.1": half of the width of the median one; empty where none is known.

    frame: values are shares, and the text is in points.
    """
    half = (frame["ci_high"] - frame["ci_low"]).fill_nan(None).median()
    return "" if half is None else f"95 % interval about ±{50 * float(half):.1f}"  # type: ignore[arg-type]


def fitted_on(frame: pl.DataFrame) -> str:
    """ "16 shots": what the ensembles of a frame were fitted on; empty where nothing is fitted."""
    shots = frame.filter(pl.col("shots").is_null() | (pl.col("shots") > 0))["shots"]
    return "" if shots.is_empty() else shots_text(shots[0])

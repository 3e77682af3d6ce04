"""Methods compared pair by pair: a file of predictions to a frame, a row for each pair.

The difference of a pair is that of accuracies over the same images and the same draws. Several
datasets also have rows of means over them, with `dataset` null; an image that stands in several is
one piece of evidence in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.paired import PairedSettings
from clipsyn.evaluation.paired.answers import PLACE, Answered, Choice, words_of
from clipsyn.evaluation.paired.measures import Difference, Seeds, Sides, difference, matched
from clipsyn.evaluation.results.frame import UNFITTED, Row
from clipsyn.evaluation.settings import predictions_of
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.stats.images import Images
from clipsyn.stats.significance import holm
from clipsyn.text import advised

PAIRS: dict[str, Any] = {
    "dataset": pl.String,  # null for the mean over datasets
    "datasets": pl.Int32,  # how many that is over
    **dict.fromkeys(PLACE, pl.String),
    "head": pl.String,
    "first": pl.String,
    "second": pl.String,
    "shots": pl.String,  # "full" for the whole support, "0" where nothing is fitted
    "draws": pl.Int32,  # 0 where nothing is drawn
    "n": pl.Int64,
    "distinct": pl.Int64,  # of these images, the others being copies
    "first_acc1": pl.Float64,
    "second_acc1": pl.Float64,
    "difference": pl.Float64,
    "ci_low": pl.Float64,  # over images
    "ci_high": pl.Float64,
    "both_low": pl.Float64,  # over draws and images; NaN where there is one draw
    "both_high": pl.Float64,
    "only_first": pl.Float64,  # images; means over draws
    "only_second": pl.Float64,
    "mcnemar": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "comparisons": pl.Int32,  # that it is corrected for
    "tie": pl.Boolean,  # p_holm is 0.05 or more
}
LEVEL = 0.05


def measure(
    path: Path, settings: PairedSettings, first: str | None = None, second: str | None = None
) -> pl.DataFrame:
    """A frame with the columns of `PAIRS`; see `clipsyn.evaluation.paired.compare_methods`."""
    if second is not None and first == second:
        raise UsageError(f"{first} is compared with itself: name another method")
    path = beside if (beside := predictions_of(path)).exists() else path
    choice = Choice(path, settings, [name for name in (first, second) if name is not None])
    if first is None and CHOSEN in choice.methods:
        first = CHOSEN
    rows = [
        {**place, "head": settings.head, **row, "shots": _shots(choice, row)}
        for place, sets in choice.places()
        for row in _compared(sets, [*combinations(choice.methods, 2)])
    ]
    _adjust(rows)
    shown = [
        row for row in rows if first in (None, row["first"]) and second in (None, row["second"])
    ]
    if not shown:
        names = [first, second] if first and second else choice.methods
        raise UsageError(
            f"{path} has no two of {', '.join(names)} on the same images and draws: add "
            f"some with `{advised(*words_of(path))}`"
        )
    return pl.DataFrame(shown, schema=PAIRS)


def _shots(choice: Choice, row: Row) -> str:
    """Images a class that a pair is fitted on; "0" where both learn nothing."""
    fitted = choice.is_fitted(row["first"]) or choice.is_fitted(row["second"])
    return choice.shots if fitted else UNFITTED


def _compared(sets: Sequence[Answered], pairs: Iterable[tuple[str, str]]) -> list[Row]:
    """Rows of each pair at one place: of each dataset, and of their mean."""
    images = Images.of_sets([one.marks for one in sets]) if sets else []
    rows = []
    for pair in pairs:
        seeds = {at: _seeds(one, pair) for at, one in enumerate(sets)}
        there = {at: found for at, found in seeds.items() if found}
        sides = {at: _sides(sets[at], pair, found) for at, found in there.items()}
        for at in there:
            of_one = difference([sides[at]], [images[at]])
            rows.append(_row(pair, of_one, sets[at].dataset, sides[at]))
        if len(there) > 1:
            of_all = difference([*sides.values()], [images[at] for at in there])
            rows.append(_row(pair, of_all))
    return rows


def _seeds(one: Answered, pair: tuple[str, str]) -> Seeds:
    """The draws that a dataset has of both; none where it lacks a method."""
    if not all(name in one.right for name in pair):
        return []
    return matched(*(one.right[name] for name in pair))


def _sides(one: Answered, pair: tuple[str, str], seeds: Seeds) -> Sides:
    return Sides.of(one.right[pair[0]], one.right[pair[1]], seeds)


def _row(
    pair: tuple[str, str], found: Difference, dataset: str | None = None, sides: Sides | None = None
) -> Row:
    only = sides.only() if sides else (None, None)
    return {
        "dataset": dataset,
        "datasets": found.datasets,
        "first": pair[0],
        "second": pair[1],
        "draws": found.draws,
        "n": found.n,
        "distinct": found.distinct,
        "first_acc1": found.first,
        "second_acc1": found.second,
        "difference": found.value,
        "ci_low": found.images.low,
        "ci_high": found.images.high,
        "both_low": found.both.low,
        "both_high": found.both.high,
        "only_first": only[0],
        "only_second": only[1],
        "mcnemar": found.mcnemar if sides else None,
        "p": found.p,
    }


def _adjust(rows: Sequence[Row]) -> None:
    """Give rows `p_holm`, `comparisons` and `tie`.

    A family is all pairs of methods on one dataset, or in the mean, whichever of them are shown.
    """
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        families.setdefault(tuple(row[name] for name in ("dataset", *PLACE)), []).append(row)
    for members in families.values():
        adjusted = holm(np.array([row["p"] for row in members]))
        count = int(np.count_nonzero(~np.isnan(adjusted)))
        for row, p_value in zip(members, adjusted.tolist(), strict=True):
            row |= {"p_holm": p_value, "comparisons": count, "tie": not p_value < LEVEL}

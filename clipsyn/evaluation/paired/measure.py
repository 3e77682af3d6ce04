"""Methods compared pair by pair: a file of predictions to a frame, a row for each pair.

The difference of a pair is that of accuracies over the same images and the same draws. Several
datasets also have rows of means over them, with `dataset` null; an image that stands in several is
one piece of evidence in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.errors import UsageError
from clipsyn.evaluation.paired import PairedSettings
from clipsyn.evaluation.paired.answers import PLACE, Answered, Choice, Draws, words_of
from clipsyn.evaluation.results.frame import Row
from clipsyn.evaluation.settings import predictions_of
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.settings import UNFITTED
from clipsyn.stats.differences import Crossed, crossed, holm, paired
from clipsyn.stats.images import Images, shown_by_all
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
Seeds = list[tuple[int | None, int | None]]  # of two methods: the same draw, or none


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


def _compared(sets: Sequence[Answered], pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Rows of each pair at one place: of each dataset, and of their mean."""
    images = Images.of_sets([one.marks for one in sets]) if sets else []
    rows: list[Row] = []
    for first, second in pairs:
        both: list[tuple[str, Sides, Images]] = []
        for one, shown in zip(sets, images, strict=True):
            if {first, second} <= one.right.keys():
                of_both = one.right[first], one.right[second]
                if seeds := matched(*of_both):
                    both.append((one.dataset, Sides.of(*of_both, seeds), shown))
        names: Row = {"first": first, "second": second}
        for dataset, sides, shown in both:
            rows.append(names | {"dataset": dataset} | difference([sides], [shown]))
        if len(both) > 1:
            _, every, shown_by_each = zip(*both, strict=True)
            rows.append(names | {"dataset": None} | difference(every, shown_by_each))
    return rows


def matched(first: Draws, second: Draws) -> Seeds:
    """The draws on which two methods are compared; none where they have none in common."""
    one, other = ([seed for seed in side if seed is not None] for side in (first, second))
    if not one and not other:
        return [(None, None)]
    seeds = [seed for seed in one if seed in other] if one and other else one or other
    return [(seed if one else None, seed if other else None) for seed in seeds]


class Sides(NamedTuple):
    """Two methods on one dataset: where each is right, (draw, sample), the same draws of both."""

    first: NDArray[np.bool_]
    second: NDArray[np.bool_]
    drawn: bool  # False where nothing of either is drawn

    @classmethod
    def of(cls, first: Draws, second: Draws, seeds: Seeds) -> Sides:
        return cls(
            np.stack([first[seed] for seed, _ in seeds]),
            np.stack([second[seed] for _, seed in seeds]),
            seeds != [(None, None)],
        )

    @property
    def draws(self) -> int:
        return len(self.first) if self.drawn else 0

    @property
    def lead(self) -> NDArray[np.int8]:
        """(draw, sample): 1 where the first alone is right, -1 where the second alone is."""
        return self.first.astype(np.int8) - self.second

    def only(self) -> tuple[float, float]:
        """Numbers of images that one alone gets right, means over draws."""
        first, second = (np.count_nonzero(self.lead == sign) for sign in (1, -1))
        return first / len(self.first), second / len(self.first)

    def mcnemar(self, images: Images) -> float:
        """p over images alone, that both are right as often; the draws and copies of an image go
        together.
        """
        return paired(images.sums(self.lead.T).sum(axis=1).astype(np.int64))


def difference(sides: Sequence[Sides], images: Sequence[Images]) -> Row:
    """How much more often the first of two methods is right: the mean over datasets, as in `PAIRS`.

    images: as `clipsyn.stats.differences.crossed` takes them. Where nothing is drawn, and where
    there is one draw, p is over images alone: McNemar's of one dataset. With several draws it is
    over draws and images, and no smaller than McNemar's.
    """
    lead = [one.lead for one in sides]
    several = crossed(lead, images, drawn=[one.drawn for one in sides])
    alone = crossed(lead, images, drawn=[False] * len(sides))
    is_mean, draws = len(sides) > 1, max(one.draws for one in sides)
    exact = math.nan if is_mean else sides[0].mcnemar(images[0])
    first = float(np.mean([one.first.mean() for one in sides]))
    second = float(np.mean([one.second.mean() for one in sides]))
    only = (None, None) if is_mean else sides[0].only()
    together = several.p_value() if draws else math.nan
    return {
        "datasets": len(sides),
        "draws": draws,
        "n": sum(map(len, images)),
        "distinct": shown_by_all(images),
        "first_acc1": first,
        "second_acc1": second,
        "difference": first - second,
        **dict(zip(("ci_low", "ci_high"), alone.interval(), strict=True)),
        **dict(zip(("both_low", "both_high"), several.interval(), strict=True)),
        **dict(zip(("only_first", "only_second"), only, strict=True)),
        "mcnemar": None if is_mean else exact,
        "p": _p(together, exact, alone, _differing(sides, images)),
    }


def _p(together: float, exact: float, alone: Crossed, differing: int) -> float:
    """together: over draws and images, NaN where that is not known. exact: McNemar's, if any.

    differing: images on which the two are not right as often.
    """
    over_images = exact
    if math.isnan(exact):  # few images cannot say more than if all of them agreed
        over_images = max(alone.p_value(), 2.0 ** min(0, 1 - differing))
    return over_images if math.isnan(together) else max(together, over_images)


def _differing(sides: Sequence[Sides], images: Sequence[Images]) -> int:
    both = zip(sides, images, strict=True)
    return len(np.unique(np.concatenate([of.number[one.lead.any(axis=0)] for one, of in both])))


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

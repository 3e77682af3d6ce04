"""How two methods differ on the same images: arrays to numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.stats.differences import Crossed, crossed
from clipsyn.stats.images import Images, shown_by_all
from clipsyn.stats.intervals import Interval
from clipsyn.stats.significance import paired

Draws = Mapping[int | None, NDArray[np.bool_]]  # by seed, (sample,); None where nothing is drawn
Seeds = list[tuple[int | None, int | None]]  # of two methods: the same draw, or none


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


class Difference(NamedTuple):
    """How much more often the first of two methods is right: the mean over datasets."""

    first: float
    second: float
    datasets: int
    draws: int
    n: int
    distinct: int  # images, of which the others are copies
    images: Interval  # over images alone
    both: Interval  # over draws and images
    mcnemar: float  # NaN for a mean
    p: float

    @property
    def value(self) -> float:
        return self.first - self.second


def difference(sides: Sequence[Sides], images: Sequence[Images]) -> Difference:
    """The mean difference over datasets, with intervals and p.

    images: as `clipsyn.stats.differences.crossed` takes them. Where nothing is drawn, and where
    there is one draw, p is over images alone: McNemar's of one dataset. With several draws it is
    over draws and images, and no smaller than McNemar's.
    """
    lead = [one.lead for one in sides]
    several = crossed(lead, images, drawn=[one.drawn for one in sides])
    alone = crossed(lead, images, drawn=[False] * len(sides))
    exact = sides[0].mcnemar(images[0]) if len(sides) == 1 else math.nan
    draws = max(one.draws for one in sides)
    return Difference(
        float(np.mean([one.first.mean() for one in sides])),
        float(np.mean([one.second.mean() for one in sides])),
        len(sides),
        draws,
        sum(map(len, images)),
        shown_by_all(images),
        alone.interval(),
        several.interval(),
        exact,
        _p(several.p_value() if draws else math.nan, exact, alone, _differing(sides, images)),
    )


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

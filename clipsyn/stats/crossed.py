"""Means over images and draws together, which are crossed: each draw is measured on each image.

What is fitted on one draw of the labelled images errs in its own way, so that images alone do not
say how far a difference is to be trusted. The variance of a mean over both is that of the random
effects of a two-way layout (Searle, Casella and McCulloch, Variance Components, 1992): of the means
of the images, plus that of the means of the draws, less that of what is in both, and never below
that over images alone. Degrees of freedom are Satterthwaite's (1946); few draws have few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.stats.images import Images
from clipsyn.stats.intervals import LEVEL, UNKNOWN, Interval, check_level


class Crossed(NamedTuple):
    """A mean, its variance, and the degrees of freedom of that; NaN where they cannot be known."""

    mean: float
    variance: float
    freedom: float

    def interval(self, level: float = LEVEL) -> Interval:
        """Student's t interval of the mean."""
        from scipy.special import stdtrit

        check_level(level)
        if math.isnan(self.variance):
            return UNKNOWN
        half = float(stdtrit(self.freedom, (1 + level) / 2)) * math.sqrt(self.variance)
        return Interval(self.mean - half, self.mean + half)

    def p_value(self) -> float:
        """Two-sided, that the mean is 0; 1 where all values are equal to it."""
        from scipy.special import stdtr

        if math.isnan(self.variance):
            return math.nan
        if self.variance == 0:
            return float(self.mean == 0)
        return 2 * float(stdtr(self.freedom, -abs(self.mean) / math.sqrt(self.variance)))


def crossed(
    values: Sequence[NDArray[Any]],
    images: Sequence[Images] | None = None,
    *,
    drawn: Sequence[bool] | None = None,
) -> Crossed:
    """The mean over sets of equal weight, each (draw, sample), of the means of their values.

    images: of each set, whose numbers tell which rows show the same image: that counts as one, in
    a set and in all sets; None where no image has a copy. drawn: for each set
    whether its rows are draws at random, None for all; the variance is NaN where such a set has one
    draw only. Draws of different sets are independent.
    """
    if not values or any(rows.ndim != 2 or not rows.size for rows in values):
        raise ValueError("values are (draw, sample) for each set, none of them empty")
    means = [rows.mean(axis=0, dtype=np.float64) for rows in values]
    shown: Sequence[Images | None] = images or [None] * len(values)
    variance, freedom = _over_images(means, shown)
    mean, share = float(np.mean([of_images.mean() for of_images in means])), len(values) ** 2
    random = [True] * len(values) if drawn is None else drawn
    sets = zip(values, shown, random, strict=True)
    parts = [_over_draws(rows, of) for rows, of, is_drawn in sets if is_drawn]
    spread = variance**2 / freedom
    spread += sum((of_draws / share) ** 2 / free for of_draws, _, free in parts)
    added = sum(of_draws - of_both for of_draws, of_both, _ in parts) / share
    variance += added if math.isnan(added) else max(added, 0.0)
    return Crossed(mean, variance, variance**2 / spread if spread else freedom)


def _over_images(
    means: Sequence[NDArray[np.float64]], images: Sequence[Images | None]
) -> tuple[float, float]:
    """The variance of the mean of sets over images, and its degrees of freedom.

    NaN where a set has one image.
    """
    counts = [_count(of, len(one)) for one, of in zip(means, images, strict=True)]
    if min(counts) < 2:
        return math.nan, 1.0
    shares = np.concatenate(
        [
            (one - one.mean()) / (len(one) * math.sqrt(1 - 1 / count) * len(means))
            for one, count in zip(means, counts, strict=True)
        ]
    )
    if known := [of.number for of in images if of is not None]:
        _, number = np.unique(np.concatenate(known), return_inverse=True)
        shares = np.bincount(number, shares)
    return float(shares @ shares), float(max(1, len(shares) - len(means)))


def _count(images: Images | None, n: int) -> int:
    """How many distinct images a set of n samples has."""
    return n if images is None else len(np.unique(images.number))


def _over_draws(values: NDArray[Any], images: Images | None) -> tuple[float, float, int]:
    """Of the mean of one set (draw, sample): the variance over draws, what of it is that of draws
    on single images, and the degrees of freedom.
    """
    (draws, n), count = values.shape, _count(images, values.shape[1])
    if draws < 2:
        return math.nan, math.nan, 1
    of_draws = values.mean(axis=1, dtype=np.float64)
    rest = values - of_draws[:, None] - values.mean(axis=0, dtype=np.float64) + of_draws.mean()
    if images is not None:
        rest = images.sums(rest.T)
    both = float((rest**2).sum()) / max(1, (draws - 1) * (count - 1)) * count / n
    return float(of_draws.var(ddof=1)) / draws, both / (n * draws), draws - 1

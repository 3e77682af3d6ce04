"""Differences between two methods: means over images, and over draws crossed with them.

One rule for every difference of accuracies that is printed. Two images are added, one that each
method alone gets right (Bonett and Price 2012): where few images differ, or none, their variance
says next to nothing of the differences that there might be. The interval is Student's.

Where methods are fitted on draws of the labelled images, each errs in its own way, so that images
alone do not say how far a difference is to be trusted. The variance of a mean over both is that of
the random effects of a two-way layout (Searle, Casella and McCulloch, Variance Components, 1992):
of the means of the images, plus that of the means of the draws, less that of what is in both, and
never below that over images alone. Degrees of freedom are Satterthwaite's (1946); few draws have
few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.stats.images import Images, shown_by_all, variance_of_mean
from clipsyn.stats.intervals import LEVEL, UNKNOWN, Interval, check_level, student


class Crossed(NamedTuple):
    """A mean, its variance, and the degrees of freedom of that; NaN where they cannot be known."""

    mean: float
    variance: float
    freedom: float

    def interval(self, level: float = LEVEL) -> Interval:
        """Student's t interval of the mean."""
        check_level(level)
        if math.isnan(self.variance):
            return UNKNOWN
        half = student(self.freedom, level) * math.sqrt(self.variance)
        return Interval(self.mean - half, self.mean + half)

    def p_value(self) -> float:
        """Two-sided, that the mean is 0."""
        from scipy.special import stdtr

        if math.isnan(self.variance):
            return math.nan
        return 2 * float(stdtr(self.freedom, -abs(self.mean) / math.sqrt(self.variance)))


def crossed(
    values: Sequence[NDArray[Any]],
    images: Sequence[Images],
    *,
    drawn: Sequence[bool] | None = None,
) -> Crossed:
    """The mean over sets of equal weight, each (draw, sample), of the means of their values.

    values: how much more often the first of two methods is right, from -1 to 1. images: of each
    set, whose numbers tell which rows show the same image: that counts as one, in a set and in all
    sets. drawn: for each set whether its rows are draws at random, None for all; the variance is
    NaN where such a set has one draw only. Draws of different sets are independent. In each set two
    images are added, of values 1 and -1; so the mean is a little closer to 0 than that of the
    values.
    """
    if not values or any(rows.ndim != 2 or not rows.size for rows in values):
        raise ValueError("values are (draw, sample) for each set, none of them empty")
    sizes = np.array([of.effective for of in images])
    kept = sizes / (sizes + 2)  # of a mean, beside the images that are added
    means = [
        share * rows.mean(axis=0, dtype=np.float64)
        for rows, share in zip(values, kept, strict=True)
    ]
    distinct, share = shown_by_all(images), len(values) ** 2
    variance, freedom = variance_of_mean(means, images), float(max(1, distinct - len(values)))
    mean = float(np.mean([of_images.mean() for of_images in means]))
    shared = sum(of.shown for of in images) / distinct  # by how many sets an image is, in the mean
    variance += shared * float((2 / (sizes + 2) ** 2).sum()) / share
    random = [True] * len(values) if drawn is None else drawn
    sets = zip(values, images, random, strict=True)
    parts = [_over_draws(rows, of) for rows, of, is_drawn in sets if is_drawn]
    spread = variance**2 / freedom
    spread += sum((of_draws / share) ** 2 / free for of_draws, _, free in parts)
    added = sum(of_draws - of_both for of_draws, of_both, _ in parts) / share
    variance += added if math.isnan(added) else max(added, 0.0)
    return Crossed(mean, variance, variance**2 / spread)


def difference_interval(leads: Sequence[NDArray[Any]], images: Sequence[Images]) -> Interval:
    """Of the mean over sets of leads (sample,) of one method over another; NaN without samples."""
    if not all(map(len, leads)):
        return UNKNOWN
    return crossed([lead[None] for lead in leads], images, drawn=[False] * len(leads)).interval()


def ratio_interval(
    first: Sequence[NDArray[Any]], second: Sequence[NDArray[Any]], images: Sequence[Images]
) -> Interval:
    """Of the mean accuracy of one method over that of another, right (sample,) in each set.

    That of the difference of what the first has and of what it would have at this ratio, over the
    accuracy of the second. NaN without samples, or where the second is never right.
    """
    below = float(np.mean([rows.mean() for rows in second])) if all(map(len, second)) else 0.0
    if not below > 0:
        return UNKNOWN
    ratio = float(np.mean([rows.mean() for rows in first])) / below
    leads = [one - ratio * other for one, other in zip(first, second, strict=True)]
    low, high = difference_interval(leads, images)
    return Interval(ratio + low / below, ratio + high / below)


def _over_draws(values: NDArray[Any], images: Images) -> tuple[float, float, int]:
    """Of the mean of one set (draw, sample): the variance over draws, what of it is that of draws
    on single images, and the degrees of freedom.
    """
    (draws, n), count = values.shape, images.shown
    if draws < 2:
        return math.nan, math.nan, 1
    of_draws = values.mean(axis=1, dtype=np.float64)
    rest = values - of_draws[:, None] - values.mean(axis=0, dtype=np.float64) + of_draws.mean()
    rest = images.sums(rest.T)
    both = float((rest**2).sum()) / max(1, (draws - 1) * (count - 1)) * count / n
    return float(of_draws.var(ddof=1)) / draws, both / (n * draws), draws - 1

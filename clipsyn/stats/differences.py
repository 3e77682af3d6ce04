"""Differences between two methods: means over images, and over draws crossed with them; tests.

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
from clipsyn.stats.intervals import UNKNOWN, Interval, student

_LEAST = 1e-12  # p-value that a Fourier transform tells from 0
_FAR = 9  # standard deviations, beyond which a sum of signs is with less than 1e-17 (Hoeffding)


class Crossed(NamedTuple):
    """A mean, its variance, and the degrees of freedom of that; NaN where they cannot be known."""

    mean: float
    variance: float
    freedom: float

    def interval(self) -> Interval:
        """Student's t interval of the mean, within -1 and 1: it is of differences of shares."""
        if math.isnan(self.variance):
            return UNKNOWN
        half = student(self.freedom) * math.sqrt(self.variance)
        return Interval(max(-1.0, self.mean - half), min(1.0, self.mean + half))

    def p_value(self) -> float:
        """Two-sided, that the mean is 0."""
        from scipy.special import stdtr

        if math.isnan(self.variance):
            return math.nan
        return 2 * float(stdtr(self.freedom, -abs(self.mean) / math.sqrt(self.variance)))


def crossed(
    values: Sequence[NDArray[Any]], images: Sequence[Images], drawn: Sequence[bool]
) -> Crossed:
    """The mean over sets of equal weight, each (draw, sample), of the means of their values.

    values: how much more often the first of two methods is right, from -1 to 1. images: of each
    set, whose numbers tell which rows show the same image: that counts as one, in a set and in all
    sets. drawn: for each set whether its rows are draws at random; the variance is NaN where such a
    set has one draw only. Draws of different sets are independent. In each set two
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
    sets = zip(values, images, drawn, strict=True)
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


# exact tests: whether two methods differ, and which of many differences hold together


def paired(sums: NDArray[np.integer[Any]]) -> float:
    """Exact two-sided p-value that two methods are right equally often on the same images.

    sums: (image,) how much more often the first is right, over the copies of an image and over
    draws, which go together. `mcnemar`, or `flipped` where a sum is above 1.
    """
    if np.abs(sums).max(initial=0) > 1:
        return flipped(sums)
    return mcnemar(int((sums > 0).sum()), int((sums < 0).sum()))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that two methods are right equally often on the same samples.

    only_first, only_second: samples that one of them alone gets right. Given their sum they are
    binomial with one half (McNemar 1947, in its exact form); 1 where there is none.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    log_factorial = np.concatenate([[0.0], np.log(np.arange(1, n + 1)).cumsum()])
    k = np.arange(fewer + 1)
    log_choose = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    return min(1.0, 2 * float(np.exp(log_choose - n * np.log(2)).sum()))


def flipped(sums: NDArray[np.integer[Any]]) -> float:
    """Exact two-sided p-value that whole numbers (n,) are as often above 0 as below, all sizes.

    The distribution of their sum is that of all 2^n signs. Of two methods' correctness, summed over
    several draws for each image and one less the other, it is McNemar's test with the draws of an
    image kept together; with one draw it is `mcnemar`. By a discrete Fourier transform, so that
    values below 1e-12 are given as that.
    """
    sizes = np.bincount(np.abs(sums))
    numbers = np.arange(len(sizes))
    distance, spread = int(abs(sums.sum())), math.sqrt(sizes @ numbers**2)
    reach = min(int(sizes @ numbers), math.ceil(_FAR * spread))
    if distance == 0 or distance > reach:
        return 1.0 if distance == 0 else _LEAST
    angles = 2 * np.pi * np.arange(2 * reach + 1) / (2 * reach + 1)
    waves = np.ones(len(angles))
    for size in numbers[1:]:
        waves *= np.cos(size * angles) ** sizes[size]
    share = np.fft.fft(waves).real / len(waves)  # of the signs that give a sum of 0, 1, …, -1
    return float(np.clip(2 * share[distance : reach + 1].sum(), _LEAST, 1.0))


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's (1979) adjusted p-values (m,): below a level, they hold together at that level.

    The k-th smallest times m + 1 - k, never below a smaller one's and at most 1. NaN stays NaN
    and counts as no test.
    """
    adjusted = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * factors))
    return adjusted

"""Intervals: of shares, of a mean loss, by a jackknife (Tukey 1958), of correlations.

Of correlations over datasets the percentile bootstrap is too narrow for so few pairs: with 7, its
95 % intervals of Pearson's r hold the truth in 88 % of draws, those here in 94 % (normal values,
correlated by 0.6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.stats.images import Images, shown_by_all, variance_of_mean

LEVEL = 0.95
_NORMAL = NormalDist().inv_cdf((1 + LEVEL) / 2)  # standard errors to each side
LEAST_WRONG = 5  # images, below which a mean loss has no interval
_FEW = 3  # successes, or failures
GROUPS = 20  # of a jackknife: more take longer, fewer make the interval unsure
_ROUNDING = 1e-9
_FARTHEST = 100.0  # logarithm of how far an end can be from its number
_ALONE = 1 + _ROUNDING  # images that say as much as those of a class, where all are copies of one
_FEWEST = 3  # points: two are always on a line
_CONSTANT = 1e-12  # of the largest value: what rounding makes of no difference


class Interval(NamedTuple):
    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


def wilson_interval(successes: float, n: float) -> Interval:
    """Wilson (1927) score interval for a proportion; NaN for n = 0.

    Unlike the normal one it stays inside 0..1 and has a width at 0 % and 100 %. Where successes or
    failures are 3 or fewer, that end is Poisson's (Brown, Cai and DasGupta 2001, 4.1.1): Wilson's
    covers 84 % there. n: where images have copies, as many as say as much without
    (`Images.effective`), and successes out of these.
    """
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return UNKNOWN
    z, share = _NORMAL, successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = min(centre - half, _rare(successes) / n)
    high = max(centre + half, 1 - _rare(n - successes) / n)
    return Interval(max(0.0, low), min(1.0, high))


def _rare(events: float) -> float:
    """The fewest events to expect of what happened a few times, by Byar's approximation of Poisson.

    Infinite for more than `_FEW`.
    """
    if not 0 < events <= _FEW:
        return math.inf
    z = NormalDist().inv_cdf(LEVEL)
    return events * max(0.0, 1 - 1 / (9 * events) - z / (3 * math.sqrt(events))) ** 3


def percentiles(values: NDArray[np.float64]) -> Interval:
    """The middle 95 % of the values; NaN where one of them is NaN, or there is none."""
    if len(values) == 0:
        return UNKNOWN
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def student(freedom: float) -> float:
    """How many standard errors Student's t interval goes to each side, within 0.1 %.

    By powers of 1 / freedom (Abramowitz and Stegun 1964, 26.7.5): scipy, which has it exactly and
    takes long to import, is needed for fewer than 4 degrees of freedom alone.
    """
    if freedom < 4:
        from scipy.special import stdtrit

        return float(stdtrit(freedom, (1 + LEVEL) / 2))
    z = _NORMAL
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * freedom**4)
    )


def share_interval(hits: float, images: Images) -> Interval:
    """Wilson's interval of a share: samples, of those that show some images."""
    n = len(images)
    return wilson_interval(hits * images.effective / n, images.effective) if n else UNKNOWN


def mean_share_interval(values: Sequence[NDArray[Any]], images: Sequence[Images]) -> Interval:
    """Of the mean over sets of the means of numbers from 0 to 1, (sample,) of each.

    Wilson's, for as many images as give its variance; for all of them where the numbers are equal.
    """
    if not all(map(len, values)):
        return UNKNOWN
    mean = float(np.mean([rows.mean(dtype=np.float64) for rows in values]).clip(0, 1))
    if math.isnan(mean):
        return UNKNOWN
    variance, distinct = variance_of_mean(values, images), shown_by_all(images)
    shown = sum(of.shown for of in images)
    n = sum(of.effective for of in images) * distinct / shown  # of images that all sets share, once
    if variance * n > _ROUNDING:  # it is NaN for one image
        n = mean * (1 - mean) / variance * distinct / (distinct - 1)
    return wilson_interval(mean * n, n)


def loss_interval(value: float, error: float, wrong: float, freedom: float = math.inf) -> Interval:
    """Of a mean loss, of an area under a curve of errors, and of a ratio of errors.

    On a logarithmic scale, as a loss is skewed; with Student's t for as many values as images are
    wrong, as these carry it. NaN for fewer than `LEAST_WRONG`. error: the standard error; wrong:
    images that say as much without copies; freedom: degrees of freedom of the error, at most.
    """
    if not (wrong >= LEAST_WRONG - _ROUNDING and value > 0 and math.isfinite(error)):
        return UNKNOWN
    t = student(max(4.0, min(freedom, wrong - 1)))  # 4 but for rounding
    times = math.exp(min(_FARTHEST, t * error / value))
    return Interval(value / times, value * times)


def mean_loss_interval(losses: NDArray[Any], right: NDArray[np.bool_], images: Images) -> Interval:
    """`loss_interval` of the mean of losses (sample,); right: where the prediction is right."""
    if not len(losses):
        return UNKNOWN
    error = math.sqrt(variance_of_mean([losses], [images]))
    wrong = float(1 - right.mean()) * images.effective
    return loss_interval(float(losses.mean(dtype=np.float64)), error, wrong)


def mean_per_class_interval(
    correct: NDArray[np.bool_], labels: NDArray[Any], images: Images
) -> Interval:
    """Interval of the mean of the accuracies of the classes that have samples; NaN without any.

    correct: (n,), labels: (n,) >= 0. Wilson's, for as many images as give that variance: the sum
    over classes of accuracy r (1 - r) / (m - 1), with m the images that say as much without copies.
    A class of one image has the variance of the mean, r (1 - r), as its own cannot be known. The
    percentile bootstrap covers 31 to 85 % with one image in each of 6 classes, this 96 to 99 %.
    """
    if not len(labels):
        return UNKNOWN
    _, group, size = np.unique(labels, return_inverse=True, return_counts=True)
    distinct, copies = np.unique(group * images.count + images.number, return_counts=True)
    m = size**2 / np.bincount(distinct // images.count, copies.astype(np.float64) ** 2)
    recall = np.bincount(group, correct) / size
    mean, alone = float(recall.mean()), m < _ALONE
    spread = np.where(alone, mean * (1 - mean), recall * (1 - recall) / np.where(alone, 1, m - 1))
    variance = float(spread.sum()) / len(m) ** 2
    n = mean * (1 - mean) / variance if variance else len(m) ** 2 / float((1 / m).sum())
    return wilson_interval(mean * n, n)


def groups_of(images: Images, seed: int = 0) -> NDArray[np.intp]:
    """(sample,) from 0, the group of its image: random ones, as samples often come by class."""
    order = np.random.default_rng(seed).permutation(images.count)
    place = np.argsort(order)[images.number]
    return np.asarray(place * min(GROUPS, images.count) // max(1, images.count))


def standard_error(without: NDArray[Any]) -> NDArray[np.float64]:
    """without: (…, group), a number over all samples but those of each group; NaN for one."""
    groups = without.shape[-1]
    if groups < 2:
        return np.full(without.shape[:-1], math.nan)
    spread = without - without.mean(axis=-1, keepdims=True)
    return np.asarray(np.sqrt((groups - 1) / groups * (spread**2).sum(axis=-1)))


def jackknife_interval(value: float, without: NDArray[np.float64]) -> Interval:
    """Student's t interval. without: (group,)."""
    error = float(standard_error(without))
    if math.isnan(error):
        return UNKNOWN
    half = student(len(without) - 1) * error
    return Interval(value - half, value + half)


# correlations over datasets


class Correlation(NamedTuple):
    value: float
    interval: Interval


def pearson(first: NDArray[Any], second: NDArray[Any], *, ranked: bool = False) -> Correlation:
    """Pearson's r of two arrays (n,), with Fisher's (1921) interval: artanh r has variance
    1 / (n - 3).

    NaN where n < 3, or an array is constant or has a NaN. No interval for n = 3 or |r| = 1. The
    interval assumes values that are about normal; a few far outside make it too narrow. Of ranks
    (`ranked`) the variance is (1 + r^2 / 2) / (n - 3) (Bonett and Wright 2000).
    """
    n = len(first)
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    for values in (first, second):
        if n < _FEWEST or not np.ptp(values) > _CONSTANT * np.abs(values).max():  # nor with a NaN
            return Correlation(math.nan, UNKNOWN)
    one, other = first - first.mean(), second - second.mean()
    value = float(np.clip(one @ other / math.sqrt((one @ one) * (other @ other)), -1, 1))
    if n == _FEWEST or abs(value) > 1 - _CONSTANT:
        return Correlation(value, UNKNOWN)
    variance = (1 + value**2 / 2 if ranked else 1) / (n - 3)
    centre, half = math.atanh(value), _NORMAL * math.sqrt(variance)
    return Correlation(value, Interval(math.tanh(centre - half), math.tanh(centre + half)))


def spearman(first: NDArray[Any], second: NDArray[Any]) -> Correlation:
    """Spearman's: `pearson` of the ranks, equal values sharing the mean of theirs."""
    if any(np.isnan(values).any() for values in (first, second)):
        return Correlation(math.nan, UNKNOWN)
    return pearson(_ranks(first), _ranks(second), ranked=True)


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Mean rank of each value; of rounded ones, or the last bit would break ties."""
    rounded = np.asarray(values, np.float64).round(12)
    ordered = np.sort(rounded)
    below, up_to = (np.searchsorted(ordered, rounded, side) for side in ("left", "right"))
    return np.asarray(below + up_to + 1, np.float64) / 2

"""The paired bootstrap over samples.

Samples that contribute the same to all that is measured are interchangeable: they are one
*pattern*, and a resample is how often each pattern occurs in it. All methods share the resamples,
so their means over all of them are one matrix product. Where the patterns are few, a resample is
one multinomial draw of a few numbers; where nearly every sample is a pattern of its own, drawing
row numbers and counting them is faster. The distribution is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.stats.intervals import LEVEL, UNKNOWN, Interval, check_level, percentiles

RESAMPLES = 1000
_DRAWS_AT_ONCE = 4_000_000  # resamples x patterns in one block: 32 MB
_DRAWS_KEPT = 100_000_000  # and in all, of 2 bytes, to use them again; more are drawn anew
_NS_A_PATTERN, _NS_A_SAMPLE, _NS_A_RESAMPLE = 170, 5, 10_000  # costs of the two ways to draw


class Patterns(NamedTuple):
    """Samples by what they contribute: arrays (pattern,)."""

    first: NDArray[np.intp]  # a sample of each
    size: NDArray[np.int64]  # how many samples share it


def patterns(values: NDArray[Any]) -> Patterns:
    """The distinct rows of `values` (n, m) or (n,), booleans or numbers."""
    codes, base = np.zeros(len(values), np.int64), 1
    for column in (values[:, None] if values.ndim == 1 else values).T:
        digits, more = _digits(column)
        if more == len(values) > 2:  # every sample is a pattern of its own
            return Patterns(np.arange(more), np.ones(more, np.int64))
        if base * more > 2**62:
            codes, base = _digits(codes)
        codes = codes * more + digits
        base *= more
    _, first, size = np.unique(codes, return_index=True, return_counts=True)
    return Patterns(first, size.astype(np.int64))


def _digits(column: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Numbers from 0 for the distinct values, and how many there are."""
    if column.dtype == np.bool_:
        return column, 2
    distinct, digits = np.unique(column, return_inverse=True)
    return digits, max(1, len(distinct))


class Resamples:
    """Resamples of n samples with replacement: what is averaged over them is paired.

    sizes: how many samples each pattern stands for, (pattern,), or n where each sample is its
    own. Differences and ratios between methods are taken resample by resample. The same seed
    gives the same draws, however often they are asked for.
    """

    def __init__(
        self,
        sizes: NDArray[np.integer[Any]] | int,
        count: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.sizes = np.ones(sizes, np.int64) if isinstance(sizes, int) else sizes
        self.n = int(self.sizes.sum())
        self.count = count
        self._seed = seed
        self._kept: list[NDArray[Any]] | None = None

    def times(self) -> Iterator[NDArray[Any]]:
        """How often each pattern is drawn: arrays (some resamples, pattern)."""
        if self._kept is None and self.count * len(self.sizes) <= _DRAWS_KEPT:
            self._kept = list(self._draws())
        yield from self._draws() if self._kept is None else self._kept

    def means(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(resample, m): mean of each column of `values` (pattern, m) or (pattern,); NaN if n = 0.

        Sums are in double precision where the values are, else in single: exact for counts below
        2^24.
        """
        columns = values[:, None] if values.ndim == 1 else values
        if self.n == 0:
            return np.full((self.count, columns.shape[1]), np.nan)
        columns = columns.astype(np.result_type(columns, np.float32))
        sums = [times.astype(columns.dtype) @ columns for times in self.times()]
        return np.concatenate(sums).astype(np.float64) / self.n

    def interval(self, values: NDArray[Any], level: float = LEVEL) -> Interval:
        """Percentile interval of the mean of `values` (pattern,); NaN for n = 0."""
        return percentiles(self.means(values)[:, 0], level)

    def _draws(self) -> Iterator[NDArray[Any]]:
        rng = np.random.default_rng(self._seed)
        small = np.uint16 if self.n < 2**16 else np.uint32
        step = max(1, _DRAWS_AT_ONCE // max(1, len(self.sizes)))
        draw = self._count_patterns if self._few() else self._count_rows
        for start in range(0, self.count, step):
            block = np.empty((min(step, self.count - start), len(self.sizes)), small)
            draw(rng, block)
            yield block

    def _few(self) -> bool:
        """Whether multinomial draws are faster than counting the rows of each resample."""
        return _NS_A_PATTERN * len(self.sizes) <= _NS_A_SAMPLE * self.n + _NS_A_RESAMPLE

    def _count_patterns(self, rng: np.random.Generator, block: NDArray[Any]) -> None:
        block[:] = rng.multinomial(self.n, self.sizes / self.n, size=len(block))

    def _count_rows(self, rng: np.random.Generator, block: NDArray[Any]) -> None:
        pattern = np.repeat(np.arange(len(self.sizes)), self.sizes)
        for row in block:
            drawn = rng.integers(0, self.n, self.n) if self.n else pattern
            row[:] = np.bincount(pattern[drawn], minlength=len(row))


def bootstrap_means(
    values: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """(resample, m): means of the columns of `values` (n, m) over the same resamples.

    The statistic of all methods at once: with their correctness as columns, differences between
    columns are paired. NaN for n = 0.
    """
    if values.ndim != 2:
        raise ValueError(f"values are (sample, method), not {values.shape}")
    distinct = patterns(values)
    return Resamples(distinct.size, resamples, seed).means(values[distinct.first])


def bootstrap_sets(
    values: Sequence[NDArray[Any]],
    images: Sequence[NDArray[np.integer[Any]]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[NDArray[np.float64]]:
    """(resample, m) for each set: means of its `values` (n, m), of sets that share images.

    images: (n,) for each set, the same number in rows that show the same image. Images are drawn
    from those of all sets, and each brings all of its rows in all sets (a cluster bootstrap). Equal
    sets thus have the same means in every resample, and the number of rows of a set varies. NaN
    where a resample has no row of a set.
    """
    distinct, image = np.unique(np.concatenate(images), return_inverse=True)
    ends = np.cumsum([len(rows) for rows in values])[:-1]
    sums = [
        _sums_by_image(
            np.column_stack([rows, np.ones(len(rows), rows.dtype)]), shown, len(distinct)
        )
        for rows, shown in zip(values, np.split(image, ends), strict=True)
    ]
    means = bootstrap_means(np.concatenate(sums, axis=1), resamples=resamples, seed=seed)
    parts = np.split(means, np.cumsum([part.shape[1] for part in sums])[:-1], axis=1)
    return [part[:, :-1] / np.where(part[:, -1:] > 0, part[:, -1:], np.nan) for part in parts]


def _sums_by_image(rows: NDArray[Any], image: NDArray[np.intp], count: int) -> NDArray[Any]:
    """(image, m): sums of the rows (n, m) of each image; booleans are counted in few bytes."""
    order = np.argsort(image, kind="stable")
    there, first, size = np.unique(image[order], return_index=True, return_counts=True)
    small = np.min_scalar_type(size.max(initial=0))
    sums = np.zeros((count, rows.shape[1]), small if rows.dtype == np.bool_ else np.float64)
    if len(rows):
        sums[there] = np.add.reduceat(rows[order], first, axis=0, dtype=sums.dtype)
    return sums


def bootstrap_mean(
    values: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Percentile bootstrap interval of the mean of `values` (n,); NaN for n = 0."""
    check_level(level)
    if values.ndim != 1:
        raise ValueError(f"values are one number a sample, not {values.shape}")
    means = bootstrap_means(values[:, None], resamples=resamples, seed=seed)
    return percentiles(means[:, 0], level)


def bootstrap_difference(first: NDArray[Any], second: NDArray[Any], *, seed: int = 0) -> Interval:
    """Paired bootstrap interval of ``mean(first) - mean(second)`` over the same samples (n,)."""
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths, not {first.shape} and {second.shape}")
    return bootstrap_mean(np.subtract(first, second, dtype=np.float64), seed=seed)


def bootstrap_mean_per_class(
    correct: NDArray[np.bool_], labels: NDArray[Any], *, resamples: int = RESAMPLES
) -> Interval:
    """Percentile bootstrap interval of the mean per-class recall; NaN for n = 0.

    correct: (n,), labels: (n,) >= 0. Samples are drawn, not classes; a class that a resample
    misses is left out of that resample's mean.
    """
    if correct.ndim != 1 or correct.shape != labels.shape:
        raise ValueError(f"one label a sample, not {correct.shape} and {labels.shape}")
    if len(labels) == 0:
        return UNKNOWN
    _, group = np.unique(labels, return_inverse=True)  # classes without samples drop out here
    classes = int(group.max()) + 1
    counts = np.bincount(2 * group + correct, minlength=2 * classes)
    means = []
    for times in Resamples(counts, resamples).times():
        right = times[:, 1::2].astype(np.int64)
        size = times[:, 0::2] + right
        recall = np.divide(right, size, out=np.zeros(size.shape), where=size > 0)
        means.append(recall.sum(axis=1) / np.count_nonzero(size, axis=1))
    return percentiles(np.concatenate(means))

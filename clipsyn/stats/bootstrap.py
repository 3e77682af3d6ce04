"""The paired bootstrap over samples.

Samples that contribute the same to all that is measured are interchangeable: they are one
*pattern*, and a resample is how often each pattern occurs in it. All methods share the resamples,
so their means over all of them are one matrix product. Where the patterns are few, a resample is
one multinomial draw of a few numbers; where nearly every sample is a pattern of its own, drawing
row numbers and counting them is faster. The distribution is the same. Where images have copies,
images are drawn, and each brings all of its samples (a cluster bootstrap).

Counts of rows depend on nothing but the number of samples and the seed, so the last ones are kept,
a byte each, and serve all that is measured on as many samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.stats.images import Images
from clipsyn.stats.intervals import LEVEL, Interval, check_level, percentiles

RESAMPLES = 1000
_DRAWS_AT_ONCE = 4_000_000  # resamples x patterns in one block: 32 MB
_DRAWS_KEPT = 100_000_000  # resamples x samples, to use them again; more are drawn anew
_PATTERNS_AT_ONCE = 512  # in one product: 2 MB as floats, with 1,000 resamples
_ROWS_A_PATTERN = 34  # rows that are counted while a pattern is drawn
_ROWS_A_RESAMPLE = 2_000  # and while a resample is begun


class Patterns(NamedTuple):
    """Samples by what they contribute: arrays (pattern,)."""

    first: NDArray[np.intp]  # a sample of each
    size: NDArray[np.int64]  # how many samples share it
    of: NDArray[np.intp]  # (sample,) its pattern


def patterns(values: NDArray[Any]) -> Patterns:
    """The distinct rows of `values` (n, m) or (n,), booleans or numbers."""
    codes, base = np.zeros(len(values), np.int64), 1
    for column in (values[:, None] if values.ndim == 1 else values).T:
        digits, more = _digits(column)
        if more == len(values) > 2:  # every sample is a pattern of its own
            return Patterns(np.arange(more), np.ones(more, np.int64), np.arange(more))
        if base * more > 2**62:
            codes, base = _digits(codes)
        codes = codes * more + digits
        base *= more
    _, first, of, size = np.unique(codes, True, True, True)
    return Patterns(first, size.astype(np.int64), of)


def _digits(column: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Numbers from 0 for the distinct values, and how many there are."""
    if column.dtype == np.bool_:
        return column, 2
    distinct, digits = np.unique(column, return_inverse=True)
    return digits, max(1, len(distinct))


class Resamples:
    """Resamples of n samples with replacement: what is averaged over them is paired.

    sizes: how many samples each pattern stands for, (pattern,), or n where each sample is its
    own. images: what the samples show; where there are copies, `of` is the pattern of each sample.
    Differences and ratios between methods are taken resample by resample. The same seed gives the
    same draws, however often they are asked for.
    """

    def __init__(
        self,
        sizes: NDArray[np.integer[Any]] | int,
        count: int = RESAMPLES,
        seed: int = 0,
        *,
        images: Images | None = None,
        of: NDArray[np.intp] | None = None,
    ) -> None:
        self.sizes = np.ones(sizes, np.int64) if isinstance(sizes, int) else sizes
        self.n = int(self.sizes.sum())
        self.count = count
        self._of = of
        self._seed = seed
        self._kept: list[NDArray[Any]] | None = None  # where the patterns are few
        self.images = Images.distinct(self.n) if images is None else images

    def times(self) -> Iterator[NDArray[Any]]:
        """How often each pattern is drawn, or each sample where images have copies: arrays
        (some resamples, pattern).
        """
        if self.images.copied:
            number, step = self.images.number, _at_once(self.n)
            for block in _row_counts(self.images.count, self.count, self._seed):
                for start in range(0, len(block), step):
                    yield block[start : start + step].take(number, axis=1)
            return
        step = _at_once(len(self.sizes))
        for block in self._blocks():
            for start in range(0, len(block), step):
                yield block[start : start + step]

    def means(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(resample, m): mean of each column of `values` (pattern, m) or (pattern,); NaN if n = 0.

        Products are in double precision where the values are, else in single: exact for counts
        below 2^24. Ask for all columns at once: to read the draws takes longer than to weigh one.
        """
        columns = values[:, None] if values.ndim == 1 else values
        if self.n == 0:
            return np.full((self.count, columns.shape[1]), np.nan)
        if self.images.copied:
            rows = columns if self._of is None else columns[self._of]
            sums = self.images.sums(_with_ones(rows))
            drawn = Resamples(self.images.count, self.count, self._seed).means(sums)
            return drawn[:, :-1] / drawn[:, -1:]
        blocks = self._blocks()
        if not self._few():  # the rows themselves are multiplied faster than put into patterns
            blocks = _row_counts(self.n, self.count, self._seed)
            columns = columns if self._alone else np.repeat(columns, self.sizes, axis=0)
        return np.concatenate([_products(times, columns) for times in blocks]) / self.n

    def interval(self, values: NDArray[Any], level: float = LEVEL) -> Interval:
        """Percentile interval of the mean of `values` (pattern,); NaN for n = 0."""
        return percentiles(self.means(values)[:, 0], level)

    def _blocks(self) -> Iterator[NDArray[Any]]:
        if self._few():
            if self._kept is None and self.count * len(self.sizes) <= _DRAWS_KEPT:
                self._kept = list(self._multinomials())
            yield from self._multinomials() if self._kept is None else self._kept
        elif self._alone:
            yield from _row_counts(self.n, self.count, self._seed)
        else:
            edges = np.append(0, np.cumsum(self.sizes))
            for before in _row_sums(self.n, self.count, self._seed):
                yield np.diff(before[:, edges], axis=1)

    def _few(self) -> bool:
        """Whether multinomial draws are faster than counting the rows of each resample."""
        return _ROWS_A_PATTERN * len(self.sizes) <= self.n + _ROWS_A_RESAMPLE

    @property
    def _alone(self) -> bool:
        """Whether each sample is a pattern of its own."""
        return len(self.sizes) == self.n and bool((self.sizes == 1).all())

    def _multinomials(self) -> Iterator[NDArray[Any]]:
        rng = np.random.default_rng(self._seed)
        small, share = _smallest(self.n), self.sizes / max(1, self.n)
        for size in _steps(self.count, len(share)):
            yield rng.multinomial(self.n, share, size=size).astype(small)


def _products(times: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
    """(resample, m): sums of columns (pattern, m), each pattern as often as it is drawn."""
    sums = np.zeros((len(times), columns.shape[1]))
    kind = np.result_type(columns, np.float32)
    numbers = np.empty((len(times), min(_PATTERNS_AT_ONCE, len(columns))), kind)
    for start in range(0, len(columns), _PATTERNS_AT_ONCE):
        some = columns[start : start + _PATTERNS_AT_ONCE].astype(kind, copy=False)
        block = numbers[:, : len(some)]
        block[:] = times[:, start : start + len(some)]
        sums += block @ some
    return sums


def _row_counts(n: int, count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """How often each of n samples is drawn: arrays (some resamples, n)."""
    if count * n <= _DRAWS_KEPT:
        yield _kept_row_counts(n, count, seed)
    else:
        yield from _draw_rows(n, _steps(count, n), seed)


def _row_sums(n: int, count: int, seed: int) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
    """How often the samples before each of n are drawn, and all: arrays (some resamples, n + 1)."""
    if count * n <= _DRAWS_KEPT and n < 2**16:
        yield _kept_row_sums(n, count, seed)
    else:
        yield from (_summed(times) for times in _row_counts(n, count, seed))


@lru_cache(maxsize=2)
def _kept_row_counts(n: int, count: int, seed: int) -> NDArray[np.uint8]:
    counts = next(_draw_rows(n, [count], seed))
    counts.flags.writeable = False  # everybody gets the same
    return counts


@lru_cache(maxsize=1)
def _kept_row_sums(n: int, count: int, seed: int) -> NDArray[np.unsignedinteger[Any]]:
    return _summed(_kept_row_counts(n, count, seed))


def _draw_rows(n: int, sizes: Iterable[int], seed: int) -> Iterator[NDArray[np.uint8]]:
    """A byte is enough: no sample is ever drawn 256 times, at a mean of 1."""
    rng = np.random.default_rng(seed)
    for size in sizes:
        block = np.empty((size, n), np.uint8)
        for row in block:
            row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
        yield block


def _summed(times: NDArray[np.uint8]) -> NDArray[np.unsignedinteger[Any]]:
    """(resample, n) -> (resample, n + 1): sums along the row, from 0."""
    n = times.shape[1]
    sums = np.zeros((len(times), n + 1), _smallest(n))
    for row, into in zip(times, sums, strict=True):  # one by one they stay in the cache
        np.cumsum(row.astype(sums.dtype), out=into[1:])
    return sums


def _smallest(n: int) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if n < 2**16 else np.uint32


def _at_once(patterns: int) -> int:
    return max(1, _DRAWS_AT_ONCE // max(1, patterns))


def _steps(count: int, patterns: int) -> Iterator[int]:
    """Numbers of resamples, `count` together, that are drawn at once."""
    step = _at_once(patterns)
    for start in range(0, count, step):
        yield min(step, count - start)


def bootstrap_means(
    values: NDArray[Any],
    images: Images | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """(resample, m): means of the columns of `values` (n, m) over the same resamples.

    The statistic of all methods at once: with their correctness as columns, differences between
    columns are paired. NaN for n = 0.
    """
    if values.ndim != 2:
        raise ValueError(f"values are (sample, method), not {values.shape}")
    distinct = patterns(values)
    drawn = Resamples(distinct.size, resamples, seed, images=images, of=distinct.of)
    return drawn.means(values[distinct.first])


def bootstrap_sets(
    values: Sequence[NDArray[Any]],
    images: Sequence[Images],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[NDArray[np.float64]]:
    """(resample, m) for each set: means of its `values` (n, m), of sets that share images.

    Images are drawn from those of all sets, and each brings all of its rows in all sets (a cluster
    bootstrap). Equal sets thus have the same means in every resample, and the number of rows of a
    set varies. NaN where a resample has no row of a set.
    """
    distinct, number = np.unique(np.concatenate([of.number for of in images]), return_inverse=True)
    ends = np.cumsum([len(rows) for rows in values])[:-1]
    sums = [
        Images(shown, len(distinct)).sums(_with_ones(rows))
        for rows, shown in zip(values, np.split(number, ends), strict=True)
    ]
    means = bootstrap_means(np.concatenate(sums, axis=1), resamples=resamples, seed=seed)
    parts = np.split(means, np.cumsum([part.shape[1] for part in sums])[:-1], axis=1)
    return [part[:, :-1] / np.where(part[:, -1:] > 0, part[:, -1:], np.nan) for part in parts]


def _with_ones(rows: NDArray[Any]) -> NDArray[Any]:
    """With a column that counts them."""
    return np.column_stack([rows, np.ones(len(rows), rows.dtype)])


def bootstrap_mean(
    values: NDArray[Any],
    images: Images | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Percentile bootstrap interval of the mean of `values` (n,); NaN for n = 0."""
    check_level(level)
    if values.ndim != 1:
        raise ValueError(f"values are one number a sample, not {values.shape}")
    means = bootstrap_means(values[:, None], images, resamples=resamples, seed=seed)
    return percentiles(means[:, 0], level)


def bootstrap_difference(
    first: NDArray[Any], second: NDArray[Any], images: Images | None = None, *, seed: int = 0
) -> Interval:
    """Paired bootstrap interval of ``mean(first) - mean(second)`` over the same samples (n,)."""
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths, not {first.shape} and {second.shape}")
    return bootstrap_mean(np.subtract(first, second, dtype=np.float64), images, seed=seed)

"""Samples by the image that each shows: copies of an image are one piece of evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Images:
    """Which of the samples that something is measured on show the same image.

    number: (sample,) below `count`, equal for copies. Several sets that share images have numbers
    of all of these, and each set holds some.
    """

    number: NDArray[np.intp]
    count: int

    @classmethod
    def of(cls, keys: NDArray[Any]) -> Images:
        """keys: (sample,) equal for copies."""
        distinct, number = np.unique(keys, return_inverse=True)
        return cls(number, len(distinct))

    @classmethod
    def distinct(cls, n: int) -> Images:
        """Of n samples without copies."""
        return cls(np.arange(n), n)

    @classmethod
    def of_sets(cls, marks: Sequence[NDArray[np.uint64]]) -> list[Images]:
        """Of several sets. marks: (sample,) of each, equal for equal images.

        A mark of 0 is an image that nobody has read, which is like no other.
        """
        keys = np.concatenate(marks)
        number, read = np.empty(len(keys), np.intp), keys != 0
        distinct, number[read] = np.unique(keys[read], return_inverse=True)
        count = len(distinct) + int(np.count_nonzero(~read))
        number[~read] = np.arange(len(distinct), count)
        ends = np.cumsum([len(one) for one in marks])[:-1]
        return [cls(part, count) for part in np.split(number, ends)]

    def __len__(self) -> int:
        return len(self.number)

    @cached_property
    def effective(self) -> float:
        """How many images without copies say as much about a share of the samples.

        n^2 over the sum of squares of the numbers of copies: copies get the same answer, so the
        design effect of clusters (Kish 1965) is that of a correlation of 1.
        """
        squares = float(np.square(np.bincount(self.number), dtype=np.float64).sum())
        return len(self) ** 2 / squares if squares else 0.0

    @cached_property
    def shown(self) -> int:
        """How many distinct images the samples show."""
        return int(np.count_nonzero(np.bincount(self.number)))

    def take(self, rows: NDArray[Any]) -> Images:
        """rows: numbers or a mask."""
        if rows.dtype == np.bool_ and rows.all() and self.shown == self.count:
            return self  # as nearly always, and numbers are sorted for nothing
        return Images.of(self.number[rows])

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """(image, m): sums of the values (sample, m) of each; booleans are counted in few bytes."""
        order = np.argsort(self.number, kind="stable")
        there, first, size = np.unique(self.number[order], return_index=True, return_counts=True)
        small = np.min_scalar_type(size.max(initial=0))
        kind = small if values.dtype == np.bool_ else np.float64
        sums = np.zeros((self.count, values.shape[1]), kind)
        if len(values):
            sums[there] = np.add.reduceat(values[order], first, axis=0, dtype=kind)
        return sums


def shown_by_all(images: Sequence[Images]) -> int:
    """How many distinct images sets show together, whose numbers are those of all."""
    if len(images) == 1:
        return images[0].shown
    return int(np.count_nonzero(np.bincount(np.concatenate([of.number for of in images]))))


def variance_of_mean(values: Sequence[NDArray[Any]], images: Sequence[Images]) -> float:
    """The variance over images of the mean of the means of some sets.

    values: (sample,) of each set; images: of each, whose numbers tell which rows of all sets show
    the same image. NaN where a set shows one image, or none.
    """
    if min(of.shown for of in images) < 2:
        return math.nan
    shares = np.concatenate(
        [
            (rows - rows.mean(dtype=np.float64))
            / (len(rows) * math.sqrt(1 - 1 / of.shown) * len(values))
            for rows, of in zip(values, images, strict=True)
        ]
    )
    if len(values) > 1 or images[0].shown < len(images[0]):
        shares = np.bincount(np.concatenate([of.number for of in images]), shares)
    return float(shares @ shares)


def copies_note(sets: Iterable[tuple[str, int, int]]) -> str:
    """What to say beside numbers about sets, each with its name, images, and distinct ones.

    Empty where no image has a copy.
    """
    copied = [
        f"{name} ({n:,} images, {distinct:,} distinct)"
        for name, n, distinct in dict.fromkeys(sets)
        if distinct < n
    ]
    counted = "intervals and tests count an image with its copies once"
    return f"there are copies in {', '.join(copied)}: {counted}" if copied else ""

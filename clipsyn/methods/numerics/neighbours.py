"""The nearest of many unit vectors: products of thousands of rows, each core sorts some of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clipsyn.methods.numerics import Array, Floats, Labels, Rows
from clipsyn.methods.numerics.blocks import in_blocks

_BLOCK_VALUES = 32_000_000  # cosines at once: 128 MB; a product of fewer rows is slower
_GROUP = 64  # columns of which only the largest is looked at first


def nearest(
    queries: Callable[[slice], Floats], count: int, known: Array, k: int, *, own: bool = False
) -> tuple[Labels, Floats]:
    """(query, k) rows of `known` with the largest cosines, the first of equals; these cosines.

    queries: some of the `count` queries (row, embed). known: (row, embed). own: the first queries
    are the rows of `known`, of which none is its own neighbour. Where fewer than k are finite, the
    number of rows stands for the rest.
    """
    columns = known.astype(np.float32).T
    near, cosines = np.empty((count, k), np.int32), np.empty((count, k), np.float32)
    step = max(1, _BLOCK_VALUES // len(known))
    for start in range(0, count, step):
        products = queries(slice(start, min(start + step, count))) @ columns
        if own:
            itself = np.arange(start, min(start + len(products), len(known)))
            products[itself - start, itself] = -np.inf

        def select(rows: slice, start: int = start, products: Floats = products) -> None:
            at, found = slice(start + rows.start, start + rows.stop), largest(products[rows], k)
            near[at] = found
            there = np.minimum(found, len(known) - 1)
            cosines[at] = np.take_along_axis(products[rows], there, axis=1)

        in_blocks(select, products.shape)
    return near, cosines


def largest(values: Floats, k: int) -> Rows:
    """(sample, k) columns of the k largest of each row, the first of equals; their number for NaN.

    They are in the k groups of columns with the largest maxima, of equal ones the first: before
    a value in any other group comes the largest of each of these. Sorting those groups alone is a
    hundredth of the time that the products take.
    """
    count = values.shape[1]
    maxima = np.maximum.reduceat(values, np.arange(0, count, _GROUP), axis=1)
    groups = np.sort(np.argsort(-maxima, axis=1, kind="stable")[:, :k], axis=1)
    columns = (groups[:, :, None] * _GROUP + np.arange(_GROUP)).reshape(len(values), -1)
    inside = np.take_along_axis(values, np.minimum(columns, count - 1), axis=1)
    inside[columns >= count] = -np.inf
    order = np.argsort(-inside, axis=1, kind="stable")[:, :k]
    known = np.isfinite(np.take_along_axis(inside, order, axis=1))
    return np.where(known, np.take_along_axis(columns, order, axis=1), count)

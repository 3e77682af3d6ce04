"""The nearest of many unit vectors: products of thousands of rows, each core sorts some of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clipsyn.methods.numerics import Array, Floats, Labels, Rows
from clipsyn.methods.numerics.blocks import in_blocks

_BLOCK_VALUES = 32_000_000  # cosines at once: 128 MB; a product of fewer rows is slower
_GROUP = 16  # columns, of which the largest value is a bound


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
    """(row, k) columns of the k largest of each row, the first of equals; their number for NaN.

    The largest values of groups of columns bound from below what is among them. Sorting the few
    that reach the bound is a hundredth of the time that the products take.
    """
    count = values.shape[1]
    if not (taken := min(k, count)):
        return np.full((len(values), k), count)
    group = min(_GROUP, max(1, count // (2 * taken)))
    groups = values[:, : count // group * group].reshape(len(values), group, -1)
    maxima = groups.max(axis=1)
    if np.isnan(maxima).any():
        maxima = np.nan_to_num(np.fmax.reduce(groups, axis=1), nan=-np.inf)
    bound = np.partition(maxima, maxima.shape[1] - taken, axis=1)[:, -taken, None]
    reached = values >= np.maximum(bound, np.finfo(np.float32).min)
    row, column = np.divmod(np.flatnonzero(reached), count)
    sizes = np.bincount(row, minlength=len(values))
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    ordered = np.full((len(values), max(k, sizes.max(initial=0))), np.inf, np.float32)
    ordered[row, place] = -values[row, column]
    columns = np.full(ordered.shape, count)
    columns[row, place] = column
    order = np.argsort(ordered, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(columns, order, axis=1)

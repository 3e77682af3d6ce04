"""Ranks of what queries should find, by every backbone and by what makes one score of several.

A similarity is a cosine times the share of the backbone's logit scale in the sum of all: their sum
over backbones is the mean of scaled similarities, and as large as a cosine. No array of all queries
by all items exists: blocks of queries are compared with the whole gallery, on all cores.

Scores of one list each: RRF (Cormack, Clarke and Buettcher 2009), DBSF and RSF, as mteb defines
them (mteb/models/hybrid_wrappers.py): of the first `LISTED` items of each backbone, others have 0.

Hubs are items that are near many queries. What is done about them takes a bias off the similarity
of each item, made of its similarities to a bank of other queries: of an inverted softmax (Smith et
al. 2017) and QB-Norm (Bogolin et al. 2022) the log-sum-exp at `SHARPNESS`, of NNN (Chowdhury et al.
2024) 3/4 of the mean of the 128 largest, of CSLS (Conneau et al. 2018) half of that of the 10
largest. QB-Norm does so only for queries whose first item is the first of a query of the bank, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from clipsyn.methods.numerics import Array, Doubles, Floats, Mask, Rows
from clipsyn.methods.numerics.blocks import equal_slices, side_by_side
from clipsyn.methods.numerics.neighbours import largest

LISTED = 100  # items of a backbone's list, as many as mteb fuses
RRF_K = 60
SHARPNESS = 20.0  # of QB-Norm and the inverted softmax
NNN_NEAREST, NNN_SHARE = 128, 0.75
CSLS_NEAREST = 10
_BLOCK = 1 << 25  # similarities that a core works on, 128 MB: products of few rows are slow


@dataclass(frozen=True, eq=False)
class Search:
    """Queries, the gallery that they search, and which items each should find.

    queries, gallery: (query, embed) and (item, embed) of each backbone, unit norm; scales: of its
    logits. query, item: (pair,) what belongs together; queries ascend, and each has an item.
    """

    queries: Sequence[Array]
    gallery: Sequence[Array]
    scales: Sequence[float]
    query: Rows
    item: Rows

    @cached_property
    def starts(self) -> Rows:
        """(query,) where the pairs of each begin."""
        return np.flatnonzero(np.diff(self.query, prepend=-1))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(query, backbone, item)."""
        return len(self.queries[0]), len(self.queries), len(self.gallery[0])

    def similarities(self, rows: slice) -> Floats:
        """(query, backbone, item) of some queries."""
        _, backbones, items = self.shape
        out = np.empty((rows.stop - rows.start, backbones, items), np.float32)
        for b, (scale, queries) in enumerate(zip(self.scales, self.queries, strict=True)):
            share = np.float32(scale / sum(self.scales))
            np.matmul(queries[rows].astype(np.float32) * share, self._items[b].T, out=out[:, b])
        return out

    def blocks(self) -> list[slice]:
        """Of queries: whose similarities are few enough for memory."""
        _ = self._items  # made once, not by each thread
        queries, backbones, items = self.shape
        return equal_slices(queries, -(-queries * backbones * items // _BLOCK))

    @cached_property
    def _items(self) -> list[Floats]:
        return [items.astype(np.float32, copy=False) for items in self.gallery]


class Block:
    """The similarities of some queries (query, backbone, item), and what several scores need."""

    def __init__(self, rows: slice, similarities: Floats) -> None:
        self.rows = rows
        self.similarities = similarities

    @cached_property
    def mean(self) -> Floats:
        """(query, item)"""
        return np.asarray(self.similarities.sum(axis=1))

    @cached_property
    def lists(self) -> tuple[Rows, Floats]:
        """The first items of each backbone, best first, and their similarities.

        (query, backbone, place) each.
        """
        queries, backbones, items = self.similarities.shape
        found = largest(self.similarities.reshape(-1, items), min(LISTED, items))
        found = found.reshape(queries, backbones, -1)
        return found, np.take_along_axis(self.similarities, found, axis=2)

    def fused(self, points: Callable[[Floats], Array]) -> Floats:
        """(query, item) the sum over backbones of the points for the places of their lists."""
        found, values = self.lists
        given = np.broadcast_to(points(values), values.shape).astype(np.float32)
        out = np.zeros(self.mean.shape, np.float32)
        rows = np.arange(len(out))[:, None]
        for b in range(found.shape[1]):
            out[rows, found[:, b]] += given[:, b]
        return out


Scorer = Callable[[Block], Array]  # scores (query, item), the larger the better


def alone(backbone: int) -> Scorer:
    return lambda block: block.similarities[:, backbone]


def reciprocal_ranks(values: Floats) -> Array:
    return 1 / (RRF_K + 1 + np.arange(values.shape[2], dtype=np.float32))


def within_deviations(values: Floats) -> Array:
    """From 0 at three standard deviations below the mean of a list to 1 at three above."""
    mean, deviation = values.mean(axis=2, keepdims=True), values.std(axis=2, keepdims=True)
    return np.clip(_share(values - mean + 3 * deviation, 6 * deviation), 0, 1)


def within_range(values: Floats) -> Array:
    """From 0 for the last of a list to 1 for the first."""
    last = values[:, :, -1:]
    return _share(values - last, values[:, :, :1] - last)


FUSIONS: Mapping[str, Scorer] = {
    "mean": lambda block: block.mean,
    "rrf": lambda block: block.fused(reciprocal_ranks),
    "dbsf": lambda block: block.fused(within_deviations),
    "rsf": lambda block: block.fused(within_range),
}


def weighted(weights: Floats) -> Scorer:
    """weights: (query, backbone)."""
    return lambda block: np.matmul(weights[block.rows, None], block.similarities)[:, 0]


class Bank(NamedTuple):
    """What the queries of a bank say of each item, by the mean over backbones."""

    softmax: Floats  # (item,) biases
    nnn: Floats
    csls: Floats
    hubs: Mask  # (item,) whether it is the first of some query

    @classmethod
    def of(cls, search: Search, queries: Sequence[Array]) -> Bank:
        """queries: those of the bank, (query, embed) of each backbone."""
        turned = replace(search, queries=search.gallery, gallery=queries)
        best, first_of = (
            np.full(len(queries[0]), -np.inf, np.float32),
            np.zeros(len(queries[0]), int),
        )
        lock = threading.Lock()

        def work(rows: slice) -> tuple[Array, ...]:
            similarities = Block(rows, turned.similarities(rows)).mean
            with lock:
                _keep_first(best, first_of, similarities, rows.start)
            return _biases(similarities)

        parts = side_by_side(work, turned.blocks())
        hubs = np.zeros(search.shape[2], np.bool_)
        hubs[first_of] = True
        softmax, nnn, csls = (np.concatenate(part) for part in zip(*parts, strict=True))
        return cls(softmax, nnn, csls, hubs)

    def qb_norm(self, block: Block) -> Array:
        is_hub = self.hubs[block.mean.argmax(axis=1)]
        return np.asarray(block.mean - is_hub[:, None] * self.softmax)

    @property
    def scorers(self) -> dict[str, Scorer]:
        return {
            "inverted-softmax": lambda block: block.mean - self.softmax,
            "qb-norm": self.qb_norm,
            "nnn": lambda block: block.mean - self.nnn,
            "csls": lambda block: block.mean - self.csls,
        }


def _keep_first(best: Array, first_of: Array, similarities: Array, start: int) -> None:
    """Keep the largest similarity of each query, and its item. similarities: (item, query)."""
    value = similarities.max(axis=0)
    better = np.flatnonzero(value >= best)
    item = start + similarities[:, better].argmax(axis=0)
    earlier = (value[better] > best[better]) | (item < first_of[better])
    better = better[earlier]
    best[better], first_of[better] = value[better], item[earlier]


def _biases(similarities: Array) -> tuple[Array, ...]:
    """Of some items, by their similarities (item, query) to the bank: see `Bank`."""
    near = largest(similarities, min(NNN_NEAREST, similarities.shape[1]))
    top = np.take_along_axis(similarities, near, axis=1)
    powers = np.exp(SHARPNESS * similarities, dtype=np.float32).sum(axis=1, dtype=np.float64)
    softmax = (np.log(powers) / SHARPNESS).astype(np.float32)
    return softmax, NNN_SHARE * top.mean(axis=1), top[:, :CSLS_NEAREST].mean(axis=1) / 2


def ranks(search: Search, scorers: Sequence[Scorer]) -> Rows:
    """(scorer, pair) the place from 1 of each item that a query should find; of equals the first.

    A lower number in the gallery comes before an equal score.
    """
    out = np.empty((len(scorers), len(search.item)), np.intp)

    def work(rows: slice) -> None:
        block = Block(rows, search.similarities(rows))
        pairs = slice(*np.searchsorted(search.query, (rows.start, rows.stop)))
        query, item = search.query[pairs] - rows.start, search.item[pairs]
        for found, score in zip(out, scorers, strict=True):
            found[pairs] = _places(score(block), query, item)

    side_by_side(work, search.blocks())
    return out


def _places(scores: Array, query: Rows, item: Rows) -> list[int]:
    count = np.count_nonzero
    found = []
    for row, at in zip(query.tolist(), item.tolist(), strict=True):
        values = scores[row]
        value = values[at]
        found.append(1 + int(count(values[:at] >= value)) + int(count(values[at:] > value)))
    return found


def best_ranks(search: Search, places: Rows) -> Rows:
    """(…, query) the place of the first item found, of those of each pair (…, pair)."""
    return np.asarray(np.minimum.reduceat(places, search.starts, axis=-1))


def average_precision(search: Search, places: Rows) -> Doubles:
    """(query,) the mean over the items of a query of the precision at their places (pair,)."""
    ordered = places[np.lexsort((places, search.query))]
    number = np.arange(len(places)) - search.starts[search.query] + 1
    sums = np.add.reduceat(number / ordered, search.starts)
    return np.asarray(sums / np.diff(search.starts, append=len(places)))


def _share(values: Floats, whole: Floats) -> Floats:
    """A half where there is nothing to share."""
    flat = whole < 1e-9
    return np.asarray(np.where(flat, 0.5, values / np.where(flat, 1, whole)))

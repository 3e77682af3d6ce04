"""How alike embeddings are, whose widths and axes have nothing in common.

Linear CKA, orthogonal Procrustes distance and mutual nearest neighbours of all pairs of backbones.
None of them ever holds an n x n matrix. The first two are made from the same matrix products,
``X_i' X_j`` of groups of samples. They have jackknife intervals: a bootstrap would draw samples
twice, and HSIC's unbiased estimator must leave out products of a sample with itself.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.blocks import equal_slices, side_by_side
from clipsyn.methods.numerics.metrics import ratio
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import GROUPS, LEVEL, standard_error

NEIGHBOURS = 10  # as Huh et al. 2024
MEASURES = ("cka", "procrustes")
_SIMILARITIES_AT_ONCE = 8_000_000  # 32 MB


class Similarity(NamedTuple):
    """Arrays (backbone, backbone), symmetric; NaN where there are too few samples."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def compare(
    embeddings: Sequence[NDArray[Any]],
    measures: Collection[str] = MEASURES,
    *,
    groups: int = GROUPS,
    seed: int = 0,
    images: Images | None = None,
) -> dict[str, Similarity]:
    """CKA and Procrustes distance between all pairs of embeddings of the same samples.

    embeddings: (sample, embed) of each backbone, of any width and float type, all finite.

    cka: ``HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` of linear kernels ``K = X X'``, ``L = Y Y'``
    (Kornblith et al. 2019), with the unbiased HSIC of Song et al. 2012, eq. 5. At most 1, near 0
    for independent data, where it may be below; NaN with fewer than four samples, or where an
    HSIC(K, K) is not positive (constant embeddings).

    procrustes: ``min_R ||X R - Y||`` over orthogonal R, with X and Y centred and of Frobenius norm
    1, which is ``sqrt(2 - 2 ||X'Y||_*)`` (Schönemann 1966; Ding et al. 2021 report its square):
    0 to sqrt(2). A rotation fits noise too, so with few samples for the width it is too small;
    only distances over as many samples compare.

    Intervals (95 %) are of the jackknife over `groups` random groups of samples, with all copies of
    an image (`images`) in one, and Student's t; for procrustes of the infinitesimal one, whose step
    from leaving out a group is linear. They are NaN with fewer than five samples.
    """
    _check(embeddings)
    if unknown := set(measures) - set(MEASURES):
        raise ValueError(f"no measure is called {', '.join(sorted(unknown))}")
    count = len(embeddings)
    shown = images or Images.distinct(len(embeddings[0]))
    prepared = _Prepared(embeddings, shown, groups, seed)
    hsic = np.full((count, count, len(prepared.parts) + 1), np.nan)
    nuclear = np.full_like(hsic, np.nan)

    def pair(indices: tuple[int, int]) -> None:
        i, j = indices
        products = prepared.products(i, j)
        if "cka" in measures:
            hsic[i, j] = hsic[j, i] = _hsic(prepared, i, j, products)
        if "procrustes" in measures:
            nuclear[i, j] = nuclear[j, i] = _nuclear(prepared, i, j, products)

    if prepared.parts:
        first, *others = combinations_with_replacement(range(count), 2)
        pair(first)  # makes what all pairs share
        side_by_side(pair, others)
    similarities = {}
    if "cka" in measures:
        similarities["cka"] = _jackknife(_cka(hsic))
    if "procrustes" in measures:
        similarities["procrustes"] = _jackknife(np.sqrt(np.maximum(2 - 2 * nuclear, 0)))
    return similarities


@dataclass(frozen=True)
class _Prepared:
    """Embeddings in single precision, centred, in a random order, in groups of samples.

    Centring changes neither measure and keeps sums small. Arrays (1 + group, …) are sums over all
    samples, then over all but each group.
    """

    embeddings: Sequence[NDArray[Any]]
    images: Images
    groups: int
    seed: int
    memory: threading.local = field(default_factory=threading.local)

    @cached_property
    def places(self) -> NDArray[np.intp]:
        """(sample,) the place of its image in a random order: samples often come class by class,
        and groups must be alike.
        """
        order = np.random.default_rng(self.seed).permutation(self.images.count)
        return np.argsort(order)[self.images.number]

    @cached_property
    def order(self) -> NDArray[np.intp]:
        return np.argsort(self.places, kind="stable")

    @cached_property
    def parts(self) -> list[slice]:
        """The rows of each group, with all copies of its images."""
        count, ends = self.images.count, self.places[self.order]
        slices = equal_slices(count, min(self.groups, count))
        return [slice(*np.searchsorted(ends, [it.start, it.stop]).tolist()) for it in slices]

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """(1 + group,) samples."""
        return _without_each(np.array([rows.stop - rows.start for rows in self.parts]))

    @cached_property
    def centred(self) -> list[NDArray[np.float32]]:
        arrays = []
        for values in self.embeddings:
            x = values[self.order].astype(np.float32)
            x -= x.mean(axis=0, dtype=np.float64).astype(np.float32)
            arrays.append(x)
        return arrays

    @cached_property
    def squares(self) -> NDArray[np.float64]:
        """(sample, backbone): squared norms, the diagonals of the kernels."""
        norms = [np.einsum("nd,nd->n", x, x) for x in self.centred]
        return np.stack(norms, axis=1).astype(np.float64)

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """(1 + group, backbone): sums of the squared norms."""
        return _without_each(np.stack([self.squares[rows].sum(axis=0) for rows in self.parts]))

    @cached_property
    def both(self) -> NDArray[np.float64]:
        """(1 + group, backbone, backbone): sums of products of squared norms."""
        return _without_each(self._products(self.squares))

    @cached_property
    def sums(self) -> list[NDArray[np.float64]]:
        """X'1 for each backbone: (1 + group, embed)."""
        return [
            _without_each(np.stack([x[rows].sum(axis=0, dtype=np.float64) for rows in self.parts]))
            for x in self.centred
        ]

    @cached_property
    def weighed(self) -> list[NDArray[np.float64]]:
        """X'b for each backbone and the squared norms b of all: (1 + group, backbone, embed)."""
        squares = self.squares.astype(np.float32)
        return [
            _without_each(np.stack([squares[rows].T @ x[rows] for rows in self.parts]))
            for x in self.centred
        ]

    @cached_property
    def inside(self) -> NDArray[np.float64]:
        """(group, backbone, backbone): ``u' X_g' Y_g v`` with u and v the sums without g."""
        parts = [
            np.concatenate([x[rows] @ u[1 + number] for number, rows in enumerate(self.parts)])
            for x, u in zip(self.centred, self.sums, strict=True)
        ]
        return self._products(np.stack(parts, axis=1))

    def products(self, i: int, j: int) -> NDArray[np.float32]:
        """X'Y of each group: (group, embed, embed), in memory that the next call here reuses."""
        x, y = self.centred[i], self.centred[j]
        shape = len(self.parts), x.shape[1], y.shape[1]
        if not hasattr(self.memory, "array"):  # new memory takes longer to get than to fill
            widest = max(x.shape[1] for x in self.centred)
            self.memory.array = np.empty(len(self.parts) * widest**2, np.float32)
        out: NDArray[np.float32] = self.memory.array[: math.prod(shape)].reshape(shape)
        for number, rows in enumerate(self.parts):
            np.matmul(x[rows].T, y[rows], out=out[number])
        return out

    def _products(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """(sample, backbone) -> (group, backbone, backbone)."""
        return np.stack([columns[rows].T @ columns[rows] for rows in self.parts])


def _hsic(
    prepared: _Prepared, i: int, j: int, products: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(1 + group,): over all samples, and without each group.

    ``[tr(K~ L~) + 1'K~1 1'L~1 / ((n-1)(n-2)) - 2/(n-2) 1'K~ L~1] / (n (n-3))`` with ``K~`` the K
    with a diagonal of zeros, where

        tr(K~ L~) = ||X'Y||^2 - a'b        1'K~1 = ||X'1||^2 - 1'a
        1'K~ L~1 = (X'1)' X'Y (Y'1) - (X'1)' X'b - (Y'1)' Y'a + a'b

    a and b are the diagonals of K and L.
    """
    u, v = prepared.sums[i], prepared.sums[j]
    ab = prepared.both[:, i, j]
    whole = products.sum(axis=0)
    trace = _squared_norms(whole, products) - ab
    totals = (_dot(u, u) - prepared.norms[:, i]) * (_dot(v, v) - prepared.norms[:, j])
    through = _dot((u.astype(np.float32) @ whole).astype(np.float64), v)
    through[1:] -= prepared.inside[:, i, j]
    along = _dot(u, prepared.weighed[i][:, j]) + _dot(v, prepared.weighed[j][:, i])
    cross = through - along + ab
    n = np.where(prepared.counts > 3, prepared.counts, np.nan)
    hsic = trace + totals / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)
    return np.asarray(hsic / (n * (n - 3)))


def _squared_norms(
    whole: NDArray[np.float32], products: NDArray[np.float32]
) -> NDArray[np.float64]:
    """``||X'Y||^2`` over all samples, and without each group: (1 + group,)."""
    rest = np.empty_like(whole)
    squares = [_inner(whole, whole)]
    for product in products:
        np.subtract(whole, product, out=rest)
        squares.append(_inner(rest, rest))
    return np.array(squares)


def _inner(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The sum of products, within a row in single precision and over rows in double."""
    return float(np.einsum("xy,xy->x", first, second).sum(dtype=np.float64))


def _cka(hsic: NDArray[np.float64]) -> NDArray[np.float64]:
    """(backbone, backbone, 1 + group), from the HSIC of all pairs."""
    own = np.einsum("iig->ig", hsic)
    own = np.sqrt(np.where(own > 0, own, np.nan))
    return np.asarray(hsic / (own[:, None] * own[None]))


def _nuclear(
    prepared: _Prepared, i: int, j: int, products: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(1 + group,): the nuclear norm of X'Y over the Frobenius norms of X and Y.

    That of X'X is its trace. Leaving out a group takes ``<U V', X_g' Y_g>`` from it, to first
    order, with ``X'Y = U S V'``.
    """
    scale = np.sqrt(prepared.norms[:, i] * prepared.norms[:, j])
    if i == j:
        nuclear = prepared.norms[:, i]
    else:
        norm, polar = _polar(products.sum(axis=0))
        nuclear = norm - np.array([0.0, *(_inner(polar, product) for product in products)])
    return ratio(nuclear, scale)


def _polar(matrix: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
    """The nuclear norm, and ``U V'`` of ``U S V'``.

    From the eigenvectors of the smaller Gram matrix in double precision, six times as fast as
    a singular value decomposition; directions of no size count for nothing either way.
    """
    if matrix.shape[0] > matrix.shape[1]:
        norm, polar = _polar(matrix.T)
        return norm, polar.T
    exact = matrix.astype(np.float64)
    values, vectors = np.linalg.eigh(exact @ exact.T)
    sizes = np.sqrt(np.maximum(values, 0))
    inverse = np.divide(1, sizes, out=np.zeros_like(sizes), where=sizes > 1e-7 * sizes[-1])
    root = ((vectors * inverse) @ vectors.T).astype(np.float32)
    return float(sizes.sum()), root @ matrix


def _jackknife(replicates: NDArray[np.float64]) -> Similarity:
    """From values (backbone, backbone, 1 + group): of all samples, then without each group."""
    from scipy.special import stdtrit

    value, without = replicates[..., 0], replicates[..., 1:]
    groups = without.shape[-1]
    if groups < 2:
        unknown = np.full_like(value, np.nan)
        return Similarity(value, unknown, unknown)
    half = stdtrit(groups - 1, (1 + LEVEL) / 2) * standard_error(without)
    return Similarity(value, value - half, value + half)


def _without_each(parts: NDArray[Any]) -> NDArray[np.float64]:
    """(group, …) sums -> (1 + group, …): the sum over all groups, and over all but each."""
    whole = parts.sum(axis=0, dtype=np.float64)
    return np.concatenate([whole[None], whole - parts])


def _dot(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("gd,gd->g", first, second))


def mutual_neighbours(
    embeddings: Sequence[NDArray[Any]], k: int = NEIGHBOURS
) -> NDArray[np.float32]:
    """(backbone, backbone, sample): share of the k nearest samples that two backbones agree on.

    embeddings: (sample, embed) unit norm, of each backbone. Nearest by cosine, among all other
    samples; of equally near ones those in the lowest rows. The mean over samples is the mutual
    k-NN alignment of Huh et al. 2024 (The Platonic Representation Hypothesis). By chance it is
    ``k / (n - 1)``, so only numbers over as many samples compare. NaN where there are no more
    than k other samples: every one is a neighbour then.
    """
    _check(embeddings)
    if k < 1:
        raise ValueError(f"there is at least one neighbour, not {k}")
    n, count = len(embeddings[0]), len(embeddings)
    shares = np.full((count, count, n), np.nan, np.float32)
    if n <= k + 1:
        return shares
    arrays = [values.astype(np.float32) for values in embeddings]
    step = max(1, _SIMILARITIES_AT_ONCE // n)
    for start in range(0, n, step):
        rows = range(start, min(start + step, n))
        near = [_nearest(x, rows, k) for x in arrays]
        for i, j in combinations_with_replacement(range(count), 2):
            both = (near[i][:, :, None] == near[j][:, None, :]).sum(axis=(1, 2))
            shares[i, j, rows.start : rows.stop] = shares[j, i, rows.start : rows.stop] = both / k
    return shares


def _nearest(x: NDArray[np.float32], rows: range, k: int) -> NDArray[np.intp]:
    """(row, k) samples with the largest products with each row, itself left out, ascending."""
    similar = x[rows.start : rows.stop] @ x.T
    similar[np.arange(len(rows)), rows] = -np.inf
    least = np.partition(similar, -k, axis=1)[:, -k, None]
    near = similar >= least
    surplus = np.count_nonzero(near, axis=1) - k
    for row in np.flatnonzero(surplus):  # where samples are equally near the last are left out
        ties = np.flatnonzero(similar[row] == least[row])
        near[row, ties[-surplus[row] :]] = False
    return np.nonzero(near)[1].reshape(len(rows), k)


def _check(embeddings: Sequence[NDArray[Any]]) -> None:
    shapes = [values.shape for values in embeddings]
    if not shapes or any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(f"embeddings are (sample, embed) of the same samples, not {shapes}")

"""How alike embeddings are, whose widths and axes have nothing in common.

Linear CKA, orthogonal Procrustes distance and mutual nearest neighbours of all pairs of backbones.
None of them ever holds an n x n matrix.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from clipsyn.methods.numerics import Array, Doubles, Floats, Rows
from clipsyn.methods.numerics.blocks import equal_slices, side_by_side
from clipsyn.methods.numerics.metrics import ratio
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import GROUPS, LEVEL, standard_error

_SIMILARITIES_AT_ONCE = 8_000_000  # 32 MB


def similarities(
    embeddings: Sequence[Array],
    *,
    groups: int = GROUPS,
    seed: int = 0,
    images: Images | None = None,
) -> dict[str, Doubles]:
    """CKA and Procrustes distance of all pairs: (value, low and high; backbone, backbone).

    embeddings: (sample, embed) of each backbone, of the same samples, of any width and float type,
    all finite.

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
    from leaving out a group is linear. NaN with fewer than five samples. A bootstrap would draw
    samples twice, and HSIC's unbiased estimator must leave out products of a sample with itself.
    """
    count = len(embeddings)
    of_pair = _of_pairs(embeddings, images or Images.distinct(len(embeddings[0])), groups, seed)

    def fill(pair: tuple[int, int]) -> None:
        i, j = pair
        values[:, i, j] = values[:, j, i] = of_pair(i, j)

    first, *others = combinations_with_replacement(range(count), 2)
    of_first = of_pair(*first)
    values = np.full((2, count, count, of_first.shape[1]), np.nan)
    values[:, *first] = of_first
    side_by_side(fill, others)
    hsic, nuclear = values
    own = np.einsum("iig->ig", hsic)
    own = np.sqrt(np.where(own > 0, own, np.nan))
    return {
        "cka": _jackknife(np.asarray(hsic / (own[:, None] * own[None]))),
        "procrustes": _jackknife(np.sqrt(np.maximum(2 - 2 * nuclear, 0))),
    }


def _of_pairs(
    embeddings: Sequence[Array], images: Images, groups: int, seed: int
) -> Callable[[int, int], Doubles]:
    """Function (i, j) -> of two backbones (2, 1 + group): over all samples, and without each group.

    First their HSIC,

    ``[tr(K~ L~) + 1'K~1 1'L~1 / ((n-1)(n-2)) - 2/(n-2) 1'K~ L~1] / (n (n-3))`` with ``K~`` the K
    with a diagonal of zeros, where

        tr(K~ L~) = ||X'Y||^2 - a'b        1'K~1 = ||X'1||^2 - 1'a
        1'K~ L~1 = (X'1)' X'Y (Y'1) - (X'1)' X'b - (Y'1)' Y'a + a'b

    a and b are the diagonals of K and L. Then the nuclear norm of X'Y over the Frobenius norms of X
    and Y. Leaving out a group takes ``<U V', X_g' Y_g>`` from it, to first order, with ``X'Y = U S
    V'``; that of X'X is its trace. Samples are in a random order, for they often come class by
    class, and groups must be alike. Embeddings are centred, which keeps sums small and changes no
    HSIC.
    """
    places = np.argsort(np.random.default_rng(seed).permutation(images.count))[images.number]
    order = np.argsort(places, kind="stable")
    ends = places[order]
    slices = equal_slices(images.count, min(groups, images.count))
    parts = [slice(*np.searchsorted(ends, [it.start, it.stop]).tolist()) for it in slices]
    if not parts:
        return lambda i, j: np.full((2, 1), np.nan)
    centred = [_centred(values[order]) for values in embeddings]
    # diagonals of the kernels, (sample, backbone)
    norms = [np.einsum("nd,nd->n", x, x) for x in centred]
    squares = np.stack(norms, axis=1).astype(np.float64)
    single = squares.astype(np.float32)

    def each(of_part: Callable[[slice], Any]) -> Doubles:
        return _without_each(np.stack([of_part(rows) for rows in parts]))

    counts = each(lambda rows: rows.stop - rows.start)
    n = np.where(counts > 3, counts, np.nan)
    traces = each(lambda rows: squares[rows].sum(axis=0))  # 1'a of each
    both = each(lambda rows: squares[rows].T @ squares[rows])  # a'b of pairs
    sums, weighed = [], []  # X'1 and X'b of each
    for x in centred:
        in_parts = [x[rows] for rows in parts]
        sums.append(_without_each(np.stack([of.sum(axis=0, dtype=np.float64) for of in in_parts])))
        products_b = [single[rows].T @ of for rows, of in zip(parts, in_parts, strict=True)]
        weighed.append(_without_each(np.stack(products_b)))
    # (X_g u)'(Y_g v) of each group g, with u and v the sums without it
    through_own = [
        np.concatenate([x[rows] @ u[1 + number] for number, rows in enumerate(parts)])
        for x, u in zip(centred, sums, strict=True)
    ]
    columns = np.stack(through_own, axis=1)
    inside = np.stack([columns[rows].T @ columns[rows] for rows in parts])
    widest, memory = max(x.shape[1] for x in centred), threading.local()

    def products(i: int, j: int) -> Floats:
        """X'Y of each group: (group, embed, embed), in memory that the next call here reuses."""
        x, y = centred[i], centred[j]
        shape = len(parts), x.shape[1], y.shape[1]
        if not hasattr(memory, "array"):  # new memory takes longer to get than to fill
            memory.array = np.empty(len(parts) * widest**2, np.float32)
        out: Floats = memory.array[: math.prod(shape)].reshape(shape)
        for number, rows in enumerate(parts):
            np.matmul(x[rows].T, y[rows], out=out[number])
        return out

    def of_pair(i: int, j: int) -> Doubles:
        u, v, ab = sums[i], sums[j], both[:, i, j]
        of_groups = products(i, j)
        whole = of_groups.sum(axis=0)
        trace = _squared_norms(whole, of_groups) - ab
        totals = (_dot(u, u) - traces[:, i]) * (_dot(v, v) - traces[:, j])
        through = _dot((u.astype(np.float32) @ whole).astype(np.float64), v)
        through[1:] -= inside[:, i, j]
        cross = through - (_dot(u, weighed[i][:, j]) + _dot(v, weighed[j][:, i])) + ab
        hsic = trace + totals / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)
        nuclear = traces[:, i] if i == j else _nuclear_norms(whole, of_groups)
        size = np.sqrt(traces[:, i] * traces[:, j])
        return np.stack([hsic / (n * (n - 3)), ratio(nuclear, size)])

    return of_pair


def _centred(values: Array) -> Floats:
    x = values.astype(np.float32)
    x -= x.mean(axis=0, dtype=np.float64).astype(np.float32)
    return x


def _squared_norms(whole: Floats, products: Floats) -> Doubles:
    """``||X'Y||^2`` over all samples, and without each group: (1 + group,)."""
    rest = np.empty_like(whole)
    squares = [_inner(whole, whole)]
    for product in products:
        np.subtract(whole, product, out=rest)
        squares.append(_inner(rest, rest))
    return np.array(squares)


def _nuclear_norms(whole: Floats, products: Floats) -> Doubles:
    """``||X'Y||_*`` over all samples, and to first order without each group: (1 + group,).

    From the eigenvectors of the smaller Gram matrix in double precision, six times as fast as
    a singular value decomposition; directions of no size count for nothing either way.
    """
    is_tall = whole.shape[0] > whole.shape[1]
    wide = whole.T if is_tall else whole
    exact = wide.astype(np.float64)
    values, vectors = np.linalg.eigh(exact @ exact.T)
    sizes = np.sqrt(np.maximum(values, 0))
    inverse = np.divide(1, sizes, out=np.zeros_like(sizes), where=sizes > 1e-7 * sizes[-1])
    root = ((vectors * inverse) @ vectors.T).astype(np.float32)
    polar = (root @ wide).T if is_tall else root @ wide
    parts = np.array([0.0, *(_inner(polar, product) for product in products)])
    return np.asarray(sizes.sum() - parts)


def _inner(first: Floats, second: Floats) -> float:
    """The sum of products, within a row in single precision and over rows in double."""
    return float(np.einsum("xy,xy->x", first, second).sum(dtype=np.float64))


def _jackknife(replicates: Doubles) -> Doubles:
    """From values (backbone, backbone, 1 + group): of all samples, then without each group."""
    from scipy.special import stdtrit

    value, without = replicates[..., 0], replicates[..., 1:]
    half = stdtrit(without.shape[-1] - 1, (1 + LEVEL) / 2) * standard_error(without)
    return np.stack([value, value - half, value + half])


def _without_each(parts: Array) -> Doubles:
    """(group, …) sums -> (1 + group, …): the sum over all groups, and over all but each."""
    whole = parts.sum(axis=0, dtype=np.float64)
    return np.concatenate([whole[None], whole - parts])


def _dot(first: Doubles, second: Doubles) -> Doubles:
    return np.asarray(np.einsum("gd,gd->g", first, second))


def mutual_neighbours(embeddings: Sequence[Array], k: int) -> Floats:
    """(backbone, backbone, sample): share of the k nearest samples that two backbones agree on.

    embeddings: (sample, embed) unit norm, of each backbone. Nearest by cosine, among all other
    samples; of equally near ones those in the lowest rows. The mean over samples is the mutual
    k-NN alignment of Huh et al. 2024 (The Platonic Representation Hypothesis). By chance it is
    ``k / (n - 1)``, so only numbers over as many samples compare. NaN where there are no more
    than k other samples: every one is a neighbour then.
    """
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


def _nearest(x: Floats, rows: range, k: int) -> Rows:
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

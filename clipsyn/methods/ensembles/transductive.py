"""Ensembles that see the images they answer for together, without their labels.

Their answer for an image depends on the others, so they are no rivals of what answers for each
image alone: they stand in a section of their own, and nothing chooses them. `batch` says how many
images are seen at once.

Of one backbone, f is an image's unit-norm embedding of width d, p the class probabilities of its
logits. n images, K classes. `TransCLIP` and `ZLaP` are of one backbone: the probabilities of all
are averaged here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.methods.ensembles.base import Ensemble, log_shares
from clipsyn.methods.estimator import as_pool, learned, parameter
from clipsyn.methods.numerics import Array, Floats, Labels, Mask, Rows
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.gaussians import Gaussians, Moments
from clipsyn.methods.numerics.logits import mixture, softmax, sums
from clipsyn.methods.numerics.neighbours import largest, nearest
from clipsyn.methods.numerics.transport import balance
from clipsyn.methods.pool import Pool
from clipsyn.settings import NUMBER, WHOLE

_STEPS = 10  # of means and shares in turn
_SOFTNESS = 50  # that densities are divided by
_INNER_STEPS, _NEIGHBOURS = 5, 3  # of TransCLIP
_SCALE = 100.0  # that logits are divided by to be cosines, where the backbone's is not known
_ROUNDING = 1e-7  # where propagation ends
_TINY = np.finfo(np.float32).tiny


class _Seen(NamedTuple):
    """What one backbone says of the images."""

    name: str
    logits: Floats  # (sample, class)
    features: Array  # (sample, embed)
    scale: float  # of the logits


@dataclass(eq=False, repr=False)
class Transductive(Ensemble):
    """batch: how many images, drawn at random, are seen at once; None sees all of them."""

    learns: ClassVar[bool] = False
    needs_embeddings: ClassVar[bool] = True
    sees_together: ClassVar[bool] = True

    batch: int | None = parameter(None, WHOLE, least=1, instead_of_none="all images")

    def combine(self, pool: Pool | ArrayLike) -> Floats:
        """Scores (sample, class); NaN for samples without logits or an embedding of a backbone."""
        self.check_parameters()
        pool = self._aligned(as_pool(pool))
        pool.take(slice(0)).features()  # raises where there are no embeddings
        rows = np.flatnonzero(_embedded(pool))
        pool.let_go()
        out = np.full((len(pool), pool.n_classes), np.nan, np.float32)
        for part in self._batches(rows):
            seen = pool if len(part) == len(pool) else pool.take(part)
            out[part] = log_shares(self._shares(seen), 1)
        return out

    def _batches(self, rows: Rows) -> list[Rows]:
        """At random, since images of a class often stand together; as equal as can be."""
        if not self.batch or len(rows) <= self.batch:
            return [rows] if len(rows) else []
        order = np.random.default_rng(0).permutation(rows)
        return [np.sort(it) for it in np.array_split(order, math.ceil(len(rows) / self.batch))]

    def _shares(self, pool: Pool) -> Floats:
        """(sample, class) probabilities, those of the backbones averaged."""
        total = np.zeros((len(pool), pool.n_classes), np.float32)
        for column, name in enumerate(pool.backbones):
            logits = np.ascontiguousarray(pool.logits[:, column])
            pool.let_go()
            scale = pool.logit_scales.get(name, _SCALE)
            total += self._shares_of(_Seen(name, logits, pool.embeddings[name], scale))
        total /= len(pool.backbones)
        return total

    def _shares_of(self, seen: _Seen) -> Floats:
        """(sample, class) probabilities of one backbone."""
        raise NotImplementedError


@dataclass(eq=False, repr=False)
class TransCLIP(Transductive):
    """Class Gaussians of all images, held by zero-shot answers and by neighbours.

        z_i ∝ p_i exp(l_i / 50 + sum_j w_ij z_j),  l_ic = -1/2 sum_k (f_ik - mu_ck)^2 / s_k
        w = (W + W^T) / 6,  W_ij the cosine of image i to its 3 nearest others j

    Five steps of z, then mu_c, the unit-norm mean of the embeddings weighted by z, and the
    variances s, in turn ten times. mu starts from the 8 most confident images of each class, s at
    1/d.

    Zanella, Gérin, Ben Ayed, "Boosting Vision-Language Models with Transduction", NeurIPS 2024,
    arXiv 2406.01837.

    >>> from clipsyn import Pool, TransCLIP
    >>> kinds = [[1, 0], [1, 0], [1, 0], [0, 1]]
    >>> logits = [[[3, 0]], [[3, 0]], [[0, 0.1]], [[0, 3]]]  # the third is of the first's kind
    >>> TransCLIP().predict(Pool.of(logits, embeddings=[kinds]))
    array([0, 0, 0, 1], dtype=uint16)
    """

    _power: ClassVar[float] = 1  # of p_i

    def _shares_of(self, seen: _Seen) -> Floats:
        of_known, votes, weight = self._known(seen)
        z, after, held = (np.empty_like(seen.logits, order="C") for _ in range(3))
        _rowwise(lambda rows: softmax(seen.logits[rows]), z)
        gaussians = Gaussians.around(seen.features, z)
        gaussians = gaussians._replace(means=gaussians.fitted(of_known).means)
        links = _links(seen.features, seen.features, _NEIGHBOURS)
        links = _halved(links.T + links)
        for step in range(_STEPS + 1):
            if step:
                moments = Moments.of(seen.features, z).plus(of_known, weight)
                gaussians = gaussians.fitted(moments)
            _rowwise(partial(self._held, seen, gaussians, votes), held)
            for _ in range(_INNER_STEPS):
                _rowwise(partial(_smoothed, held, links, z), after)
                z, after = after, z
        return z

    def _held(self, seen: _Seen, gaussians: Gaussians, votes: Any, rows: slice) -> Floats:
        """What steps of z leave as it is: densities, votes, log p less a number for each sample."""
        held: Floats = gaussians.log_densities(seen.features[rows])
        held /= _SOFTNESS
        held += votes[rows].toarray()
        logits = seen.logits[rows]
        held += self._power * (logits - logits.max(axis=1, keepdims=True))
        return held

    def _known(self, seen: _Seen) -> tuple[Moments, Any, float]:
        """Labelled images, whose z never change: their sums, (image, class) sparse sums of w times
        z over them, and what each counts for, of one without 1.
        """
        from scipy import sparse  # 0.1 s

        of_none = Moments.of(seen.features[:0], seen.logits[:0])
        return of_none, sparse.csr_array(seen.logits.shape, dtype=np.float32), 0.0


def _halved(links: Any) -> Any:
    """Of edges from both sides; sparse."""
    # a quotient would be in double precision, and each product would copy z to it
    return links.tocsr() * np.float32(1 / (2 * _NEIGHBOURS))


def _smoothed(held: Floats, links: Any, z: Floats, rows: slice) -> Array:
    return softmax(held[rows] + links[rows] @ z)


@dataclass(eq=False, repr=False)
class TransCLIPFewShot(TransCLIP):
    """`TransCLIP` with the labelled images of the support among the others.

    Their z are their labels. They count in w by their 3 nearest images, in mu and s by `gamma` *
    50 / (their number) beside the 1/n of an image; p_i has the power 1/2, and mu starts from their
    class sums, where a class has any. The publication chooses gamma of 0.002, 0.01, 0.02 and 0.2 on
    validation images; 0.002 was best on train splits of the shipped sets (docs/dev/decisions.md).

    Learned: `support_` by backbone (support, embed); `labels_` (support,).

    >>> from clipsyn import Pool, TransCLIPFewShot
    >>> kinds = [[[1, 0], [0, 1]]]
    >>> support = Pool.of([[[0, 0]], [[0, 0]]], [1, 0], kinds)  # the text knows nothing
    >>> TransCLIPFewShot().fit(support).predict(support)
    array([1, 0], dtype=uint16)
    """

    learns: ClassVar[bool] = True
    knows_classes: ClassVar[bool] = True
    _power: ClassVar[float] = 0.5

    gamma: float = parameter(0.002, NUMBER, least=0)

    support_: dict[str, NDArray[np.float16]] = learned()
    labels_: Labels = learned()

    def _learn(self, support: Pool) -> None:  # of one backbone, too
        support.features()  # raises where there are no embeddings
        known = np.flatnonzero(_embedded(support))
        self.support_ = {
            name: support.embeddings[name][known].astype(np.float16) for name in support.backbones
        }
        self.labels_ = support.labels[known]
        support.let_go()

    def _known(self, seen: _Seen) -> tuple[Moments, Any, float]:
        from scipy import sparse

        images, known = self.support_[seen.name], np.eye(seen.logits.shape[1], dtype=np.float32)
        known = known[self.labels_]
        votes = _links(images, seen.features, _NEIGHBOURS).T @ sparse.csr_array(known)
        weight = 50 * self.gamma * len(seen.logits) / max(1, len(self.labels_))
        return Moments.of(images, known), _halved(votes), weight


@dataclass(eq=False, repr=False)
class ZLaP(Transductive):
    """Label propagation from class texts through a graph of images.

        Z = (I - alpha S)^-1 Y,  S = D^-1/2 (W + W^T) D^-1/2,  p_i ∝ Z_i

    Nodes are texts and images, Y is 1 between a text and its class. An image has edges to the k
    nearest images, of which it is itself one that does not count, with their cosines as weights,
    and to the k nearest texts, with the power gamma of theirs; what is below 0 is 0. Cosines to
    texts are logits divided by the logit scale (by 100, where it is not known), so that other heads
    may give them.

    Stojnić, Kalantidis, Tolias, "Label Propagation for Zero-shot Classification with
    Vision-Language Models", CVPR 2024, arXiv 2404.04072. There the equations are solved by
    conjugate gradients, here by repeated propagation, to rounding.

    >>> from clipsyn import Pool, ZLaP
    >>> kinds = [[1, 0], [1, 0], [1, 0], [0, 1]]
    >>> logits = [[[30, 0]], [[30, 0]], [[0, 1]], [[0, 30]]]  # the third is of the first's kind
    >>> ZLaP().predict(Pool.of(logits, embeddings=[kinds]))
    array([0, 0, 0, 1], dtype=uint16)
    """

    k: int = parameter(5, WHOLE, least=1)
    gamma: float = parameter(5.0, NUMBER, least=0)
    alpha: float = parameter(0.3, NUMBER, least=0.01, most=0.99)

    def _shares_of(self, seen: _Seen) -> Floats:
        from scipy import sparse

        links = _links(seen.features, seen.features, self.k - 1).maximum(0)
        texts, classes = self._texts(seen), seen.logits.shape[1]
        graph = sparse.block_array([[None, texts.T], [texts, links + links.T]], format="csr")
        degrees = np.asarray(graph.sum(axis=1)).ravel()
        root = sparse.diags_array(np.where(degrees > 0, degrees, 1) ** -0.5)
        graph = (self.alpha * (root @ graph @ root)).astype(np.float32).tocsr()
        found, after = np.zeros((2, graph.shape[0], classes), np.float32)
        for _ in range(math.ceil(math.log(_ROUNDING) / math.log(self.alpha)) + 1):
            _rowwise(partial(_spread, graph, found), after)
            after[np.diag_indices(classes)] += 1
            found, after = after, found
        scores: Floats = found[classes:]
        scores /= np.maximum(sums(scores), _TINY)[:, None]
        return scores

    def _texts(self, seen: _Seen) -> Any:
        """(image, class) sparse weights of the edges to the nearest texts."""
        logits, classes = seen.logits, seen.logits.shape[1]
        k = min(self.k, classes)
        near = np.concatenate(in_blocks(lambda rows: largest(logits[rows], k), logits.shape))
        cosines = np.take_along_axis(logits, near, axis=1) / seen.scale
        return _sparse(near, np.maximum(cosines, 0) ** self.gamma, classes)


def _spread(graph: Any, found: Floats, rows: slice) -> Array:
    return np.asarray(graph[rows] @ found)


@dataclass(eq=False, repr=False)
class SOTA(Transductive):
    """Optimal transport between images and classes, of all backbones together.

        F = sum_b a_b P_b + sum_b c_b p_b,  z = Sinkhorn(F / 0.01),  P_b = softmax_c(l_b / 50)

    l_b: log-densities of `TransCLIP`'s Gaussians, which start from the mean of the p_b. Sinkhorn
    scales exp(F / 0.01) until classes have equal sums over images, at most 15 times. Then a_b and
    c_b are set in proportion to how often P_b and p_b put z's class first, and the Gaussians to
    their means under z, in turn ten times. So as many images are expected of each class: where they
    are not, answers are wrong.

    Hu et al., "SOTA: Self-adaptive Optimal Transport for Foundation Model Integration in
    Transductive Zero-Shot Learning", CVPR 2026, arXiv 2506.13723.

    >>> from clipsyn import SOTA, Pool
    >>> kinds = [[1, 0], [1, 0], [0, 1], [0, 1]]
    >>> logits = [[[3, 0]], [[3, 0]], [[1, 0]], [[1, 0]]]  # all of class 0, two not so surely
    >>> SOTA().predict(Pool.of(logits, embeddings=[kinds]))
    array([0, 0, 1, 1], dtype=uint16)
    """

    def _shares(self, pool: Pool) -> Floats:
        features = [pool.embeddings[name] for name in pool.backbones]
        equal = np.full(len(features), 1 / len(features), np.float32)
        z = np.empty((len(pool), pool.n_classes), np.float32)

        def block(rows: slice) -> Rows:
            z[rows] = mixture(pool.logits[rows], equal)
            return np.asarray(pool.logits[rows].argmax(axis=2))

        predicted, weights = _of_blocks(block, pool), (equal, equal)
        gaussians = [Gaussians.around(one, z) for one in features]
        for step in range(_STEPS):
            if step:
                pairs = zip(gaussians, features, strict=True)
                gaussians = [before.fitted(Moments.of(one, z)) for before, one in pairs]
            first = _fuse(z, pool, gaussians, *weights)
            balance(z)
            weights = _agreement(first, z), _agreement(predicted, z)
        return z


def _fuse(
    z: Floats, pool: Pool, gaussians: list[Gaussians], of_gaussians: Floats, of_texts: Floats
) -> Rows:
    """Make z the weighted sum of all P and p; (sample, backbone) the first class of each P."""

    def block(rows: slice) -> Rows:
        z[rows], first = mixture(pool.logits[rows], of_texts), []
        for name, one, weight in zip(pool.backbones, gaussians, of_gaussians, strict=True):
            densities = one.log_densities(pool.embeddings[name][rows])
            first.append(densities.argmax(axis=1))
            densities /= _SOFTNESS
            z[rows] += weight * softmax(densities)
        return np.stack(first, axis=1)

    return _of_blocks(block, pool)


def _of_blocks(work: Callable[[slice], Rows], pool: Pool) -> Rows:
    """work(rows) for all rows of a pool, of whose files a block or two stay in memory."""

    def block(rows: slice) -> Rows:
        found = work(rows)
        pool.let_go()
        return found

    return np.concatenate(in_blocks(block, pool.shape))


def _agreement(first: Rows, z: Floats) -> Floats:
    """(backbone,) shares of how often each puts the same class first as z."""
    agreeing = np.maximum(np.count_nonzero(first == z.argmax(axis=1)[:, None], axis=0), 1e-8)
    return np.asarray(agreeing / agreeing.sum(), np.float32)


def _links(images: Array, known: Array, k: int) -> Any:
    """(image, known) sparse: cosines to the k nearest, of images that are those known the others"""
    own = images is known
    k = min(k, len(known) - own)
    found = nearest(lambda rows: images[rows].astype(np.float32), len(images), known, k, own=own)
    return _sparse(*found, len(known))


def _sparse(columns: Array, values: Array, width: int) -> Any:
    """(row, width) with some values in each row."""
    from scipy import sparse  # 0.1 s

    count, each = columns.shape
    parts = values.ravel(), columns.ravel(), np.arange(count + 1) * each
    return sparse.csr_array(parts, shape=(count, width))


def _rowwise(compute: Callable[[slice], Array], out: Floats) -> None:
    """Set out (sample, class) to what is computed of blocks of rows, on all cores."""

    def block(rows: slice) -> None:
        out[rows] = compute(rows)

    in_blocks(block, out.shape)


def _embedded(pool: Pool) -> Mask:
    """(sample,) whether all backbones have logits and an embedding of it."""
    known = [np.isfinite(pool.embeddings[name][:, 0]) for name in pool.backbones]
    return np.asarray(np.logical_and.reduce([pool.readable, *known]))

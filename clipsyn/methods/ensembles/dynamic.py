"""Dynamic selection: backbones are trusted where they were right on similar support samples.

The embeddings of all backbones stand side by side; a sample's neighbours are the k support samples
with the largest cosine. Of equal cosines those count that come first in the support set. The search
is one matrix product, and nearly all of the time: its result is kept for the other ensemble that
asks for the same neighbours, and for other heads on the same images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import RouterMismatch
from clipsyn.methods.ensembles.base import Ensemble, Router, log_shares, one_hot
from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.numerics import Array, Floats, Labels, Mask
from clipsyn.methods.numerics.logits import mixture
from clipsyn.methods.numerics.neighbours import nearest
from clipsyn.methods.pool import Pool
from clipsyn.settings import WHOLE

_MOST_KEPT = 16  # searches: 7 neighbours of 50,000 samples are 1.4 MB
_NEARBY = "nearby"  # (sample, backbone) how many neighbours each is right on


@dataclass(eq=False, repr=False)
class _LocalCompetence(Ensemble):
    """Neighbours of each sample, and which backbones are right on them.

    k: how many neighbours; all support samples where there are fewer. Needs embeddings. A support
    sample without them is nobody's neighbour, and a sample without them has none.

    Learned: `support_` (support, sum of embed) float16; `right_` (support, backbone), whether the
    backbone is right there.
    """

    needs_embeddings: ClassVar[bool] = True

    k: int = parameter(7, WHOLE, least=1)

    support_: NDArray[np.float16] = learned()
    right_: Mask = learned()

    def _fit(self, pool: Pool) -> None:
        features = pool.features()
        known = np.isfinite(features @ np.ones(features.shape[1], np.float32))
        self.support_ = features.astype(np.float16)[known]
        self.right_ = (pool.logits.argmax(axis=2) == pool.labels[:, None])[known]

    def _aligned(self, pool: Pool) -> Pool:
        pool = super()._aligned(pool)
        if len(pool.backbones) == 1:
            return pool
        # all that a formula needs of the embeddings, in their place
        return replace(pool, embeddings={_NEARBY: self._right_nearby(pool)})

    def _right_nearby(self, pool: Pool) -> Floats:
        """(sample, backbone): how many of the k neighbours the backbone is right on."""
        count, width = self.support_.shape
        given = pool.take(slice(0)).features().shape[1]
        if given != width:
            raise RouterMismatch("sizes of the embeddings", width, given)
        if len(self.right_) != count:  # of a router whose file was changed
            raise RouterMismatch("number of support samples", count, len(self.right_))
        right = np.append(self.right_, np.zeros((1, len(pool.backbones)), bool), axis=0)
        out = np.zeros((len(pool), len(pool.backbones)), np.float32)
        if self.k >= count:
            out += right.sum(axis=0)
            return out
        for rows in _neighbours(self.support_, pool, self.k).T:
            out += right[rows]
        return out


class OverallLocalAccuracy(_LocalCompetence, Router):
    """``z = z_b*`` with b* the backbone that is right on most of the k neighbours.

    K. Woods, W. P. Kegelmeyer, K. Bowyer, "Combination of Multiple Classifiers Using Local
    Accuracy Estimates", IEEE TPAMI 19(4), 1997 (DCS-LA, overall local accuracy). Ties are common
    with few neighbours; they go to the backbone with the largest probability for this sample, then
    to the name that sorts first.

    >>> from clipsyn import OverallLocalAccuracy, Pool
    >>> kinds = [[1, 0], [1, 0], [0, 1], [0, 1]]  # embeddings of two kinds of images
    >>> logits = [[[3, 0], [0, 1]], [[0, 3], [1, 0]], [[0, 1], [3, 0]], [[1, 0], [0, 3]]]
    >>> support = Pool.of(logits, [0, 1, 0, 1], [kinds, kinds])  # a backbone is right on each kind
    >>> OverallLocalAccuracy(k=2).fit(support).weights(support)  # (sample, backbone)
    array([[1., 0.],
           [1., 0.],
           [0., 1.],
           [0., 1.]], dtype=float32)
    """

    def _weights(self, pool: Pool) -> Array:
        nearby = pool.embeddings[_NEARBY]
        powers = pool.logits - pool.logits.max(axis=2, keepdims=True)
        confidence = 1 / np.exp(powers, out=powers).sum(axis=2)  # of the first class
        confidence[nearby < nearby.max(axis=1, keepdims=True)] = -1
        return one_hot(confidence.argmax(axis=1), len(pool.backbones))


class KnoraUnion(_LocalCompetence):
    """``z_c = log((votes_c + mean_b p_b(c)) / (1 + votes of all))``.

    Each backbone votes for its first class as often as it is right on the k neighbours; where
    none is right on any, all vote once. The mean probability is below 1, so it decides only between
    classes with equal votes.

    A. H. R. Ko, R. Sabourin, A. S. Britto, "From dynamic classifier selection to dynamic
    ensemble selection", Pattern Recognition 41(5), 2008 (KNORA-UNION).

    >>> from clipsyn import KnoraUnion, Pool
    >>> kinds = [[1, 0], [1, 0], [0, 1], [0, 1]]  # embeddings of two kinds of images
    >>> logits = [[[3, 0], [0, 1]], [[0, 3], [1, 0]], [[0, 1], [3, 0]], [[1, 0], [0, 3]]]
    >>> support = Pool.of(logits, [0, 1, 0, 1], [kinds, kinds])  # a backbone is right on each kind
    >>> KnoraUnion(k=2).fit(support).predict(support)
    array([0, 1, 0, 1], dtype=uint16)
    """

    def _combine(self, pool: Pool) -> Array:
        votes = pool.embeddings[_NEARBY].copy()
        votes[~votes.any(axis=1)] = 1
        scores = mixture(pool.logits, np.full(len(pool.backbones), 1 / len(pool.backbones)))
        samples = np.arange(len(pool))
        for chosen, count in zip(pool.logits.argmax(axis=2).T, votes.T, strict=True):
            scores[samples, chosen] += count
        return log_shares(scores, 1 + votes.sum(axis=1, keepdims=True))


_kept: dict[bytes, Labels] = {}


def _neighbours(support: NDArray[np.float16], pool: Pool, k: int) -> Labels:
    """(sample, k) rows of `support`, of samples without embeddings its length; kept for later.

    What is kept is found by a digest of all that goes in, so it is never that of other arrays.
    """
    digest = hashlib.sha256(f"{k}".encode())
    for values in (support, *(pool.embeddings[name] for name in pool.backbones)):
        digest.update(f"{values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).data)
    key = digest.digest()
    found = _kept.get(key)
    if found is None:
        _kept[key] = found = _search(support, pool, k)
        if len(_kept) > _MOST_KEPT:
            _kept.pop(next(iter(_kept)), None)  # the oldest
    return found


def _search(support: NDArray[np.float16], pool: Pool, k: int) -> Labels:
    """`_neighbours`; the cosines are times the number of backbones."""
    return nearest(lambda part: pool.take(part).features(), len(pool), support, k)[0]

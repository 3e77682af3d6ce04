"""Dynamic selection: backbones are trusted where they were right on similar support samples.

The embeddings of all backbones stand side by side; a sample's neighbours are the k support samples
with the largest cosine. Of equal cosines those count that come first in the support set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.ensembles.base import Ensemble, Router
from clipsyn.ensembles.static import log_shares, one_hot
from clipsyn.errors import RouterMismatch
from clipsyn.estimator import learned, parameter
from clipsyn.numerics.blocks import in_blocks
from clipsyn.numerics.logits import softmax
from clipsyn.pool import Pool
from clipsyn.settings import WHOLE


@dataclass(eq=False, repr=False)
class _LocalCompetence(Ensemble):
    """Neighbours of each sample, and which backbones are right on them.

    k: how many neighbours; all support samples where there are fewer. Needs embeddings.

    Learned: `support_` (support, sum of embed) float16; `right_` (support, backbone), whether the
    backbone is right there.
    """

    needs_embeddings: ClassVar[bool] = True

    k: int = parameter(7, WHOLE, least=1)

    support_: NDArray[np.float16] = learned()
    right_: NDArray[np.bool_] = learned()

    def _fit(self, pool: Pool) -> None:
        self.support_ = pool.features().astype(np.float16)
        self.right_ = pool.logits.argmax(axis=2) == pool.labels[:, None]

    def _right_nearby(self, pool: Pool) -> NDArray[np.float32]:
        """(sample, backbone): how many of the k neighbours the backbone is right on."""
        count, width = self.support_.shape
        support = self.support_.astype(np.float32).T
        right = self.right_.astype(np.float32)
        out = np.empty((len(pool), len(pool.backbones)), np.float32)

        def block(rows: slice) -> None:
            features = pool.take(rows).features()
            if features.shape[1] != width:
                raise RouterMismatch("sizes of the embeddings", width, features.shape[1])
            cosines = features @ support  # times the number of backbones
            out[rows] = _largest(cosines, min(self.k, count)) @ right

        in_blocks(block, (len(pool), max(count, width)))
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

    def _weights(self, pool: Pool) -> NDArray[Any]:
        nearby = self._right_nearby(pool)
        confidence = softmax(pool.logits).max(axis=2)
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

    def _combine(self, pool: Pool) -> NDArray[Any]:
        votes = self._right_nearby(pool)
        votes[~votes.any(axis=1)] = 1
        scores = softmax(pool.logits).mean(axis=1)
        samples = np.arange(len(pool))
        for chosen, cast in zip(pool.logits.argmax(axis=2).T, votes.T, strict=True):
            scores[samples, chosen] += cast
        return log_shares(scores, 1 + votes.sum(axis=1, keepdims=True))


def _largest(values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """1 at the k largest of each row (sample, support), 0 elsewhere; of equals the first ones."""
    threshold = np.partition(values, -k, axis=1)[:, -k, None]
    larger, equal = values > threshold, values == threshold
    wanted = k - np.count_nonzero(larger, axis=1, keepdims=True)
    equal &= np.cumsum(equal, axis=1) <= wanted
    return np.asarray(larger | equal, np.float32)

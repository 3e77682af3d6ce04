"""Ensembles with nothing to fit, and the best single backbone.

They are the paper's "non-parametric" ones (section 4.1). It publishes no formulas; those here are
in general use. p_b = softmax(z_b), over the classes; B backbones.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.ensembles.base import Ensemble, Router
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import cross_entropy, log_mixture, mixture, sums
from clipsyn.methods.pool import Pool

_CLOSE = 1 + 1e-4  # odds of a larger ratio are told apart whatever their rounding
_SMALLEST = 1e-30  # odds that are exact in single precision though some powers are 0


class BestSingle(Router):
    """``z = z_b*`` with b* the backbone with the best accuracy on the support set.

    Ties go to the lower cross-entropy, then to the name that sorts first. The paper's "best
    single backbone" is chosen on the test split: a reference, not a method, as it needs the
    labels of what it predicts. `best_`: the name.

    >>> from clipsyn import BestSingle
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> BestSingle().fit(logits, labels).best_
    '0'
    """

    any_size: ClassVar[bool] = True

    best_: str

    def _learn(self, support: Pool) -> None:
        super()._learn(support)
        if len(support.backbones) == 1:
            self.best_ = support.backbones[0]

    def _fit(self, support: Pool) -> None:
        right = _right(support)
        equal = np.flatnonzero(right == right.max())  # only these need a loss
        loss = np.zeros(len(right))
        if len(equal) > 1:
            loss[equal] = _losses(support, equal).sum(axis=0, dtype=np.float64) / len(support)
        self.best_ = support.backbones[np.lexsort((loss, -right))[0]]  # stable

    def _weights(self, pool: Pool) -> NDArray[Any]:
        weights = np.zeros(len(pool.backbones), np.float32)
        weights[pool.backbones.index(self.best_)] = 1
        return weights

    def _combine(self, pool: Pool) -> NDArray[Any]:
        return pool.logits[:, pool.backbones.index(self.best_)]


class _Vote(Ensemble):
    """``z_c = log((votes_c + mean_b p_b(c)) / (k B + 1))``; every backbone has k votes.

    The shares in the logarithm sum to one. The mean is below 1, so it decides only between classes
    with equal votes (in float32, means closer than 1e-6 are equal). Among equal logits of one
    backbone the lowest class indices get the votes.
    """

    learns: ClassVar[bool] = False
    _choices: ClassVar[int]  # k; the number of classes if there are fewer

    def _combine(self, pool: Pool) -> NDArray[Any]:
        n, count, classes = pool.logits.shape
        choices = min(self._choices, classes)
        votes = mixture(pool.logits, np.full(count, 1 / count))
        left = pool.logits if choices == 1 else pool.logits.copy()
        samples = np.arange(n)
        for choice in range(choices):
            best = left.argmax(axis=2)
            for chosen in best.T:
                votes[samples, chosen] += 1
            if choice < choices - 1:
                np.put_along_axis(left, best[:, :, None], -np.inf, axis=2)
        return log_shares(votes, choices * count + 1)


class VoteTop1(_Vote):
    """Each backbone votes for its first class; ties go to the largest mean probability.

    ``z_c = log((votes_c + mean_b p_b(c)) / (B + 1))``

    >>> from clipsyn import VoteTop1
    >>> logits = [[[2, 0], [1, 0], [0, 9]]]  # two backbones for class 0, a sure one for class 1
    >>> VoteTop1().predict(logits)
    array([0], dtype=uint16)
    """

    needs_logits: ClassVar[bool] = False
    _choices: ClassVar[int] = 1


class VoteTop3(_Vote):
    """Each backbone votes for its three first classes; ties go to the largest mean probability.

    ``z_c = log((votes_c + mean_b p_b(c)) / (3 B + 1))``; all classes get votes if there are
    fewer than three.

    >>> from clipsyn import VoteTop3
    >>> logits = [[[9, 5, 4, 0, 0], [0, 5, 0, 9, 4]]]  # class 1 is second for both
    >>> VoteTop3().predict(logits)
    array([1], dtype=uint16)
    """

    _choices: ClassVar[int] = 3


class Confidence(Router):
    """``z = z_b*`` with ``b* = argmax_b max_c p_b(c)``, for each sample.

    Equal confidences go to the backbone whose name sorts first.

    >>> from clipsyn import Confidence
    >>> logits = [[[2, 0], [0, 3]]]  # the second backbone is surer
    >>> Confidence().weights(logits)
    array([[0., 1.]], dtype=float32)
    """

    learns: ClassVar[bool] = False
    needs_logits: ClassVar[bool] = False
    needs_confidences: ClassVar[bool] = True

    def _weights(self, pool: Pool) -> NDArray[Any]:
        return one_hot(most_confident(pool.logits), len(pool.backbones))


class LogAverage(Router):
    """``z = 1/B sum_b z_b``.

    The mean of log-probabilities has the same softmax: each differs from its logits by a number
    that is the same for all classes.

    >>> from clipsyn import LogAverage
    >>> logits = [[[2, 0, 1], [0, 3, 1]]]  # one sample, two backbones, three classes
    >>> LogAverage().combine(logits)
    array([[1. , 1.5, 1. ]], dtype=float32)
    """

    learns: ClassVar[bool] = False

    def _weights(self, pool: Pool) -> NDArray[Any]:
        return np.full(len(pool.backbones), 1 / len(pool.backbones), np.float32)


class ProbabilityAverage(Ensemble):
    """``z = log(1/B sum_b p_b)``. Not in the paper; the usual soft vote.

    >>> from clipsyn import ProbabilityAverage
    >>> logits = [[[2, 0], [0, 1]]]  # softmax: 0.88, 0.12 and 0.27, 0.73
    >>> ProbabilityAverage().predict_proba(logits).round(2)
    array([[0.57, 0.43]], dtype=float32)
    """

    learns: ClassVar[bool] = False

    def _combine(self, pool: Pool) -> NDArray[Any]:
        count = len(pool.backbones)
        return log_mixture(pool.logits, np.full(count, -np.log(count), pool.logits.dtype))


def log_shares(votes: NDArray[Any], total: NDArray[Any] | int) -> NDArray[Any]:
    """``log(votes / total)`` in place, finite where the share of a class is 0 in float32."""
    votes /= total
    np.maximum(votes, np.finfo(np.float32).tiny, out=votes)
    return np.asarray(np.log(votes, out=votes))


def most_confident(logits: NDArray[Any]) -> NDArray[np.intp]:
    """The backbone with the largest probability of its first class, the lowest index on ties.

    logits: (sample, backbone, class). Returns (sample,).

    Compared is the odds of all other classes together, ``sum over c != c* of exp(z_c - z_c*)``:
    confidences close to 1 are equal in float32 long before these are.
    """
    best = logits.argmax(axis=2)[:, :, None]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        powers = np.exp(logits)
        first = np.take_along_axis(powers, best, axis=2)[:, :, 0]
        np.put_along_axis(powers, best, 0, axis=2)
        odds = sums(powers) / first
    chosen = odds.argmin(axis=1)
    lowest = odds[np.arange(len(odds)), chosen]
    rivals = np.count_nonzero(odds <= lowest[:, None] * _CLOSE, axis=1)
    clear = (rivals == 1) & (lowest > _SMALLEST) & (first.min(axis=1) >= 1)
    clear &= np.isfinite(odds).all(axis=1)
    if not clear.all():
        unclear = np.flatnonzero(~clear)
        chosen[unclear] = _exact_odds(logits[unclear], best[unclear]).argmin(axis=1)
    return np.asarray(chosen)


def _exact_odds(logits: NDArray[Any], best: NDArray[np.intp]) -> NDArray[Any]:
    """(sample, backbone): equal where logits are equal up to a number that is added to all."""
    odds = logits - np.take_along_axis(logits, best, axis=2)
    np.exp(odds, out=odds)
    np.put_along_axis(odds, best, 0, axis=2)
    return np.asarray(odds.sum(axis=2))


def one_hot(chosen: NDArray[np.intp], count: int) -> NDArray[np.float32]:
    """(sample, backbone) weights: 1 for the chosen backbone of each sample."""
    return np.asarray(chosen[:, None] == np.arange(count), np.float32)


def _right(pool: Pool) -> NDArray[np.intp]:
    """(backbone,) how many samples each is right on."""

    def block(rows: slice) -> NDArray[np.intp]:
        right = pool.logits[rows].argmax(axis=2) == pool.labels[rows, None]
        return np.asarray(np.count_nonzero(right, axis=0))

    return np.asarray(np.sum(in_blocks(block, pool.logits.shape), axis=0))


def _losses(pool: Pool, columns: NDArray[np.intp]) -> NDArray[np.float32]:
    """(sample, chosen backbone) cross-entropy."""
    losses = np.empty((len(pool), len(columns)), np.float32)

    def block(rows: slice) -> None:
        for place, column in enumerate(columns):
            scores = pool.logits[rows, column].copy()
            with np.errstate(over="ignore"):  # infinitely wrong
                losses[rows, place] = cross_entropy(scores, pool.labels[rows])[0]

    in_blocks(block, pool.logits.shape)
    return losses

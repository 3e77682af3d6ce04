"""What every ensemble is: `fit(support)`, `combine(pool) -> (sample, class)`.

A router also says how much each backbone counts for each sample: `weights(pool)`.

The base class keeps the promises that hold for all of them, so that an ensemble is only its
formula (`_fit`, and `_combine` or `_weights`), beside those of `Estimator`:

- samples that some backbone has no logits for have NaN scores;
- one backbone on its own is that backbone;
- `combine` and `weights` work on blocks of rows, on all cores: the memory that a formula needs
  beside the logits is bounded, and fits into a cache.

Below are the ensembles with nothing to fit, and the best single backbone: the paper's
"non-parametric" ones (section 4.1). It publishes no formulas; those here are in general use.
p_b = softmax(z_b), over the classes; B backbones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.errors import UsageError
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import Estimator, as_pool, from_text
from clipsyn.methods.numerics import Array, Doubles, Floats, Labels, Rows
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import (
    cross_entropy,
    log_mixture,
    mixture,
    predictions,
    softmax,
    weighted_sum,
)
from clipsyn.methods.numerics.metrics import accuracy
from clipsyn.methods.pool import Pool


class Ensemble(Estimator):
    kind: ClassVar[str | None] = "classifier"
    sees_together: ClassVar[bool] = False  # True: the answer for an image depends on the others

    def combine(self, pool: Pool | ArrayLike) -> Floats:
        """Scores (sample, class) whose softmax are the ensemble's probabilities."""
        pool = self._aligned(as_pool(pool))
        alone = len(pool.backbones) == 1 and not self.needs_views
        compute = (lambda part: part.logits[:, 0]) if alone else self._combine
        return _by_blocks(pool, compute, pool.n_classes)

    def predict(self, pool: Pool | ArrayLike) -> NDArray[np.uint16]:
        """(sample,) class index, the lowest on ties; NO_PREDICTION where there are no logits."""
        return predictions(self.combine(pool))

    def predict_proba(self, pool: Pool | ArrayLike) -> Floats:
        """(sample, class) probabilities."""
        return np.asarray(softmax(self.combine(pool)))

    def score(self, pool: Pool | ArrayLike, labels: ArrayLike | None = None) -> float:
        """Accuracy over the samples with a label and a prediction; NaN if there is none."""
        pool = as_pool(pool, labels)
        return accuracy(self.predict(pool), pool.labels).value

    @property
    def classes_(self) -> Rows:
        """(class,) what the columns of `predict_proba` are, for scikit-learn's scorers."""
        return np.arange(self.n_classes_)

    def _learn(self, support: Pool) -> None:  # one backbone on its own is that backbone
        if self.learns and len(support.backbones) > 1:
            self._fit(support)

    def _aligned(self, pool: Pool) -> Pool:
        if self.learns or hasattr(self, "backbones_"):
            return super()._aligned(pool)
        pool.check_text(type(self).__name__)
        return pool.of_backbones(sorted(pool.backbones))

    def _combine(self, pool: Pool) -> Array:
        """(sample, class) scores of samples that are all readable."""
        raise NotImplementedError


class Router(Ensemble):
    """An ensemble that is a weighted sum of logits, with weights (sample, backbone)."""

    def weights(self, pool: Pool | ArrayLike) -> Floats:
        """(sample, backbone) in the order of the pool's backbones; NaN where unreadable."""
        given = as_pool(pool)
        pool = self._aligned(given)
        weights = _by_blocks(pool, self._spread_weights, len(pool.backbones))
        return weights[:, [pool.backbones.index(name) for name in given.backbones]]

    def _spread_weights(self, pool: Pool) -> Array:
        one = len(pool.backbones) == 1
        weights = 1.0 if one else self._weights(pool)
        return np.broadcast_to(weights, pool.logits.shape[:2])

    def _weights(self, pool: Pool) -> Array:
        """(sample, backbone), or (backbone,) if they are the same for all samples."""
        raise NotImplementedError

    def _combine(self, pool: Pool) -> Array:
        return weighted_sum(pool.logits, self._weights(pool))


def _by_blocks(pool: Pool, compute: Callable[[Pool], Array], width: int) -> Floats:
    """compute(readable samples) in the rows they are for, NaN in the others: (sample, width)."""
    out = np.empty((len(pool), width), np.float32)
    readable = pool.readable

    def block(rows: slice) -> None:
        part, good = pool.take(rows), readable[rows]
        if good.all():
            out[rows] = compute(part)
            return
        out[rows] = np.nan
        if good.any():
            out[rows][good] = compute(part.take(np.flatnonzero(good)))

    in_blocks(block, pool.logits.shape)
    return out


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

    def _learn(self, support: Pool) -> None:  # of one backbone, too
        self.best_ = support.backbones[standing(support).argmin()]

    def _weights(self, pool: Pool) -> Array:
        return np.array([name == self.best_ for name in pool.backbones], np.float32)

    def _combine(self, pool: Pool) -> Array:
        return pool.logits[:, pool.backbones.index(self.best_)]


class _Vote(Ensemble):
    """``z_c = log((votes_c + mean_b p_b(c)) / (k B + 1))``; every backbone has k votes.

    The shares in the logarithm sum to one. The mean is below 1, so it decides only between classes
    with equal votes (in float32, means closer than 1e-6 are equal). Among equal logits of one
    backbone the lowest class indices get the votes.
    """

    learns: ClassVar[bool] = False
    _choices: ClassVar[int]  # k; the number of classes if there are fewer

    def _combine(self, pool: Pool) -> Array:
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

    def _weights(self, pool: Pool) -> Array:
        return one_hot(most_confident(pool.logits), len(pool.backbones))

    def _combine(self, pool: Pool) -> Array:  # as the sum, without a look at the others
        return pool.logits[np.arange(len(pool)), most_confident(pool.logits)]


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

    def _weights(self, pool: Pool) -> Array:
        return np.full(len(pool.backbones), 1 / len(pool.backbones), np.float32)


class ProbabilityAverage(Ensemble):
    """``z = log(1/B sum_b p_b)``. Not in the paper; the usual soft vote.

    >>> from clipsyn import ProbabilityAverage
    >>> logits = [[[2, 0], [0, 1]]]  # softmax: 0.88, 0.12 and 0.27, 0.73
    >>> ProbabilityAverage().predict_proba(logits).round(2)
    array([[0.57, 0.43]], dtype=float32)
    """

    learns: ClassVar[bool] = False

    def _combine(self, pool: Pool) -> Array:
        count = len(pool.backbones)
        return log_mixture(pool.logits, np.full(count, -np.log(count), pool.logits.dtype))


def inductive(text: str, seed: int | None = None) -> Ensemble:
    """The ensemble of a text, as `from_text` makes it; UsageError for one that is transductive."""
    ensemble: Ensemble = from_text(ENSEMBLES, text, seed)
    if ensemble.sees_together:
        raise UsageError(
            f"{text} sees all test images together, and can be asked for in clipsyn evaluate "
            "alone: name an ensemble that answers for each image, such as log-avg"
        )
    return ensemble


def standing(support: Pool) -> Rows:
    """(backbone,) from 0, the best: by images that are right, then by loss, then by name."""
    right = _total(support, _right)
    equal = np.flatnonzero(np.count_nonzero(right[:, None] == right, axis=1) > 1)
    loss = np.zeros(len(right))  # needed of these alone
    if len(equal):
        loss[equal] = _total(support, lambda z, y: _losses(z[:, equal], y))
    return np.asarray(np.lexsort((loss, -right)).argsort())  # stable


def log_shares(votes: Array, total: Array | int) -> Array:
    """``log(votes / total)`` in place, finite where the share of a class is 0 in float32."""
    votes /= total
    np.maximum(votes, np.finfo(np.float32).tiny, out=votes)
    return np.asarray(np.log(votes, out=votes))


def most_confident(logits: Array) -> Rows:
    """The backbone with the largest probability of its first class, the lowest index on ties.

    logits: (sample, backbone, class). Returns (sample,).

    Compared is the odds of all other classes together, ``sum over c != c* of exp(z_c - z_c*)``:
    confidences close to 1 are equal in float32 long before these are.
    """
    best = logits.argmax(axis=2)[:, :, None]
    odds = logits - np.take_along_axis(logits, best, axis=2)
    np.exp(odds, out=odds)
    np.put_along_axis(odds, best, 0, axis=2)
    return np.asarray(np.einsum("nbc->nb", odds).argmin(axis=1))


def one_hot(chosen: Rows, count: int) -> Floats:
    """(sample, backbone) weights: 1 for the chosen backbone of each sample."""
    return np.asarray(chosen[:, None] == np.arange(count), np.float32)


def _total(pool: Pool, measure: Callable[[Any, Any], Array]) -> Array:
    """(backbone,) the sums over samples of what is measured on logits and labels of some."""
    parts = in_blocks(lambda rows: measure(pool.logits[rows], pool.labels[rows]), pool.shape)
    return np.asarray(np.sum(parts, axis=0))


def _right(logits: Array, labels: Labels) -> Rows:
    return np.asarray(np.count_nonzero(logits.argmax(axis=2) == labels[:, None], axis=0))


def _losses(logits: Array, labels: Labels) -> Doubles:
    with np.errstate(over="ignore"):  # infinitely wrong
        losses = [cross_entropy(scores.copy(), labels)[0] for scores in logits.swapaxes(0, 1)]
    return np.asarray(np.sum(losses, axis=1, dtype=np.float64))

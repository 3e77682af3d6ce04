"""Who is trusted, by what each backbone got right on the support: with a class, or in full.

    precision switch    z = z_b*,  b*(x) = argmax_b precision_b(argmax_c z_b(x))
    model labels        s_c = sum over the backbones b that are chosen for c of p_b(c) / H(p_b)

precision_b(c): the share of the support's images which b takes for class c that are of class c. H:
entropy of an image's class probabilities in bits. Of backbones with equal scores, the one that is
best on the support is taken. Weak backbones are added to an anchor that counts in full:

    p = (p_anchor + sum over the others of w_b p_b) / total weight

Lu et al., "Beyond Sole Strength: Customized Ensembles for Generalized Vision-Language Models", ICML
2024, arXiv 2311.17091. There the anchor is the strongest of four CLIPs, ViT-B/16; here the best
single backbone on the support.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np

from clipsyn.errors import InputError
from clipsyn.methods.ensembles.base import Ensemble, Router, log_shares, one_hot, standing
from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.heads.trained import text_of
from clipsyn.methods.numerics import Array, Doubles, Floats, Mask, Rows
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import log_mixture, mixture, softmax, zero_shot_logits
from clipsyn.methods.pool import Pool
from clipsyn.settings import FLAG, NUMBER, WHOLE

_LEAST_ENTROPY = 1e-6  # bits: that of a nearly certain answer rounds to 0 in single precision
_STEPS = tuple(round(0.1 * step, 1) for step in range(1, 10))  # the weights that are tried
_MOST_TOGETHER = 3  # backbones beside the anchor whose weights are tried in all combinations
_START = 0.5


@dataclass(eq=False, repr=False)
class PrecisionSwitch(Router):
    """``z = z_b*`` with ``b* = argmax_b precision_b(argmax_c z_b(x))``, for each sample.

    A class that a backbone predicts for no image of the support has precision 0 there.

    The source, an evaluation of vision-language models (BMVC 2025, arXiv 2509.09311), switches in
    this way between a k-nearest-neighbour and a text classifier. Here there are any number of
    backbones.

    Learned: `precision_` (backbone, class); `standing_` (backbone,), 0 for the best on the support.

    >>> from clipsyn import PrecisionSwitch
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[3, 0], [0, 1]], [[0, 1], [0, 2]]]
    >>> switch = PrecisionSwitch().fit(logits, labels=[0, 0, 1, 1])
    >>> switch.precision_.round(2)  # the first backbone is right where it says 1
    array([[0.67, 1.  ],
           [1.  , 0.67]])
    >>> switch.weights([[[2, 0], [0, 3]]])  # it says 0, the second says 1
    array([[1., 0.]], dtype=float32)
    """

    knows_classes: ClassVar[bool] = True

    precision_: Doubles = learned()
    standing_: Rows = learned()

    def _fit(self, support: Pool) -> None:
        right, predicted, _ = _counts(support)
        self.precision_ = right / np.maximum(predicted, 1)
        self.standing_ = standing(support)

    def _weights(self, pool: Pool) -> Array:
        precision = np.take_along_axis(self.precision_.T, pool.logits.argmax(axis=2), axis=0)
        order = np.argsort(self.standing_)  # the first of equals wins
        return one_hot(order[precision[:, order].argmax(axis=1)], len(pool.backbones))


class EntropyAverage(Ensemble):
    """``z = log(sum_b p_b / H(p_b))``, the sum scaled to 1: who is surer of an image counts more.

    The weights of `ModelLabels` without its choice of backbones.

    >>> from clipsyn import EntropyAverage
    >>> EntropyAverage().predict([[[2, 0], [0, 3]]])  # the second backbone is surer
    array([1], dtype=uint16)
    """

    learns: ClassVar[bool] = False
    trusted_: Mask | bool = True  # (backbone, class) whose probability counts

    def _combine(self, pool: Pool) -> Array:
        shares = softmax(pool.logits)
        shares /= np.maximum(_bits(shares), _LEAST_ENTROPY)[:, :, None]
        scores: Array = (shares * self.trusted_).sum(axis=1)
        return log_shares(scores, scores.sum(axis=1, keepdims=True))


def _bits(shares: Array) -> Array:
    """(sample, backbone) entropy of the probabilities (sample, backbone, class)."""
    logs = np.log2(np.maximum(shares, np.finfo(np.float32).tiny))
    return np.asarray(-(shares * logs).sum(axis=2))


@dataclass(eq=False, repr=False)
class Zero(Ensemble):
    """The surest backbones vote: the `share` of all with the least entropy, at least one.

    Where classes have equal votes the surest of the others that votes for one of them decides by
    half a vote, then the surest of all; the mean probability adds less than that. z is the
    logarithm of votes, as in `VoteTop1`.

    views: False has the backbones vote on the image itself. True has each vote on the image and on
    each of its augmented views in the pool, by zero-shot, as in the publication, where one backbone
    votes on 64 views. Raises InputError where the pool has none.

    Farina et al., "Frustratingly Easy Test-Time Adaptation of Vision-Language Models", NeurIPS
    2024, arXiv 2405.18330.

    >>> from clipsyn import Zero
    >>> logits = [[[2, 0], [3, 0], [0, 9], [0, 1]]]
    >>> Zero(share=0.75).predict(logits)  # two of the three surest say 0
    array([0], dtype=uint16)
    """

    learns: ClassVar[bool] = False

    share: float = parameter(0.3, NUMBER, above=0, most=1)
    views: bool = parameter(False, FLAG)

    @property
    def needs_views(self) -> bool:
        return self.views

    def _combine(self, pool: Pool) -> Array:
        looks = [pool.logits, *(self._of_views(pool) if self.views else ())]
        order = np.concatenate([_bits(softmax(it)) for it in looks], axis=1).argsort(kind="stable")
        said = np.concatenate([it.argmax(axis=2) for it in looks], axis=1)
        said = np.take_along_axis(said, order, axis=1)  # the surest first
        voters, rows = math.ceil(self.share * said.shape[1]), np.arange(len(pool))
        votes = np.zeros((len(pool), pool.n_classes), np.float32)
        np.add.at(votes, (rows[:, None], said[:, :voters]), 1)
        most = votes == votes.max(axis=1, keepdims=True)
        said = np.roll(said, -voters, axis=1)  # those that decide between equals first
        decides = np.take_along_axis(most, said, axis=1).argmax(axis=1)
        votes[rows, said[rows, decides]] += 0.5
        votes += mixture(pool.logits, np.full(len(pool.backbones), 0.25 / len(pool.backbones)))
        return log_shares(votes, votes.sum(axis=1, keepdims=True))

    def _of_views(self, pool: Pool) -> Iterator[Floats]:
        """Logits (sample, backbone, class) of each view."""
        if not pool.views:
            raise InputError(
                "there are no augmented views for zero to vote on: measure it on clean images of "
                "the zero-shot head, with views=… whose cells the split has"
            )
        for view in pool.views:
            each = [zero_shot_logits(view[it], *text_of(pool, it)) for it in pool.backbones]
            yield np.stack(each, axis=1)


@dataclass(eq=False, repr=False)
class ModelLabels(EntropyAverage):
    """``z_c = log(sum_b [b is chosen for c] p_b(c) / H(p_b))``, the sum scaled to 1.

    For each class the `models` backbones with the best F1 score of that class on the support are
    chosen. Model label learning (ICML 2025, arXiv 2501.18271), which takes the scores of a labelled
    set of other images, whose classes it finds by their captions.

    Learned: `trusted_` (backbone, class).

    >>> from clipsyn import ModelLabels
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right
    >>> ModelLabels().fit(logits, labels).trusted_
    array([[ True,  True],
           [False, False]])
    """

    learns: ClassVar[bool] = True
    knows_classes: ClassVar[bool] = True

    models: int = parameter(1, WHOLE, least=1)

    trusted_: Mask = learned()

    def _fit(self, support: Pool) -> None:
        right, predicted, there = _counts(support)
        f1 = 2 * right / np.maximum(predicted + there, 1)
        order = np.lexsort((np.broadcast_to(standing(support)[:, None], f1.shape), -f1), axis=0)
        self.trusted_ = np.zeros(f1.shape, np.bool_)
        np.put_along_axis(self.trusted_, order[: self.models], True, axis=0)


def _counts(support: Pool) -> tuple[Rows, Rows, Rows]:
    """(backbone, class) images that are rightly and that are at all predicted; (class,) all."""
    labels, classes = support.labels, support.n_classes
    predicted = support.logits.argmax(axis=2).T
    right = [np.bincount(labels[row == labels], minlength=classes) for row in predicted]
    all_of = [np.bincount(row, minlength=classes) for row in predicted]
    return np.array(right), np.array(all_of), np.bincount(labels, minlength=classes)


@dataclass(eq=False, repr=False)
class ZeroShotEnsemble(Router):
    """``p = (p_anchor + sum_b w_b p_b) / 2`` with ``w = softmax over the others of max_c p_b(c)``.

    The publication's ZS_En. `weights` add up probabilities, not logits.

    Learned: `anchor_`, the name.

    >>> from clipsyn import ZeroShotEnsemble
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> ensemble = ZeroShotEnsemble().fit(logits, [0, 0, 1, 1])  # the first is always right
    >>> ensemble.weights([[[2, 0], [0, 3]]])
    array([[0.5, 0.5]], dtype=float32)
    """

    anchor_: str = learned()

    def _fit(self, support: Pool) -> None:
        self.anchor_ = support.backbones[standing(support).argmin()]

    def _weights(self, pool: Pool) -> Array:
        sure = softmax(pool.logits).max(axis=2)
        anchor = pool.backbones.index(self.anchor_)
        sure[:, anchor] = -np.inf
        weights = softmax(sure)
        weights[:, anchor] = 1
        return np.asarray(weights / 2)

    def _combine(self, pool: Pool) -> Array:
        return log_mixture(pool.logits, np.log(self._weights(pool)))


@dataclass(eq=False, repr=False)
class TunedEnsemble(ZeroShotEnsemble):
    """``p = (p_anchor + sum_b w_b p_b) / total``, w_b from 0.1 to 0.9 in steps of 0.1.

    The publication's training-free TF_En: the weights with the highest accuracy on the support, the
    first of equals. Up to three backbones beside the anchor are tried in all combinations, as
    published. More are tried one by one in the order of their standing, the others held, from 0.5
    on, until no weight changes.

    Learned: `anchor_`; `weights_` (backbone,), 1 for the anchor.

    >>> from clipsyn import TunedEnsemble
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> TunedEnsemble().fit(logits, [0, 0, 1, 1]).weights_
    array([1. , 0.1])
    """

    weights_: Doubles = learned()

    def _fit(self, support: Pool) -> None:
        order = standing(support).argsort()
        self.anchor_ = support.backbones[order[0]]
        others = order[1:]
        self.weights_ = np.ones(len(order))
        if len(others) <= _MOST_TOGETHER:
            self._try(support, others, [*product(_STEPS, repeat=len(others))])
            return
        self.weights_[others] = _START
        before = np.zeros_like(self.weights_)
        while (before != self.weights_).any():
            before = self.weights_.copy()
            for other in others:
                held = self.weights_[other]  # first, so that equal ones change nothing
                self._try(support, other, [held, *_STEPS])

    def _try(self, support: Pool, columns: Rows | np.intp, choices: list[Any]) -> None:
        """Set the weights of some backbones to the choice that has most images right."""
        tried = np.repeat(self.weights_[None], len(choices), axis=0)
        tried[:, columns] = choices

        def block(rows: slice) -> Rows:
            shares, labels = softmax(support.logits[rows]), support.labels[rows]
            found = [np.einsum("b,nbc->nc", weights, shares).argmax(axis=1) for weights in tried]
            return np.asarray(np.count_nonzero(np.array(found) == labels, axis=1))

        right = np.sum(in_blocks(block, support.shape), axis=0)
        self.weights_ = tried[right.argmax()]

    def _weights(self, pool: Pool) -> Array:
        return np.asarray(self.weights_ / self.weights_.sum(), np.float32)

"""Probabilities of weak backbones, added to those of an anchor that counts in full.

    p = (p_anchor + sum over the others of w_b p_b) / total weight

Lu et al., "Beyond Sole Strength: Customized Ensembles for Generalized Vision-Language Models", ICML
2024, arXiv 2311.17091. There the anchor is the strongest of four CLIPs, ViT-B/16; here the best
single backbone on the support.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from clipsyn.methods.ensembles.base import Router, standing
from clipsyn.methods.estimator import learned
from clipsyn.methods.numerics import Array, Doubles, Rows
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import mixture, softmax
from clipsyn.methods.pool import Pool

_STEPS = tuple(round(0.1 * step, 1) for step in range(1, 10))  # the weights that are tried
_MOST_TOGETHER = 3  # backbones beside the anchor whose weights are tried in all combinations
_START = 0.5


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
        mixed = mixture(pool.logits, self._weights(pool))
        return np.asarray(np.log(np.maximum(mixed, np.finfo(np.float32).tiny)))


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
        before = None
        while before is None or (before != self.weights_).any():
            before = self.weights_.copy()
            for other in others:
                held = [(self.weights_[other],)]  # first, so that equal ones change nothing
                self._try(support, others[others == other], [*held, *((w,) for w in _STEPS)])

    def _try(self, support: Pool, columns: Rows, choices: list[tuple[float, ...]]) -> None:
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

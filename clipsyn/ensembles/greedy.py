"""Greedy forward selection of backbones, their probabilities averaged.

R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble Selection from Libraries of
Models", ICML 2004, sections 2 and 2.1 (selection with replacement).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.ensembles.base import Ensemble
from clipsyn.estimator import learned, parameter
from clipsyn.numerics.logits import log_mixture, log_softmax
from clipsyn.pool import Pool
from clipsyn.settings import WHOLE


@dataclass(eq=False, repr=False)
class GreedySelection(Ensemble):
    """Each round adds the backbone that helps the average of probabilities most.

        p_n = (1/R) sum over rounds r of softmax(Z_n,b(r))

    A backbone may be chosen again, so its share of the rounds is its weight. The backbone that
    helps most gives the best accuracy on the support set, then the lowest negative log-likelihood,
    then comes first by name. The same measure decides how many of the `rounds` choices are kept,
    from the first on: on a small support set later rounds overfit.

    Learned: `chosen_`, the backbones kept, in the order of choice; `weights_` (backbone,), how
    often each was chosen, divided by how many were.

    >>> from clipsyn import GreedySelection
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> ensemble = GreedySelection().fit(logits, labels)
    >>> ensemble.chosen_, ensemble.weights_
    (('0',), array([1., 0.]))
    """

    rounds: int = parameter(25, WHOLE, least=1)

    weights_: NDArray[np.float64] = learned()
    chosen_: tuple[str, ...] = learned()

    def _fit(self, pool: Pool) -> None:
        order = _select(pool.logits, pool.labels, self.rounds)
        self.chosen_ = tuple(pool.backbones[index] for index in order)
        self.weights_ = np.bincount(order, minlength=len(pool.backbones)) / len(order)

    def _combine(self, pool: Pool) -> NDArray[Any]:
        used = self.weights_ > 0
        return log_mixture(pool.logits[:, used], np.log(self.weights_[used]))


def _select(logits: NDArray[Any], labels: NDArray[np.int32], rounds: int) -> list[int]:
    """The backbones chosen, in order, up to the best number of rounds."""
    samples = np.arange(len(labels))
    log_probabilities = log_softmax(logits.swapaxes(0, 1))  # (backbone, sample, class)
    log_true = log_probabilities[:, samples, labels].astype(np.float64)
    probabilities = np.exp(log_probabilities, out=log_probabilities)
    total = np.zeros_like(probabilities[0])
    log_total = np.full(len(labels), -np.inf)  # of the true class, which may be 0 in `total`
    trial = np.empty_like(total)
    order: list[int] = []
    scores: list[tuple[int, float]] = []  # of each number of rounds, less is better
    for size in range(1, rounds + 1):
        log_trials = np.logaddexp(log_total, log_true)
        candidates = []
        for backbone, probability in enumerate(probabilities):
            right = np.add(total, probability, out=trial).argmax(axis=1) == labels
            candidates.append((-int(right.sum()), -float(log_trials[backbone].mean())))
        best = candidates.index(min(candidates))
        total += probabilities[best]
        log_total = log_trials[best]
        order.append(best)
        negative_right, loss = candidates[best]
        # rounded: the average of a backbone with itself is no better
        scores.append((negative_right, round(loss + float(np.log(size)), 9)))
    return order[: scores.index(min(scores)) + 1]

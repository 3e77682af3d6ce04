"""Greedy forward selection of backbones, their probabilities averaged.

R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble Selection from Libraries of
Models", ICML 2004, sections 2 and 2.1 (selection with replacement).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.estimator import learned, parameter
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import contenders, log_mixture, log_softmax
from clipsyn.methods.pool import Pool
from clipsyn.settings import WHOLE


@dataclass(eq=False, repr=False)
class GreedySelection(Ensemble):
    """Each round adds the backbone that helps the average of probabilities most.

        p_n = (1/R) sum over rounds r of softmax(Z_n,b(r))

    A backbone may be chosen again, so its share of the rounds is its weight. The backbone that
    helps most gives the best accuracy on the support set, then the lowest negative log-likelihood,
    then comes first by name. The same measure decides how many of the `rounds` choices are kept,
    from the first on: on a small support set later rounds overfit.

    Few classes of a sample can come first, whatever is chosen. Only the probabilities of these are
    kept, so one pass over the support is enough.

    Learned: `chosen_`, the backbones kept, in the order of choice; `weights_` (backbone,), how
    often each was chosen, divided by how many were.

    >>> from clipsyn import GreedySelection
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> ensemble = GreedySelection().fit(logits, labels)
    >>> ensemble.chosen_, ensemble.weights_
    (('0',), array([1., 0.]))
    """

    any_size: ClassVar[bool] = True

    rounds: int = parameter(25, WHOLE, least=1)

    weights_: NDArray[np.float64] = learned()
    chosen_: tuple[str, ...] = learned()

    def _fit(self, support: Pool) -> None:
        order = _select(support, self.rounds)
        self.chosen_ = tuple(support.backbones[index] for index in order)
        self.weights_ = np.bincount(order, minlength=len(support.backbones)) / len(order)

    def _combine(self, pool: Pool) -> NDArray[Any]:
        used = self.weights_ > 0
        return log_mixture(pool.logits[:, used], np.log(self.weights_[used]))


class _Open(NamedTuple):
    """Samples that are right or wrong as backbones are chosen, and the classes that decide it."""

    probabilities: NDArray[np.float32]  # (backbone, sample, contender)
    place: NDArray[np.intp]  # (sample,) of the label among the contenders


class _Seen(NamedTuple):
    """What a search needs to know of some samples."""

    settled: int  # how many are right whatever is chosen
    log_true: NDArray[np.float64]  # (backbone, sample) log-probability of the label
    still_open: list[_Open]  # by number of contenders


def _select(support: Pool, rounds: int) -> list[int]:
    """The backbones chosen, in order, up to the best number of rounds."""
    settled, log_true, groups = _seen(support)
    totals = [np.zeros_like(group.probabilities[0]) for group in groups]
    log_total = np.full(log_true.shape[1], -np.inf)  # of the true class, which may be 0 in a total
    order: list[int] = []
    scores: list[tuple[int, float]] = []  # of each number of rounds, less is better
    for size in range(1, rounds + 1):
        log_trials = np.logaddexp(log_total, log_true)
        right = np.full(len(log_true), settled)
        for group, total in zip(groups, totals, strict=True):
            for backbone, probability in enumerate(group.probabilities):
                first = np.add(total, probability).argmax(axis=1)
                right[backbone] += np.count_nonzero(first == group.place)
        losses = [-float(trial.mean()) for trial in log_trials]
        candidates = list(zip((-right).tolist(), losses, strict=True))
        best = candidates.index(min(candidates))
        for group, total in zip(groups, totals, strict=True):
            np.add(total, group.probabilities[best], out=total)
        log_total = log_trials[best]
        order.append(best)
        negative_right, loss = candidates[best]
        # rounded: the average of a backbone with itself is no better
        scores.append((negative_right, round(loss + float(np.log(size)), 9)))
    return order[: scores.index(min(scores)) + 1]


def _seen(support: Pool) -> _Seen:
    """One pass over the support."""
    parts = in_blocks(partial(_look, support.logits, support.labels), support.logits.shape)
    by_width: dict[int, list[_Open]] = {}
    for group in (group for part in parts for group in part.still_open):
        by_width.setdefault(group.probabilities.shape[2], []).append(group)
    return _Seen(
        sum(part.settled for part in parts),
        np.concatenate([part.log_true for part in parts], axis=1),
        [
            _Open(
                np.concatenate([group.probabilities for group in same], axis=1),
                np.concatenate([group.place for group in same]),
            )
            for same in by_width.values()
        ],
    )


def _look(logits: NDArray[Any], labels: NDArray[np.int32], rows: slice) -> _Seen:
    """Of some rows. What a sum of probabilities may put first, one of their logarithms may, too."""
    log_probabilities, labels = log_softmax(logits[rows]), labels[rows]
    true = np.take_along_axis(log_probabilities, labels[:, None, None], axis=2)[:, :, 0]
    settled, still_open = 0, []
    for group in contenders(log_probabilities):
        is_label = group.classes == labels[group.samples, None]
        possible = is_label.any(axis=1)  # else it is wrong whatever is chosen
        if group.classes.shape[1] == 1:
            settled += int(np.count_nonzero(possible))
        elif possible.any():
            kept = group._replace(samples=group.samples[possible], classes=group.classes[possible])
            values = np.exp(kept.of(log_probabilities).swapaxes(0, 1))
            still_open.append(
                _Open(np.ascontiguousarray(values), is_label[possible].argmax(axis=1))
            )
    return _Seen(settled, true.T.astype(np.float64), still_open)

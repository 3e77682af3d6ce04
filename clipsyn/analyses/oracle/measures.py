"""How far a selector could go that always knew which backbone to ask, and what each adds to it.

Everything follows from *regions*: which backbones are right together, and on how many samples. The
oracle of a set of backbones is right where any of them is. It rewards guessing: a backbone that
guesses raises it, and is now and then the only one that is right. So two marks stand beside it: an
upper one, the oracle of errors that are independent within each class (`independent_oracle`), and a
floor below what a backbone adds, what a guess in its place would add (`Overlap.guessed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics import Array, Doubles, Mask, Rows
from clipsyn.methods.numerics.metrics import class_hits, ratio

MOST_BACKBONES = 24  # whose every subset is looked at: 2^24 numbers of 4 bytes
_CELLS = 2_000_000  # of all tableaus of the simplex method worked on at once: 16 MB
_ROUNDING = 1e-12  # of margins that are at most 1; optima closer to 0 count as 0
_PIVOTS = 50  # of the simplex method, for each backbone; 2 or 3 are usual


@dataclass(frozen=True, eq=False)
class Overlap:
    """The non-empty regions of the Venn diagram of right predictions, largest first."""

    right: Mask  # (region, backbone) which backbones are right there
    counts: NDArray[np.int64]  # (region,) samples
    places: Rows  # (sample,) its region

    @classmethod
    def of(cls, right: Mask) -> Overlap:
        """The regions of right (backbone, sample).

        Of regions of one size those come first in which the first backbone is right, then those in
        which the second is, and so on.
        """
        wrong = np.packbits(~right, axis=0).T
        _, first, region, size = np.unique(wrong, True, True, True, axis=0)
        order = np.argsort(-size, kind="stable")
        places = np.argsort(order)[region.ravel()]
        return cls(right[:, first[order]].T, size[order].astype(np.int64), places)

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def agreeing(self) -> NDArray[np.int64]:
        """(region,) how many backbones are right there."""
        return np.asarray(self.right.sum(axis=1, dtype=np.int64))

    def hits(self) -> NDArray[np.int64]:
        """(backbone,) samples that each gets right."""
        return np.asarray(self.counts @ self.right)

    def only(self) -> NDArray[np.int64]:
        """(backbone,) samples that it alone gets right: what the oracle loses without it."""
        return np.asarray(self.counts @ (self.right & (self.agreeing == 1)[:, None]))

    def credit(self) -> Doubles:
        """(region, backbone): the one point of a sample, shared by the backbones that are right.

        Its mean over samples is each backbone's Shapley value (Shapley 1953) in the oracle's
        accuracy: on one sample the first right backbone to join adds 1, all others add nothing, and
        each right one is the first equally often. It is exact for any number of backbones.
        """
        return self.right / np.maximum(self.agreeing, 1)[:, None]

    def guessed(self, classes: int) -> Doubles:
        """(region, backbone): what a guess in place of this backbone alone would get right.

        A guess is right on one of `classes` images, whatever the other backbones answer. The mean
        over samples is the floor of what a backbone alone gets right: (1 - oracle of the others) /
        classes.
        """
        return np.asarray((self._others() == 0) / classes)

    def guessed_credit(self, classes: int) -> Doubles:
        """(region, backbone): `credit` of a guess in place of this backbone.

        The mean over samples is the floor of its Shapley value.
        """
        return 1 / (self._others() + 1) / classes

    def _others(self) -> NDArray[np.int64]:
        """(region, backbone) how many other backbones are right there."""
        return self.agreeing[:, None] - self.right

    def mean(self, values: Array) -> Doubles:
        """Mean over samples of `values` (region, m): (m,), NaN without samples."""
        return ratio(self.counts @ values, self.n)


def class_choice(right: Mask, labels: Array, *, left_out: bool = False) -> Mask:
    """(sample,): whether the backbone is right that is best on the sample's class.

    right: (backbone, sample), labels: (sample,) >= 0. The mean is between the accuracy of one
    backbone for all images and the oracle, one for each image; it is too high, for the best are
    chosen on the very samples that they are judged on, the more so the smaller the classes.
    left_out: the backbone is the best on the *other* samples of the class, so that the mean is what
    choosing by class brings on samples that the choice has not seen, without selection bias. Of
    equals the backbone is taken that is best on all (other) samples, then the first; where a sample
    is the only one of its class, the backbone that is best on all others.
    """
    seen = right & left_out
    of_class = class_hits(right, labels)[:, labels] - seen
    of_all = right.sum(axis=1, keepdims=True) - seen
    chosen = (of_class * (right.shape[1] + 1) + of_all).argmax(axis=0)
    return np.asarray(np.take_along_axis(right, chosen[None], axis=0)[0])


def subset_hits(right: Mask) -> NDArray[np.int32]:
    """(2^backbone,): samples that the oracle of each subset gets right.

    right: (backbone, sample), of at most `MOST_BACKBONES`. Backbone b is in subset s if bit b of s
    is set. Samples are counted by the set of backbones that get them right. The subset-sum (zeta)
    transform of the counts says how many samples have no right backbone outside s; n minus that is
    the hits of the complement of s. Beyond one pass over the samples, time and memory do not depend
    on their number.
    """
    count, n = right.shape
    masks = (1 << np.arange(count)) @ right
    sums = np.bincount(masks, minlength=1 << count).astype(np.int32)
    for bit in range(count):
        halves = sums.reshape(-1, 2, 1 << bit)  # without the bit, with it
        halves[:, 1] += halves[:, 0]
    return np.subtract(n, sums[::-1], dtype=np.int32)  # reversed: the complements


def members(subset: int, count: int) -> Rows:
    """The backbones (indices) of a subset."""
    return np.flatnonzero(subset >> np.arange(count) & 1)


def best_subsets(hits: NDArray[np.int32]) -> list[int]:
    """The subset of each size, from 1 to all, whose oracle gets most right.

    hits: what `subset_hits` returns. Of equals the one that lacks the later backbones.
    """
    count = len(hits).bit_length() - 1
    sizes = np.zeros(1, np.uint8)
    for _ in range(count):
        sizes = np.concatenate([sizes, sizes + np.uint8(1)])
    best = []
    for size in range(1, count + 1):
        subsets = np.flatnonzero(sizes == size)
        best.append(int(subsets[hits[subsets].argmax()]))
    return best


def reachable(logits: Array, labels: Array) -> Mask:
    """(sample,): whether the true class is first in ``sum_b a_b logits[b]`` for weights a >= 0.

    logits: (backbone, sample, class), finite; labels: (sample,), all known. The weights may differ
    from sample to sample, so the share of reachable samples bounds the accuracy of every ensemble
    that weighs these logits without negative weights. Ties go to the lowest class, as everywhere.

    With margins ``m_bc = logits[b, y] - logits[b, c]`` the weights exist if the matrix game with
    payoff m has a positive value (von Neumann). Two cases need no game: where a backbone is right,
    all weight goes to it; where one wrong class is ahead in all backbones, no weights help. Classes
    that are ahead in none do not matter. The other samples are solved exactly, all at once, by the
    simplex method, and the weights are checked. A value of 0 within rounding counts as not
    reachable, except where a backbone itself is right.
    """
    index = np.broadcast_to(labels[:, None], (*logits.shape[:2], 1))
    true = np.take_along_axis(logits, index, axis=2)
    lower = np.arange(logits.shape[2]) < labels[:, None]
    ahead = (logits > true) | ((logits == true) & lower)
    reached = np.asarray(~ahead.any(axis=2).all(axis=0))
    hopeless = ahead.all(axis=0).any(axis=1)
    open_cases = np.flatnonzero(~reached & ~hopeless)
    counts = ahead.any(axis=0)[open_cases].sum(axis=1)  # rivals
    open_cases = open_cases[np.argsort(counts, kind="stable")]  # alike ones are solved together
    width = len(logits) + 1
    step = max(1, _CELLS // ((counts.max(initial=0) + width) * width))
    for start in range(0, len(open_cases), step):
        samples = open_cases[start : start + step]
        rivals = ahead[:, samples].any(axis=0)
        most = rivals.sum(axis=1).max()
        classes = np.argsort(~rivals, axis=1, kind="stable")[:, :most]
        real = np.take_along_axis(rivals, classes, axis=1)  # the others are padding
        rivals_logits = np.take_along_axis(logits[:, samples], classes[None], axis=2)
        margins = true[:, samples].astype(np.float64) - rivals_logits
        reached[samples] = _winnable(margins.transpose(1, 0, 2), real)
    return reached


def _winnable(margins: Doubles, real: Mask) -> Mask:
    """(game,): whether some convex combination of the rows is positive in every real column.

    margins: (game, row, column); real: (game, column).
    """
    scaled = margins / np.abs(margins).max(axis=(1, 2), keepdims=True)
    weights = _strategies(scaled, real)
    values = np.matmul(weights[:, None, :], scaled)[:, 0]
    return np.asarray(np.where(real, values, np.inf).min(axis=1) > _ROUNDING)


def _strategies(payoff: Doubles, real: Mask) -> Doubles:
    """(game, row): weights >= 0 that maximise the smallest weighted sum over columns.

    payoff: (game, row, column) from -1 to 1. With payoff + 2, which is positive, the column
    player's problem is: maximise sum(x) with (payoff + 2) x <= 1, x >= 0 (Dantzig 1951). The
    slack variables are a basis to start from, and the duals of the constraints are the weights.
    """
    games, rows, columns = payoff.shape
    tableau = np.zeros((games, rows + 1, columns + rows + 1))
    tableau[:, :rows, :columns] = payoff + 2
    tableau[:, :rows, columns:-1] = np.eye(rows)
    tableau[:, :rows, -1] = 1
    tableau[:, rows, :columns] = -1.0 * real
    weights = np.zeros((games, rows))
    running = np.arange(games)
    for _ in range(_PIVOTS * rows):
        entering = tableau[:, rows, :-1].argmin(axis=1)
        costs = np.take_along_axis(tableau[:, rows], entering[:, None], axis=1)[:, 0]
        weights[running] = np.maximum(tableau[:, rows, columns:-1], 0)
        going = costs < -_ROUNDING
        if not going.all():
            tableau, running, entering = tableau[going], running[going], entering[going]
        if not len(running):
            break
        _pivot(tableau, entering)
    return weights


def _pivot(tableau: Doubles, entering: Rows) -> None:
    """Bring the entering column of each tableau into its basis, in place."""
    games, rows = np.arange(len(tableau)), tableau.shape[1] - 1
    column = tableau[games, :, entering]
    usable = column[:, :rows] > _ROUNDING
    ratios = np.where(usable, tableau[:, :rows, -1] / np.where(usable, column[:, :rows], 1), np.inf)
    leaving = ratios.argmin(axis=1)
    row = tableau[games, leaving] / column[games, leaving][:, None]
    tableau -= column[:, :, None] * row[:, None, :]
    tableau[games, leaving] = row

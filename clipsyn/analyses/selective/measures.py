"""How much better are the answers when the least confident ones are withheld?

Answers are given in order of falling confidence. After the first k of n, E(k) of them are wrong:
coverage is k/n, the selective risk E(k)/k (El-Yaniv and Wiener, JMLR 2010). Answers of equal
confidence have no order, so E(k) is its mean over all orders of them; no number depends on the
order of the samples.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics import Array, Doubles, Floats, Mask, Rows
from clipsyn.methods.numerics.blocks import in_blocks

LEAST_ANSWERS = 20  # on the support: from fewer no threshold is chosen
_BOUND = NormalDist().inv_cdf(0.95)
_ROUNDING = 1e-9  # of a number of samples


def confidences(scores: Floats) -> dict[str, Doubles]:
    """How sure each answer is, by three scores: (sample,), from 0 to 1.

    max-softmax: probability of the answer. margin: how far it is above that of the second class.
    entropy: 1 - entropy / log(classes). scores: (sample, class), whose softmax are probabilities;
    NaN for a sample with NaN.

    The probabilities beside the largest are summed on their own: in single precision all that are
    above 1 - 3e-8 would be equal.
    """
    confidence = np.ones((3, len(scores)))

    def block(rows: slice) -> None:
        shifted = scores[rows] - scores[rows].max(axis=1, keepdims=True)
        odds = np.exp(shifted)  # against the answer
        odds[np.arange(len(odds)), shifted.argmax(axis=1)] = 0
        others = odds.sum(axis=1, dtype=np.float64)
        spread = np.einsum("nc,nc->n", odds, shifted, dtype=np.float64)
        entropy = np.log1p(others) - spread / (1 + others)
        confidence[0, rows] = 1 / (1 + others)
        confidence[1, rows] = (1 - odds.max(axis=1)) / (1 + others)
        confidence[2, rows] = 1 - entropy / math.log(scores.shape[1])

    if scores.shape[1] > 1:
        in_blocks(block, scores.shape)
    confidence[:, np.isnan(scores.max(axis=1))] = np.nan
    names = "max-softmax", "margin", "entropy"
    return dict(zip(names, confidence.clip(0, 1), strict=True))


def agreement(predictions: NDArray[np.integer[Any]], answers: NDArray[np.integer[Any]]) -> Doubles:
    """(sample,) share of the backbones that predict the answer.

    predictions: (backbone, sample). answers: (sample,), of one of them or of an ensemble.
    """
    agree = np.count_nonzero(predictions == answers, axis=0)
    return np.asarray(agree / len(predictions))


class RiskCoverage(NamedTuple):
    """What withholding does; NaN where there is no sample."""

    aurc: float  # mean over k of E(k)/k
    e_aurc: float  # its excess over that of the best order
    augrc: float  # area under E(k)/n over coverage
    accuracy: Doubles  # (coverage,)


def risk_coverage(confidence: Array, correct: Mask, coverages: Doubles) -> RiskCoverage:
    """confidence, correct: (sample,). coverages: (coverage,), above 0 and at most 1.

    At least that share of the answers is given. AURC and E-AURC are those of Geifman, Uziel and
    El-Yaniv (ICLR 2019), AUGRC that of Traub et al. (NeurIPS 2024).
    """
    _check(confidence, correct)
    n = len(correct)
    if not n:
        return RiskCoverage(math.nan, math.nan, math.nan, np.full(len(coverages), math.nan))
    errors, k = _errors(confidence, correct), np.arange(1, n + 1)
    best = np.maximum(0, k - np.count_nonzero(correct))  # all right ones first
    aurc, kept = float((errors / k).mean()), kept_of(n, coverages)
    return RiskCoverage(
        aurc,
        aurc - float((best / k).mean()),
        float(errors.sum() - errors[-1] / 2) / n**2,  # by trapezoids
        1 - errors[kept - 1] / kept,
    )


def _errors(confidence: Array, correct: Mask) -> Doubles:
    """(sample,) E(k) for k from 1: those of equal confidence share their errors."""
    order = np.argsort(-confidence, kind="stable")
    ends = _ends(confidence[order])
    sizes = np.diff(ends, prepend=0)
    wrong = np.add.reduceat(~correct[order], ends - sizes, dtype=np.int64)
    before = np.cumsum(wrong) - wrong
    place = np.arange(1, len(order) + 1) - np.repeat(ends - sizes, sizes)
    return np.repeat(before, sizes) + np.repeat(wrong / sizes, sizes) * place


def told_apart(own: Array, others: Array) -> tuple[float, float]:
    """How well confidences (sample,) tell own images from others; NaN without any.

    The AUROC is the chance that an own image has more confidence than another one; ties count half.
    For the false positive rate images are accepted from the largest threshold on that accepts at
    least 95 % of the own ones.
    """
    n, m = len(own), len(others)
    if not n or not m:
        return math.nan, math.nan
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, own, side) for side in ("left", "right"))
    least = np.sort(own)[n - kept_of(n, np.array([0.95])).item()]
    return float((below + up_to).sum()) / (2 * n * m), float((others >= least).mean())


def smallest_threshold(confidence: Array, correct: Mask, wished: float) -> float:
    """The smallest confidence from which on answers are right as often as is wished, surely enough.

    At least `LEAST_ANSWERS` are given from it on, and Wilson's lower bound of their accuracy, of
    one side and 95 %, is `wished` or more: the largest of many shares is so by luck. 0 where that
    holds for all answers together, NaN where no threshold will do. confidence, correct: (sample,).
    """
    _check(confidence, correct)
    order = np.argsort(-confidence, kind="stable")
    ends = _ends(confidence[order])
    right = np.cumsum(correct[order])[ends - 1]
    margin = _BOUND * np.sqrt(ends * wished * (1 - wished))  # the bound, solved for `right`
    surely = (right >= wished * ends + margin - _ROUNDING) & (wished < 1)
    enough = np.flatnonzero(surely & (ends >= LEAST_ANSWERS))
    if not len(enough):
        return math.nan
    last = enough[-1]
    return 0.0 if last == len(ends) - 1 else float(confidence[order[ends[last] - 1]])


def kept_of(n: int, coverages: Doubles) -> NDArray[np.int64]:
    """(coverage,) how many answers are given: at least as many as asked for, and one."""
    return np.maximum(1, np.ceil(coverages * n - _ROUNDING)).astype(np.int64)


def _ends(ordered: Array) -> Rows:
    """(distinct,) place behind the last of each run of equal values."""
    return np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(ordered))[
        : len(ordered)
    ].astype(np.intp)


def _check(confidence: Array, correct: Array) -> None:
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise ValueError(
            f"a confidence for each sample, not {confidence.shape} and {correct.shape}"
        )
    if np.isnan(confidence).any():
        raise ValueError("a confidence is NaN: leave out samples without a prediction")

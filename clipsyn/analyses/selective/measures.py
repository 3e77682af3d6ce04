"""How much better are the answers when the least confident ones are withheld?

Answers are given in order of falling confidence. After the first k of n, E(k) of them are wrong:
coverage is k/n, the selective risk E(k)/k (El-Yaniv and Wiener, JMLR 2010). Answers of equal
confidence have no order, so E(k) is its mean over all orders of them; no number depends on the
order of the samples.

A resample of the samples is how often each is drawn: `times`, (resample, sample). Where images have
copies, the number of all that are drawn varies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.blocks import in_blocks

LEAST_ANSWERS = 20  # on the support: from fewer no threshold is chosen
_BOUND = NormalDist().inv_cdf(0.95)
_ROUNDING = 1e-9  # of a number of samples
TPR = 0.95  # share of the own images that are to be accepted


class Confidences(NamedTuple):
    """How sure each answer is, by three scores: arrays (sample,), from 0 to 1."""

    max_softmax: NDArray[np.float64]  # probability of the answer
    margin: NDArray[np.float64]  # how far it is above that of the second class
    entropy: NDArray[np.float64]  # 1 - entropy / log(classes)


def confidences(scores: NDArray[np.float32]) -> Confidences:
    """Of scores (sample, class) whose softmax are probabilities; NaN for a sample with NaN.

    The probabilities beside the largest are summed on their own: in single precision all that are
    above 1 - 3e-8 would be equal.
    """
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores are (sample, class), not {scores.shape}")
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
    return Confidences(*confidence.clip(0, 1))


def agreement(
    predictions: NDArray[np.integer[Any]], answers: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """(sample,) share of the backbones that predict the answer.

    predictions: (backbone, sample). answers: (sample,), of one of them or of an ensemble.
    """
    if predictions.ndim != 2 or predictions.shape[1:] != answers.shape:
        raise ValueError(
            "predictions are (backbone, sample) beside answers (sample,), "
            f"not {predictions.shape} and {answers.shape}"
        )
    shares: NDArray[np.float64] = np.count_nonzero(predictions == answers, axis=0) / len(
        predictions
    )
    return shares


class RiskCoverage(NamedTuple):
    """What withholding does, for each resample; NaN where there is no sample."""

    aurc: NDArray[np.float64]  # (resample,) mean over k of E(k)/k
    e_aurc: NDArray[np.float64]  # (resample,) its excess over that of the best order
    augrc: NDArray[np.float64]  # (resample,) area under E(k)/n over coverage
    accuracy: NDArray[np.float64]  # (resample, coverage)


def risk_coverage(
    confidence: NDArray[Any],
    correct: NDArray[np.bool_],
    times: Iterable[NDArray[Any]],
    coverages: NDArray[np.float64],
) -> RiskCoverage:
    """confidence, correct: (sample,). times: arrays (some resamples, sample).

    coverages: (coverage,), above 0 and at most 1. At least that share of the answers is given.
    AURC and E-AURC are those of Geifman, Uziel and El-Yaniv (ICLR 2019), AUGRC that of Traub et al.
    (NeurIPS 2024).
    """
    ranking = Ranking.of(confidence, correct)
    return RiskCoverage(
        *_by_resample(times, lambda some: _risk_coverage(ranking.steps(some), coverages))
    )


class Detection(NamedTuple):
    """How well confidences tell own from foreign images, for each resample; NaN without any."""

    auroc: NDArray[np.float64]  # (resample,)
    fpr: NDArray[np.float64]  # (resample,) share of foreign images that are accepted


def detection(
    own: NDArray[Any],
    foreign: NDArray[Any],
    times: Iterable[tuple[NDArray[Any], NDArray[Any]]],
) -> Detection:
    """own, foreign: confidences (sample,). times: of the own images, and of the foreign ones.

    The AUROC is the chance that an own image has more confidence than a foreign one; ties count
    half. For the false positive rate images are accepted from the largest threshold on that accepts
    at least `TPR` of the own ones.
    """
    is_own = np.repeat([True, False], [len(own), len(foreign)])
    ranking = Ranking.of(np.concatenate([own, foreign]), is_own)
    return Detection(
        *_by_resample(
            (np.concatenate(pair, axis=1) for pair in times),
            lambda some: _detection(ranking.steps(some)),
        )
    )


class Steps(NamedTuple):
    """Steps of a ranking that have wrong samples, and an empty last one: (resample, step).

    How many of the drawn samples stand before the step, up to its end, and are wrong in it.
    """

    start: NDArray[np.int32]
    stop: NDArray[np.int32]
    wrong: NDArray[np.int32]

    @property
    def n(self) -> NDArray[np.int32]:
        """(resample,) how many are drawn."""
        return self.stop[:, -1]

    @property
    def rate(self) -> NDArray[np.float64]:
        """(resample, step) how many of a step's samples are wrong."""
        rate: NDArray[np.float64] = self.wrong / np.maximum(self.stop - self.start, 1)
        return rate


@dataclass(frozen=True)
class Ranking:
    """Samples in order of falling confidence, in steps within which no order is known or matters.

    A step is samples of equal confidence, the wrong ones first, or neighbours that are all wrong.
    """

    order: NDArray[np.intp]  # (sample,) row numbers
    starts: NDArray[np.intp]  # (step,) place in the order of its first sample
    wrong_ends: NDArray[np.intp]  # (step,) place behind the last sample that is wrong
    ends: NDArray[np.intp]  # (step,) place behind its last sample

    @classmethod
    def of(cls, confidence: NDArray[Any], correct: NDArray[np.bool_]) -> Ranking:
        """confidence, correct: (sample,)."""
        _check(confidence, correct)
        order = np.lexsort((correct, -confidence))
        ends = _ends(confidence[order])
        starts = np.append(0, ends)[: len(ends)]
        before = _from_zero(~correct[order])
        wrong = before[ends] - before[starts]
        all_wrong = wrong == ends - starts
        joined = all_wrong[1:] & all_wrong[:-1]  # with the step after it
        some = wrong > 0
        first, last = some.copy(), some.copy()
        first[1:] &= ~joined
        last[:-1] &= ~joined
        starts, ends = (np.append(part, len(order)) for part in (starts[first], ends[last]))
        return cls(order, starts, starts + before[ends] - before[starts], ends)

    def steps(self, times: NDArray[Any]) -> Steps:
        """times: (resample, sample)."""
        drawn = np.zeros((len(times), len(self.order) + 1), np.int32)
        np.cumsum(times.take(self.order, axis=1), axis=1, out=drawn[:, 1:])
        start = drawn.take(self.starts, axis=1)
        wrong = drawn.take(self.wrong_ends, axis=1) - start
        return Steps(start, drawn.take(self.ends, axis=1), wrong)


def _by_resample(
    times: Iterable[NDArray[Any]], measured: Callable[[NDArray[Any]], tuple[NDArray[Any], ...]]
) -> Iterator[NDArray[np.float64]]:
    """Each of the numbers that `measured` gives for some resamples, for all of them."""
    parts: list[tuple[NDArray[Any], ...]] = []
    for some in times:

        def block(rows: slice, some: NDArray[Any] = some) -> tuple[NDArray[Any], ...]:
            return measured(some[rows])

        parts += in_blocks(block, some.shape)
    yield from map(np.concatenate, zip(*parts, strict=True))


def _risk_coverage(steps: Steps, coverages: NDArray[np.float64]) -> RiskCoverage:
    """A wrong answer at place i of n counts in E(k)/k for all k from i on: 1/i + … + 1/n together,
    and in E(k), by trapezoids, n - i + 1/2 times.
    """
    n, before = steps.n, _from_zero(steps.wrong)
    if not n.any():
        unknown = np.full(len(n), np.nan)
        every = np.full((len(n), len(coverages)), np.nan)
        return RiskCoverage(unknown, unknown, unknown, every)
    wrong, harmonic = before[:, -1], _from_zero(1 / np.arange(1, n.max() + 1))
    aurc = (harmonic[n] * wrong - _sums(steps, _from_zero(harmonic[:-1]))) / n
    best = (wrong - (n - wrong) * (harmonic[n] - harmonic[n - wrong])) / n  # all right ones first
    kept = kept_of(n[:, None], coverages)
    return RiskCoverage(
        aurc,
        aurc - best,
        _area(steps, wrong) / n.astype(np.float64) ** 2,
        1 - _errors_at(steps, before, kept) / kept,
    )


def _detection(steps: Steps) -> Detection:
    """The foreign images are the wrong ones."""
    before = _from_zero(steps.wrong)
    m = before[:, -1]
    n = steps.n - m
    if not (n * m).all():
        return Detection(*[np.full(len(n), np.nan)] * 2)
    # of a foreign image the area counts the own and foreign ones behind it, and half of itself
    above = _area(steps, m) - m * m / 2
    enough = TPR * n[:, None] - _ROUNDING
    step = (steps.stop - before[:, 1:] >= enough).argmax(axis=1)[:, None]
    start, accepted = (np.take_along_axis(part, step, axis=1) for part in (steps.start, before))
    within = np.where(start - accepted < enough, np.take_along_axis(steps.wrong, step, axis=1), 0)
    return Detection(1 - above / (n * m), (accepted + within)[:, 0] / m)


def smallest_threshold(
    confidence: NDArray[Any], correct: NDArray[np.bool_], wished: float
) -> float:
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


def kept_of(n: int | NDArray[Any], coverages: NDArray[np.float64]) -> NDArray[np.int64]:
    """(coverage,) how many answers are given: at least as many as asked for, and one."""
    return np.maximum(1, np.ceil(coverages * n - _ROUNDING)).astype(np.int64)


def _area(steps: Steps, wrong: NDArray[np.int64]) -> NDArray[np.float64]:
    """(resample,) sum over the wrong answers of how many places are from theirs on, less 1/2."""
    places = np.arange(steps.n.max() + 1, dtype=np.float64)
    area: NDArray[np.float64] = steps.n.astype(np.int64) * wrong - _sums(steps, places**2 / 2)
    return area


def _sums(steps: Steps, first: NDArray[np.float64]) -> NDArray[np.float64]:
    """(resample,) over the wrong answers, of what stands at the places up to theirs; first: sums
    over the first places, which those of a step share.
    """
    of_steps = first.take(steps.stop)
    of_steps -= first.take(steps.start)
    sums: NDArray[np.float64] = np.einsum("rs,rs->r", of_steps, steps.rate)
    return sums


def _errors_at(
    steps: Steps, before: NDArray[np.int64], kept: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(resample, coverage): how many of the `kept` most confident answers are wrong.

    before: (resample, step + 1) how many are in the steps before.
    """
    rows = np.arange(len(before))[:, None]
    apart = rows * (int(steps.n.max()) + 1)  # so that one search serves all rows
    step = np.searchsorted((steps.stop + apart).ravel(), (kept + apart).ravel())
    step = step.reshape(len(before), -1) - rows * steps.stop.shape[1]
    some = np.maximum(kept - steps.start[rows, step], 0)  # none of those right before the step
    size = np.maximum(steps.stop[rows, step] - steps.start[rows, step], 1)
    errors: NDArray[np.float64] = before[rows, step] + some * steps.wrong[rows, step] / size
    return errors


def _ends(ordered: NDArray[Any]) -> NDArray[np.intp]:
    """(distinct,) place behind the last of each run of equal values."""
    return np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(ordered))[
        : len(ordered)
    ].astype(np.intp)


def _from_zero(values: NDArray[Any]) -> NDArray[Any]:
    """Cumulative sums along the last axis, with 0 before the first."""
    kind = np.int64 if values.dtype.kind in "bui" else np.float64
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1), kind)
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums


def _check(confidence: NDArray[Any], correct: NDArray[Any]) -> None:
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise ValueError(
            f"a confidence for each sample, not {confidence.shape} and {correct.shape}"
        )
    if np.isnan(confidence).any():
        raise ValueError("a confidence is NaN: leave out samples without a prediction")

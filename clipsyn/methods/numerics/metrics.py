"""How often are the predictions right, and how well do the probabilities say so?

Pure functions of predictions or logits, and labels.

A sample counts when it has a label (>= 0) and a prediction (its image could be read); every
score says over how many samples it is. Where none is left the score is NaN.
Class identity is an index, and ties go to the lowest one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics import Array, Doubles, Floats, Labels, Mask, Rows
from clipsyn.methods.numerics.blocks import in_blocks, in_cache
from clipsyn.methods.numerics.logits import NO_PREDICTION, top_class

CALIBRATION_BINS = 15  # as Guo et al. 2017
_PARTS = 10  # of equal size, of a reliability diagram


class Score(NamedTuple):
    value: float  # a fraction, NaN where n is 0
    n: int  # samples it is over


class Judged(NamedTuple):
    """What each sample contributes to the metrics: arrays (sample,); NaN where none."""

    prediction: NDArray[np.uint16]  # NO_PREDICTION where there is none
    nll: Floats  # -log probability of the true class, nats
    brier: Floats  # sum over classes of (probability - truth)^2: 0 to 2
    confidence: Floats  # probability of the predicted class


def judge(scores: Floats, labels: Labels) -> Judged:
    """Judge scores (sample, class) whose softmax are probabilities against labels (sample,)."""

    def block(rows: slice) -> Judged:
        parts = in_cache(rows, scores.shape[1])
        return join([_judge_block(scores[some], labels[some]) for some in parts])

    return join(in_blocks(block, scores.shape) or [_judge_block(scores, labels)])


def join(parts: Sequence[Judged]) -> Judged:
    """Consecutive blocks of samples as one."""
    return Judged(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _judge_block(scores: Floats, labels: Labels) -> Judged:
    known = np.maximum(labels, 0)[:, None]
    prediction, largest = top_class(scores)
    odds = scores - largest
    true = np.take_along_axis(odds, known, axis=1)
    np.exp(odds, out=odds)
    total = odds.sum(axis=1, keepdims=True)
    nll = (np.log(total) - true)[:, 0]
    total = total[:, 0]
    brier = np.einsum("nc,nc->n", odds, odds) / total**2 - 2 * np.exp(-nll) + 1
    for values in (nll, brier):
        values[labels < 0] = np.nan
    return Judged(prediction, nll, brier, 1 / total)  # the largest score is 0 now


class Bin(NamedTuple):
    """A tenth of the samples, by confidence."""

    number: int  # from 0, the least confident
    n: int
    right: int
    confidence: float  # mean
    rows: Rows


def reliability_bins(confidence: Array, correct: Mask) -> list[Bin]:
    """Ten bins of as many samples each: arrays (sample,).

    Samples of one confidence are in one bin, the lowest that they reach, so there may be fewer.
    """
    if not len(confidence):
        return []
    edges = np.quantile(confidence, np.arange(1, _PARTS) / _PARTS, method="inverted_cdf")
    places = np.searchsorted(edges, confidence)
    rows = {int(number): np.flatnonzero(places == number) for number in np.unique(places)}
    return [
        Bin(number, len(of), int(correct[of].sum()), confidence[of].mean(dtype=np.float64), of)
        for number, of in rows.items()
    ]


def expected_calibration_error(
    confidence: Array, correct: Mask, bins: int = CALIBRATION_BINS
) -> Score:
    """Mean over samples of |confidence - accuracy| of their bin of confidence; NaN for n = 0.

    Bins are of equal width, closed on the right (Guo et al. 2017).
    """
    n = len(confidence)
    gaps = np.zeros((n, bins), np.float32)
    gaps[np.arange(n), _bins(confidence, bins)] = confidence - correct
    return Score(float(np.abs(gaps.mean(axis=0)).sum()) if n else math.nan, n)


def calibration_floor(confidence: Array, bins: int = CALIBRATION_BINS) -> Score:
    """The calibration error to expect of a perfectly calibrated model with these confidences (n,).

    Its labels would be drawn with these probabilities, and the accuracy of a bin is then off by
    chance: with few samples, or many bins, by a good part of what is measured. In a bin of m
    samples and mean confidence p it is off by E|X - mp| / m on average, X binomial, which de Moivre
    (1730) has in closed form: 2 k (1 - p) P(X = k) with k = floor(mp) + 1. NaN for n = 0.
    """
    n = len(confidence)
    sums = np.bincount(_bins(confidence, bins), confidence.astype(np.float64), minlength=bins)
    sizes = np.bincount(_bins(confidence, bins), minlength=bins)
    off = [_mean_deviation(int(m), total / m) for m, total in zip(sizes, sums, strict=True) if m]
    return Score(math.fsum(off) / n if n else float("nan"), n)


def _mean_deviation(m: int, p: float) -> float:
    """E|X - mp| of a binomial X of m samples."""
    k = math.floor(m * p) + 1
    if p <= 0 or p >= 1 or k > m:
        return 0.0
    choose = math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1)
    return 2 * k * (1 - p) * math.exp(choose + k * math.log(p) + (m - k) * math.log1p(-p))


def _bins(confidence: Array, bins: int) -> Rows:
    """(sample,) number of the bin, of equal width and closed on the right."""
    return np.asarray(np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1))


def scored(predictions: Array, labels: Array) -> Mask:
    """Which samples count: labelled, and predicted by everyone.

    predictions: (n,) or (backbone, n); labels: (n,). Returns (n,).
    """
    present: Mask = np.not_equal(predictions, NO_PREDICTION)
    return (labels >= 0) & (present if present.ndim == 1 else present.all(axis=0))


def ratio(numerator: Any, denominator: Any) -> Doubles:
    """Element by element; NaN where the denominator is not above 0."""
    bottom = np.asarray(denominator, np.float64)
    return np.asarray(numerator / np.where(bottom > 0, bottom, np.nan), np.float64)


def accuracy(predictions: Array, labels: Array) -> Score:
    """Top-1 accuracy: predictions (n,), labels (n,)."""
    counted = scored(predictions, labels)
    n, right = int(counted.sum()), int(np.count_nonzero(counted & (predictions == labels)))
    return Score(right / n if n else float("nan"), n)


def mean_per_class_recall(predictions: Array, labels: Array, classes: int) -> Score:
    """Mean over classes of the share of their samples that are recognised: (n,), (n,).

    Classes without samples have no recall (0/0) and are left out of the mean.
    """
    counted = scored(predictions, labels)
    truth = labels[counted]
    right = np.bincount(truth[predictions[counted] == truth], minlength=classes)
    size = np.bincount(truth, minlength=classes)
    recalls = right[size > 0] / size[size > 0]
    return Score(float(recalls.mean()) if len(recalls) else float("nan"), len(truth))


def true_class_rank(logits: Array, labels: Array) -> NDArray[np.int64]:
    """How many classes come before the true one: logits (n, class), labels (n,) -> (n,).

    0 where the prediction is right. Among equal logits the lower index comes first. -1 where
    there is no label or a NaN.
    """
    ranks = np.empty(len(labels), np.int64)
    for some in in_cache(slice(0, len(labels)), logits.shape[1]):
        ranks[some] = _rank_block(logits[some], labels[some])
    return ranks


def _rank_block(logits: Array, labels: Array) -> NDArray[np.int64]:
    true = np.take_along_axis(logits, np.maximum(labels, 0)[:, None], axis=1)
    ranks = np.count_nonzero(logits > true, axis=1).astype(np.int64)
    smaller = np.count_nonzero(logits < true, axis=1)
    odd = (ranks + smaller + 1 < logits.shape[1]) | np.isnan(true[:, 0])  # equal logits, or a NaN
    before = np.arange(logits.shape[1]) < labels[odd, None]
    equal_before = np.count_nonzero((logits[odd] == true[odd]) & before, axis=1)
    unknown = np.isnan(logits[odd]).any(axis=1)
    ranks[odd] = np.where(unknown, -1, ranks[odd] + equal_before)
    return np.where(labels < 0, -1, ranks)


def correctness(predictions: Array, labels: Array) -> Mask:
    """(backbone, counted sample): which predictions are right.

    predictions: (backbone, sample), labels: (sample,). Samples count that have a label, and a
    prediction of every backbone.
    """
    counted = scored(predictions, labels)
    right: Mask = predictions == labels
    # np.compress is five times as fast as an index of booleans, and mostly there is nothing to do
    return np.ascontiguousarray(right if counted.all() else np.compress(counted, right, axis=1))


def class_accuracy(right: Mask, labels: Array) -> tuple[Doubles, NDArray[np.int64]]:
    """Accuracy (backbone, class) and samples (class,) of the classes that have any.

    right: (backbone, sample), labels: (sample,) >= 0.
    """
    hits, sizes = class_hits(right, labels), np.bincount(labels)
    there = sizes > 0
    return hits[:, there] / sizes[there], sizes[there]


def independent_oracle(accuracy: Array, sizes: Array) -> float:
    """The oracle that errors independent within each class would give, a fraction.

    accuracy: (backbone, class), fractions; sizes: (class,) samples of each class. In each class all
    backbones then miss an image with the product of their error rates. NaN without samples.
    """
    seen = 1 - np.prod(1 - np.asarray(accuracy, np.float64), axis=0)
    return float(ratio(seen @ sizes, sizes.sum()))


def class_hits(right: Mask, labels: Array) -> NDArray[np.int64]:
    """(backbone, class): samples of each class that each backbone gets right."""
    classes = int(labels.max(initial=-1)) + 1
    return np.stack([np.bincount(labels[row], minlength=classes) for row in right])

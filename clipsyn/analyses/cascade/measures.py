"""Cascades: run backbones one after the other, and stop at the first confident answer.

Stage k has combined the first k backbones. A sample leaves at

    stage(x) = min { k : confidence_k(x) >= threshold, or k is the last }

and costs what the backbones up to there cost. This is the reading that section 9 of the paper
recommends; Wang et al., Wisdom of Committees (ICLR 2022), with the average of the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics import Array, Doubles, Floats, Mask, Rows
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import contenders
from clipsyn.methods.numerics.metrics import ratio

NEVER = 1.01  # a threshold that no probability reaches: every sample goes through all stages
_ROUNDING = 1e-9  # accuracies closer than this are equal


class Curve(NamedTuple):
    """A cascade at each of several thresholds; NaN where there is no sample."""

    accuracy: Doubles  # (threshold,)
    cost: Doubles  # (threshold,) mean over samples
    shares: Doubles  # (threshold, stage) of the samples that leave there


def exit_stages(confidence: Array, threshold: float) -> Rows:
    """(sample,) index of the stage at which each sample leaves: confidence (stage, sample)."""
    passes = np.asarray(confidence, np.float64) >= threshold
    passes[-1] = True
    leaves: Rows = passes.argmax(axis=0)
    return leaves


def cascade_curve(confidence: Array, correct: Mask, costs: Array, thresholds: Array) -> Curve:
    """Accuracy, mean cost and exit shares at all thresholds at once.

    confidence, correct: (stage, sample). costs: (stage,) of each stage alone, on top of those
    before it. thresholds: (threshold,): at 0 all samples leave at the first stage, above 1 at the
    last. Raises ValueError for other shapes and NaN.

    A sample has left by stage k where the largest confidence up to there reaches the threshold,
    so each stage needs one sort, and no array (threshold, sample).
    """
    if np.isnan(confidence).any():
        raise ValueError("a confidence is NaN: leave out samples without a prediction")
    reached = np.maximum.accumulate(np.asarray(confidence, np.float64), axis=0)
    reached[-1] = np.inf  # all that are left leave
    stages, n = reached.shape
    asked = np.asarray(thresholds, np.float64)
    gone = np.zeros((len(asked), stages + 1), np.int64)  # before the first stage, and by each
    right = np.zeros(len(asked), np.int64)
    for stage in range(stages):
        gone[:, stage + 1] = _at_least(reached[stage], asked)
        here = correct[stage]
        right += _at_least(reached[stage][here], asked)
        if stage:
            right -= _at_least(reached[stage - 1][here], asked)
    shares = ratio(np.diff(gone, axis=1), n)
    return Curve(ratio(right, n), shares @ np.cumsum(costs, dtype=np.float64), shares)


def smallest_threshold(confidence: Array, correct: Mask, within: float) -> float:
    """The smallest threshold from which on accuracy stays within `within` of the last stage's.

    confidence, correct: (stage, sample). within: a fraction of the samples. 0, every confidence
    and NEVER are tried: no other threshold makes a difference. A smaller one that is good enough
    by luck, with worse ones above it, is not taken. NEVER where there is no sample.
    """
    reached = np.maximum.accumulate(np.asarray(confidence, np.float64)[:-1], axis=0)
    tried = np.unique(np.append(reached.ravel(), [0.0, NEVER]))
    curve = cascade_curve(confidence, correct, np.zeros(len(confidence)), tried)
    enough = curve.accuracy >= curve.accuracy[-1] - within - _ROUNDING
    failed = np.flatnonzero(~enough)
    return float(tried[min(failed[-1] + 1, len(tried) - 1)] if len(failed) else tried[0])


def pareto_front(costs: Array, values: Array) -> Mask:
    """(point,) whether no other point is as cheap and as good, and better in one of the two.

    costs, values: (point,). Equal points are both in front, or neither. A NaN never is.
    """
    front = np.zeros(len(costs), bool)
    known = np.flatnonzero(~(np.isnan(costs) | np.isnan(values)))
    order = known[np.lexsort((-values[known], costs[known]))]  # the best of each cost first
    best, paid = -np.inf, np.nan
    for point in order:
        equal = costs[point] == paid and values[point] == best
        if values[point] > best or equal:
            front[point] = True
            best, paid = values[point], costs[point]
    return front


def most_accurate(accuracy: Mapping[str, float], gflops: Mapping[str, float]) -> str:
    """The backbone with the highest accuracy, the cheapest of equals."""
    return max(accuracy, key=lambda name: (accuracy[name], -gflops[name]))


def average_predictions(logits: Floats) -> NDArray[np.uint16]:
    """(subset, sample) the class that the average of the logits predicts, the lowest of equals.

    logits: (sample, backbone, class), all finite. Backbone b is in subset s if ``s >> b & 1``; the
    empty subset predicts 0. A subset costs one sum and one search more than the one it extends.
    """
    count = logits.shape[1]
    predicted = np.zeros((1 << count, len(logits)), np.uint16)
    for group in contenders(logits):
        places = _places(group.of(logits))
        predicted[1:, group.samples] = group.classes[np.arange(len(group.samples)), places[1:]]
    return predicted


def _places(values: Floats) -> NDArray[np.uint16]:
    """(subset, sample) where the largest sum stands: values (sample, backbone, contender)."""
    _, count, width = values.shape
    places = np.zeros((1 << count, len(values)), np.uint16)

    def block(rows: slice) -> None:
        part = np.ascontiguousarray(values[rows].transpose(1, 0, 2))
        sums = np.zeros((count + 1, *part.shape[1:]), part.dtype)  # of subsets that are extended

        def extend(subset: int, size: int, first: int) -> None:
            for b in range(first, count):
                np.add(sums[size], part[b], out=sums[size + 1])
                places[subset | 1 << b, rows] = sums[size + 1].argmax(axis=1)
                extend(subset | 1 << b, size + 1, b + 1)

        extend(0, 0, 0)

    if width > 1:
        in_blocks(block, values.shape)
    return places


def _at_least(values: Doubles, thresholds: Doubles) -> Rows:
    """(threshold,) how many of the values reach each threshold."""
    below: Rows = np.searchsorted(np.sort(values), thresholds, side="left")
    return len(values) - below

"""Metrics of a method, with intervals, from what it predicts for each sample.

All methods on the same samples share one set of bootstrap resamples, so that gains are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.oracle.measures import class_accuracy, independent_oracle
from clipsyn.numerics.metrics import (
    Judged,
    Score,
    calibration_floor,
    calibration_gaps,
    expected_calibration_error,
    mean_per_class_recall,
)
from clipsyn.results.frame import Measured
from clipsyn.schema import NO_PREDICTION
from clipsyn.stats.bootstrap import Resamples, bootstrap_mean_per_class
from clipsyn.stats.intervals import UNKNOWN, percentiles


class Reference(NamedTuple):
    """A backbone that gains are taken over."""

    name: str
    correct: NDArray[np.bool_]  # (counted sample,)


class Scorer:
    """Metrics of methods over the same samples.

    labels: (sample,). singles: what each backbone predicts on its own. The samples that count have
    a label and a prediction of every backbone, so they are the same for every method.
    """

    def __init__(
        self, labels: NDArray[np.int32], singles: Mapping[str, Judged], classes: int
    ) -> None:
        self.singles = singles
        self.classes = classes
        readable = [judged.prediction != NO_PREDICTION for judged in singles.values()]
        self._rows = np.flatnonzero((labels >= 0) & np.logical_and.reduce(readable))
        self._labels = labels[self._rows]

    @property
    def n(self) -> int:
        return len(self._rows)

    @cached_property
    def resamples(self) -> Resamples:
        return Resamples(self.n)

    def single(self, name: str) -> Reference:
        return Reference(name, self.correct(self.singles[name]))

    @cached_property
    def best(self) -> Reference:
        """The backbone with the highest accuracy on these very samples, the first of equals."""
        references = [self.single(name) for name in self.singles]
        return max(references, key=lambda reference: int(reference.correct.sum()))

    @cached_property
    def anyone(self) -> NDArray[np.bool_]:
        """(counted sample,) whether any backbone is right."""
        right = [self.correct(single) for single in self.singles.values()]
        return np.asarray(np.logical_or.reduce(right))

    def correct(self, judged: Judged) -> NDArray[np.bool_]:
        """(counted sample,) whether the prediction is right."""
        right: NDArray[np.bool_] = judged.prediction[self._rows] == self._labels
        return right

    def metrics(self, judged: Judged, *, probabilities: bool = True) -> Iterator[Measured]:
        """acc1, mean_per_class_recall; from probabilities also nll, brier, ece and ece_floor.

        Other backbones matter only in that they decide which samples count.
        """
        correct = self.correct(judged)
        yield self._mean("acc1", correct)
        yield self._per_class(judged, correct)
        if not probabilities:
            return
        yield self._mean("nll", judged.nll[self._rows])
        yield self._mean("brier", judged.brier[self._rows])
        yield self._calibration(judged.confidence[self._rows], correct)
        floor = calibration_floor(judged.confidence[self._rows])
        yield Measured("ece_floor", floor, None)

    def gains(self, judged: Judged, chosen: Reference | None = None) -> Iterator[Measured]:
        """Gains of an ensemble in accuracy, as fractions.

        gain: over the best single backbone of these samples (the paper's reference, which was
        chosen on what it is measured on). gain_relative: the same divided by its accuracy.
        gain_over_chosen: over `chosen`, the backbone that was best on the support.
        """
        correct = self.correct(judged)
        yield self._gain("gain", correct, self.best.correct)
        yield self._relative(correct, self.best.correct)
        yield from self.over_chosen(correct, chosen)

    def over_chosen(
        self, correct: NDArray[np.bool_], chosen: Reference | None
    ) -> Iterator[Measured]:
        """gain_over_chosen, if a backbone was chosen."""
        if chosen is not None:
            yield self._gain("gain_over_chosen", correct, chosen.correct)

    def oracle(self) -> Iterator[Measured]:
        """Accuracy and gains of the oracle, and acc1_independent: its accuracy if errors were
        independent within each class.
        """
        right = np.stack([self.correct(single) for single in self.singles.values()])
        yield self._mean("acc1", self.anyone)
        mark = independent_oracle(*class_accuracy(right, self._labels))
        yield Measured("acc1_independent", Score(mark, self.n), None)
        yield self._gain("gain", self.anyone, self.best.correct)
        yield self._relative(self.anyone, self.best.correct)

    def diversity(self) -> Iterator[Measured]:
        """How differently the backbones predict: means over all pairs of them.

        disagreement: share of samples with two different predictions. error_inconsistency: share
        of which exactly one is right (the likely measure of the paper, section 2).
        """
        predicted = np.stack([s.prediction[self._rows] for s in self.singles.values()])
        first, second = np.triu_indices(len(predicted), 1)
        right = predicted == self._labels
        yield self._mean("disagreement", _share(predicted[first] != predicted[second]))
        yield self._mean("error_inconsistency", _share(right[first] != right[second]))

    def _mean(self, metric: str, values: NDArray[np.bool_ | np.float32]) -> Measured:
        value = float(values.mean(dtype=np.float64)) if self.n else float("nan")
        return Measured(metric, Score(value, self.n), self.resamples.interval(values))

    def _gain(
        self, metric: str, correct: NDArray[np.bool_], reference: NDArray[np.bool_]
    ) -> Measured:
        return self._mean(metric, correct.astype(np.float32) - reference)

    def _relative(self, correct: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Measured:
        base = float(reference.mean()) if self.n else float("nan")
        value = (float(correct.mean()) - base) / base if base > 0 else float("nan")
        interval = UNKNOWN
        if base > 0:
            means = self.resamples.means(np.stack([correct, reference], axis=1))
            usable = means[means[:, 1] > 0]
            interval = percentiles((usable[:, 0] - usable[:, 1]) / usable[:, 1])
        return Measured("gain_relative", Score(value, self.n), interval)

    def _per_class(self, judged: Judged, correct: NDArray[np.bool_]) -> Measured:
        predicted = judged.prediction[self._rows]
        score = mean_per_class_recall(predicted, self._labels, self.classes)
        return Measured(
            "mean_per_class_recall", score, bootstrap_mean_per_class(correct, self._labels)
        )

    def _calibration(self, confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> Measured:
        score = expected_calibration_error(confidence, correct)
        interval = UNKNOWN
        if self.n:
            means = self.resamples.means(calibration_gaps(confidence, correct))
            interval = percentiles(np.abs(means).sum(axis=1))
        return Measured("ece", score, interval)


def _share(pairs: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(pair, sample) -> (sample,): share of the pairs."""
    return np.asarray(pairs.mean(axis=0, dtype=np.float32))

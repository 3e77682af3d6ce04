"""Metrics of a method, with intervals, from what it predicts for each sample.

All methods on the same samples are measured on the same of them, so that gains are paired.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from math import isnan

import numpy as np
from numpy.typing import NDArray

from clipsyn.evaluation.results.frame import IF_ALIKE, OVER_BEST_ON_TEST, Measured
from clipsyn.methods.numerics.logits import NO_PREDICTION
from clipsyn.methods.numerics.metrics import (
    Judged,
    Score,
    calibration_floor,
    class_accuracy,
    expected_calibration_error,
    independent_oracle,
    mean_per_class_recall,
)
from clipsyn.stats.differences import difference_interval, ratio_interval
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import (
    Interval,
    mean_loss_interval,
    mean_per_class_interval,
    mean_share_interval,
    pearson,
    share_interval,
)

Answers = NDArray[np.bool_]  # (counted sample,) where a method is right


class Scorer:
    """Metrics of methods over the same samples.

    labels: (sample,). singles: what each backbone predicts on its own. images: what the samples
    show. Those that count have a label and a prediction of every backbone, so they are the same for
    every method: `rows`.
    """

    def __init__(
        self,
        labels: NDArray[np.int32],
        singles: Mapping[str, Judged],
        classes: int,
        images: Images,
    ) -> None:
        self.singles = singles
        self.classes = classes
        readable = [judged.prediction != NO_PREDICTION for judged in singles.values()]
        self.rows = np.flatnonzero((labels >= 0) & np.logical_and.reduce(readable))
        self._labels = labels[self.rows]
        self.images = images.take(self.rows)

    @property
    def n(self) -> int:
        return len(self.rows)

    def single(self, name: str) -> Answers:
        return self._singles[name]

    @cached_property
    def best(self) -> Answers:
        """The backbone with the highest accuracy on these very samples, the first of equals."""
        return max(self._singles.values(), key=lambda right: int(right.sum()))

    @cached_property
    def anyone(self) -> Answers:
        """Whether any backbone is right."""
        return np.asarray(np.logical_or.reduce([*self._singles.values()]))

    @cached_property
    def _singles(self) -> dict[str, Answers]:
        return {name: self.answers(judged) for name, judged in self.singles.items()}

    def answers(self, judged: Judged) -> Answers:
        right: Answers = judged.prediction[self.rows] == self._labels
        return right

    def backbones(self, silent: Collection[str] = ()) -> Iterator[tuple[str, Measured]]:
        """`metrics` of each backbone on its own.

        silent: backbones that have predictions alone, no probabilities.
        """
        for name, judged in self.singles.items():
            for measured in self.metrics(judged, probabilities=name not in silent):
                yield name, measured

    def metrics(self, judged: Judged, *, probabilities: bool = True) -> Iterator[Measured]:
        """acc1, mean_per_class_recall; from probabilities also nll, brier, ece and ece_floor.

        Other backbones matter only in that they decide which samples count.
        """
        right = self.answers(judged)
        yield self._accuracy(right)
        yield self._per_class(judged, right)
        if not probabilities:
            return
        nll, brier, confidence = (values[self.rows] for values in judged[1:])
        for metric, losses in (("nll", nll), ("brier", brier)):
            yield self._mean(metric, losses, mean_loss_interval(losses, right, self.images))
        ece = expected_calibration_error(confidence, right)
        yield Measured("ece", ece, None)  # too high by chance, of which no interval knows
        yield Measured("ece_floor", calibration_floor(confidence), None)

    def ensemble(
        self, judged: Judged, chosen: Answers | None = None, *, probabilities: bool = True
    ) -> Iterator[Measured]:
        """`metrics` of an ensemble, and its gains in accuracy, as fractions.

        gain: over `chosen`, the backbone that was best on the support. gain_over_best_on_test: over
        the best single backbone of these samples (the paper's reference, which was chosen on what
        it is measured on). relative_gain_over_best_on_test: the same divided by its accuracy.
        """
        yield from self.metrics(judged, probabilities=probabilities)
        right = self.answers(judged)
        yield self.gain(OVER_BEST_ON_TEST, right, self.best)
        yield self._relative(right, self.best)
        yield from self.over_chosen(right, chosen)

    def over_chosen(self, answers: Answers, chosen: Answers | None) -> Iterator[Measured]:
        """gain, if a backbone was chosen, and how it would go with error inconsistency by chance.

        Both are means over the same images, so that over datasets that do not differ at all they
        correlate as their parts do over images.
        """
        if chosen is not None:
            yield self.gain("gain", answers, chosen)
            value = pearson(self._uneven, answers.astype(np.int8) - chosen).value
            if not isnan(value):
                yield Measured(IF_ALIKE, Score(value, self.n), None)

    def oracle(self) -> Iterator[Measured]:
        """Accuracy and gains of the oracle, and acc1_independent: its accuracy if errors were
        independent within each class.
        """
        yield self._accuracy(self.anyone)
        right = np.stack([*self._singles.values()])
        mark = independent_oracle(*class_accuracy(right, self._labels))
        yield Measured("acc1_independent", Score(mark, self.n), None)
        lead = self.anyone & ~self.best  # the oracle is right wherever the best is
        yield self._mean(OVER_BEST_ON_TEST, lead, share_interval(int(lead.sum()), self.images))
        yield self._relative(self.anyone, self.best)

    def diversity(self) -> Iterator[Measured]:
        """How differently the backbones predict: means over all pairs of them.

        disagreement: share of samples with two different predictions. error_inconsistency: share
        of which exactly one is right (the likely measure of the paper, section 2).
        """
        predicted = np.stack([s.prediction[self.rows] for s in self.singles.values()])
        first, second = np.triu_indices(len(predicted), 1)
        differ = _share(predicted[first] != predicted[second])
        for metric, values in (("disagreement", differ), ("error_inconsistency", self._uneven)):
            yield self._mean(metric, values, mean_share_interval([values], [self.images]))

    @cached_property
    def _uneven(self) -> NDArray[np.float32]:
        """(counted sample,) share of the pairs of backbones of which exactly one is right."""
        right = np.stack([*self._singles.values()])
        first, second = np.triu_indices(len(right), 1)
        if not len(first):
            return np.full(self.n, np.nan, np.float32)
        return _share(right[first] != right[second])

    def _accuracy(self, right: Answers) -> Measured:
        return self._mean("acc1", right, share_interval(int(np.count_nonzero(right)), self.images))

    def _mean(self, metric: str, values: NDArray[np.generic], interval: Interval) -> Measured:
        value = float(values.mean(dtype=np.float64)) if self.n else float("nan")
        return Measured(metric, Score(value, self.n), interval)

    def gain(self, metric: str, right: Answers, reference: Answers) -> Measured:
        """Accuracy of one minus that of another, which may be of another head."""
        lead = right.astype(np.int8) - reference
        return self._mean(metric, lead, difference_interval([lead], [self.images]))

    def _relative(self, right: Answers, reference: Answers) -> Measured:
        base = float(reference.mean()) if self.n else 0.0
        value = (float(right.mean()) - base) / base if base > 0 else float("nan")
        low, high = ratio_interval([right], [reference], [self.images])
        interval = Interval(low - 1, high - 1)
        return Measured(f"relative_{OVER_BEST_ON_TEST}", Score(value, self.n), interval)

    def _per_class(self, judged: Judged, right: Answers) -> Measured:
        predicted = judged.prediction[self.rows]
        score = mean_per_class_recall(predicted, self._labels, self.classes)
        interval = mean_per_class_interval(right, self._labels, self.images)
        return Measured("mean_per_class_recall", score, interval)


def _share(pairs: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(pair, sample) -> (sample,): share of the pairs."""
    return np.asarray(pairs.mean(axis=0, dtype=np.float32))

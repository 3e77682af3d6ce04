"""Metrics of a method, with intervals, from what it predicts for each sample.

All methods on the same samples share one set of bootstrap resamples, so that gains are paired. All
that a method needs of them is one matrix product.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.evaluation.results.frame import Measured
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
from clipsyn.stats.bootstrap import Resamples
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import (
    UNKNOWN,
    mean_per_class_interval,
    percentiles,
    share_interval,
)


class Answers(NamedTuple):
    """Where a method is right, and its accuracy in each resample: what gains are made of."""

    correct: NDArray[np.bool_]  # (counted sample,)
    draws: NDArray[np.float64]  # (resample,)


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

    @cached_property
    def resamples(self) -> Resamples:
        return Resamples(self.n, images=self.images)

    def single(self, name: str) -> Answers:
        return self._singles[name]

    @cached_property
    def best(self) -> Answers:
        """The backbone with the highest accuracy on these very samples, the first of equals."""
        return max(self._singles.values(), key=lambda answers: int(answers.correct.sum()))

    @cached_property
    def anyone(self) -> Answers:
        """Whether any backbone is right."""
        right = [answers.correct for answers in self._singles.values()]
        return self._answers([np.logical_or.reduce(right)])[0]

    @cached_property
    def _singles(self) -> dict[str, Answers]:
        right = [self.correct(judged) for judged in self.singles.values()]
        return dict(zip(self.singles, self._answers(right), strict=True))

    def correct(self, judged: Judged) -> NDArray[np.bool_]:
        """(counted sample,) whether the prediction is right."""
        right: NDArray[np.bool_] = judged.prediction[self.rows] == self._labels
        return right

    def answers(self, judged: Judged) -> Answers:
        return self._answers([self.correct(judged)])[0]

    def backbones(self, silent: Collection[str] = ()) -> Iterator[tuple[str, Measured]]:
        """`metrics` of each backbone on its own, all from one product.

        silent: backbones that have predictions alone, no probabilities.
        """
        certain = [name not in silent for name in self.singles]
        draws = self._draws(list(zip(self.singles.values(), certain, strict=True)))
        for (name, judged), means in zip(self.singles.items(), draws, strict=True):
            for measured in self._metrics(judged, means):
                yield name, measured

    def metrics(self, judged: Judged, *, probabilities: bool = True) -> Iterator[Measured]:
        """acc1, mean_per_class_recall; from probabilities also nll, brier, ece and ece_floor.

        Other backbones matter only in that they decide which samples count.
        """
        (means,) = self._draws([(judged, probabilities)])
        return self._metrics(judged, means)

    def ensemble(
        self, judged: Judged, chosen: Answers | None = None, *, probabilities: bool = True
    ) -> Iterator[Measured]:
        """`metrics` of an ensemble, and its gains in accuracy, as fractions.

        gain: over `chosen`, the backbone that was best on the support. gain_over_best_on_test: over
        the best single backbone of these samples (the paper's reference, which was chosen on what
        it is measured on). relative_gain_over_best_on_test: the same divided by its accuracy.
        """
        (means,) = self._draws([(judged, probabilities)])
        yield from self._metrics(judged, means)
        answers = Answers(self.correct(judged), means[:, 0])
        yield self.gain("gain_over_best_on_test", answers, self.best)
        yield self._relative(answers, self.best)
        yield from self.over_chosen(answers, chosen)

    def over_chosen(self, answers: Answers, chosen: Answers | None) -> Iterator[Measured]:
        """gain, if a backbone was chosen."""
        if chosen is not None:
            yield self.gain("gain", answers, chosen)

    def oracle(self) -> Iterator[Measured]:
        """Accuracy and gains of the oracle, and acc1_independent: its accuracy if errors were
        independent within each class.
        """
        right = np.stack([answers.correct for answers in self._singles.values()])
        yield self._accuracy(self.anyone.correct)
        mark = independent_oracle(*class_accuracy(right, self._labels))
        yield Measured("acc1_independent", Score(mark, self.n), None)
        yield self.gain("gain_over_best_on_test", self.anyone, self.best)
        yield self._relative(self.anyone, self.best)

    def diversity(self) -> Iterator[Measured]:
        """How differently the backbones predict: means over all pairs of them.

        disagreement: share of samples with two different predictions. error_inconsistency: share
        of which exactly one is right (the likely measure of the paper, section 2).
        """
        predicted = np.stack([s.prediction[self.rows] for s in self.singles.values()])
        first, second = np.triu_indices(len(predicted), 1)
        right = predicted == self._labels
        differ = _share(predicted[first] != predicted[second])
        uneven = _share(right[first] != right[second])
        draws = self.resamples.means(np.column_stack([differ, uneven])).T
        yield self._mean("disagreement", differ, draws[0])
        yield self._mean("error_inconsistency", uneven, draws[1])

    def _answers(self, right: Sequence[NDArray[np.bool_]]) -> list[Answers]:
        draws = self.resamples.means(np.column_stack(right)).T
        return [Answers(*pair) for pair in zip(right, draws, strict=True)]

    def _draws(self, methods: Sequence[tuple[Judged, bool]]) -> list[NDArray[np.float64]]:
        """For each method the means of its `_columns`, (resample, column).

        methods: what each predicts, and whether it has probabilities.
        """
        columns = [self._columns(*method) for method in methods]
        means = self.resamples.means(np.concatenate(columns, axis=1))
        return np.split(means, np.cumsum([part.shape[1] for part in columns])[:-1], axis=1)

    def _columns(self, judged: Judged, probabilities: bool) -> NDArray[np.bool_ | np.float32]:
        """(counted sample, column): correctness; nll and brier."""
        correct = self.correct(judged)
        if not probabilities:
            return correct[:, None]
        nll, brier = (values[self.rows] for values in judged[1:3])
        return np.column_stack([correct, nll, brier])

    def _metrics(self, judged: Judged, draws: NDArray[np.float64]) -> Iterator[Measured]:
        """draws: (resample, column) means of `_columns`."""
        correct = self.correct(judged)
        yield self._accuracy(correct)
        yield self._per_class(judged, correct)
        if draws.shape[1] == 1:  # no probabilities
            return
        nll, brier, confidence = (values[self.rows] for values in judged[1:])
        yield self._mean("nll", nll, draws[:, 1])
        yield self._mean("brier", brier, draws[:, 2])
        ece = expected_calibration_error(confidence, correct)
        yield Measured("ece", ece, None)  # too high by chance, of which no interval knows
        yield Measured("ece_floor", calibration_floor(confidence), None)

    def _accuracy(self, correct: NDArray[np.bool_]) -> Measured:
        hits = int(np.count_nonzero(correct))
        score = Score(hits / self.n if self.n else float("nan"), self.n)
        return Measured("acc1", score, share_interval(hits, self.images))

    def _mean(
        self,
        metric: str,
        values: NDArray[np.bool_ | np.float32],
        draws: NDArray[np.float64],
    ) -> Measured:
        value = float(values.mean(dtype=np.float64)) if self.n else float("nan")
        return Measured(metric, Score(value, self.n), percentiles(draws))

    def gain(self, metric: str, answers: Answers, reference: Answers) -> Measured:
        """Accuracy of one minus that of another, which may be of another head."""
        lead = answers.correct.astype(np.float32) - reference.correct
        return self._mean(metric, lead, answers.draws - reference.draws)

    def _relative(self, answers: Answers, reference: Answers) -> Measured:
        base = float(reference.correct.mean()) if self.n else float("nan")
        value = (float(answers.correct.mean()) - base) / base if base > 0 else float("nan")
        interval = UNKNOWN
        if base > 0:
            usable = reference.draws > 0
            of, over = answers.draws[usable], reference.draws[usable]
            interval = percentiles((of - over) / over)
        return Measured("relative_gain_over_best_on_test", Score(value, self.n), interval)

    def _per_class(self, judged: Judged, correct: NDArray[np.bool_]) -> Measured:
        predicted = judged.prediction[self.rows]
        score = mean_per_class_recall(predicted, self._labels, self.classes)
        interval = mean_per_class_interval(correct, self._labels, self.images)
        return Measured("mean_per_class_recall", score, interval)


def _share(pairs: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(pair, sample) -> (sample,): share of the pairs."""
    return np.asarray(pairs.mean(axis=0, dtype=np.float32))

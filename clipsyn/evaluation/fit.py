"""A task, done: its head fitted on the draw; then each ensemble fitted, and measured on targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import TooFewSamples
from clipsyn.evaluation.methods import ORACLE, Combiner, fit_ensemble, fit_head
from clipsyn.evaluation.plan import Comparison, Result, Task
from clipsyn.evaluation.results.frame import Measured, Row, row
from clipsyn.evaluation.results.predictions import Predicted
from clipsyn.evaluation.scoring import Scorer
from clipsyn.evaluation.shown import Combined, KeptBlocks, Shown
from clipsyn.methods.numerics.fewshot import halves
from clipsyn.methods.numerics.metrics import Score
from clipsyn.methods.stream import Support


class Finished(NamedTuple):
    """A fit with all of its rows, or notes on why nothing of a task can be fitted."""

    rows: list[Row]
    predicted: list[tuple[int, Predicted]]  # with their target
    notes: list[str]


def runner() -> Callable[[Task], Iterator[Finished]]:
    """Runs tasks one after the other; those of one dataset share what is read of its targets."""
    of_last: list[_Study] = []

    def run(task: Task) -> Iterator[Finished]:
        if not of_last or of_last[0].comparison != task.comparison:
            of_last.clear()  # its blocks go before those of another come
            of_last.append(_Study(task.comparison))
        yield from of_last[0].run(task)

    return run


class _Study:
    """What tasks of one dataset share: blocks of its targets, and heads that learn nothing."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self._kept = KeptBlocks()
        self._unlearned: dict[str, list[Shown]] = {}  # by head: for all draws

    def run(self, task: Task) -> Iterator[Finished]:
        """What a task gives, one fit at a time."""
        try:
            combiner = fit_head(self._pool(task.rows), task.head, task.seed)
        except TooFewSamples as error:
            yield Finished([], [], self._left_out(task, error))
            return
        shown = self._shown(task.head, combiner)
        for (_, seed, _), results in task.fits().items():
            yield self._finished(results, _Fit(combiner, results, seed, shown))

    def _finished(self, results: Sequence[Result], fit: _Fit) -> Finished:
        finished = Finished([], [], [])
        measured: dict[object, list[Measured]] = {}  # several draws may be of the same
        for result in results:
            if result.subject not in measured:
                measured[result.subject] = [*fit.numbers(result)]
            finished.rows.extend(row(one, **result.about) for one in measured[result.subject])
            if self.comparison.settings.predictions and result.has_predictions:
                finished.predicted.append((result.target, fit.predicted(result)))
        return finished

    def _pool(self, rows: NDArray[np.intp]) -> Support:
        comparison = self.comparison
        is_halved = comparison.settings.base_to_new
        if comparison.support is not None and not is_halved:
            return comparison.support.support(rows)
        pool = comparison.reader.read(rows)
        if comparison.support is None:
            pool = replace(pool, split="")  # empty; a fit would refuse the name of the test split
        return pool.of_classes(halves(pool.n_classes)[0]) if is_halved else pool

    def _left_out(self, task: Task, error: TooFewSamples) -> list[str]:
        dataset = self.comparison.cells.dataset
        return [
            f"{dataset}, {'all' if shots is None else shots} shots, {task.head} left out: {error}"
            for shots in dict.fromkeys(result.shots for result in task.results)
        ]

    def _shown(self, head: str, combiner: Combiner) -> list[Shown]:
        """The targets on a head: what learns nothing shows all draws the same."""
        if head in self._unlearned:
            return self._unlearned[head]
        transformed = KeptBlocks()
        shown = [
            Shown(number, target, combiner.head, self._kept, transformed)
            for number, target in enumerate(self.comparison.targets)
        ]
        if not combiner.head.learns:
            self._unlearned[head] = shown
        return shown


class _Fit:
    """Ensembles fitted on one head, and what they say of the targets of their results."""

    def __init__(
        self,
        combiner: Combiner,
        results: Sequence[Result],
        seed: int | None,
        shown: Sequence[Shown],
    ) -> None:
        self._combiner = combiner
        self._shown = shown
        names = dict.fromkeys(result.ensemble for result in results)
        self._methods = {
            name: fit_ensemble(combiner, name, seed) for name in names if name and name != ORACLE
        }
        targets = dict.fromkeys(result.target for result in results)
        self._combined = {at: self._judge(at, results) for at in targets}

    def _judge(self, target: int, results: Sequence[Result]) -> dict[str, Combined]:
        """What learns nothing was judged without a draw: its gains need no second pass."""
        shown = self._shown[target]
        names = (
            result.ensemble
            for result in results
            if result.target == target and not (result.is_gain and result.ensemble in shown.answers)
        )
        return shown.judge(
            {name: self._methods[name].ensemble for name in names if name in self._methods}
        )

    def numbers(self, result: Result) -> Iterator[Measured]:
        """All that is measured of what a result is about."""
        name, shown, scorer = result.ensemble, self._shown[result.target], self._scorer(result)
        best = self._combiner.chosen
        chosen = None if best is None else scorer.single(best)
        if result.backbone:
            yield from shown.singles[result.backbone]
        elif name is None or name == ORACLE:
            if len(scorer.singles) > 1:
                if not result.is_gain:
                    yield from (*scorer.oracle(), *scorer.diversity())
                yield from scorer.over_chosen(scorer.anyone, chosen)
        elif result.is_gain:
            yield from scorer.over_chosen(shown.answers[name], chosen)
        else:
            judged, seconds = self._combined[result.target][name]
            has_scores = not shown.target.reader.silent
            yield from scorer.ensemble(judged, chosen, probabilities=has_scores)
            yield from self._seconds(name, seconds, len(judged.prediction))

    def predicted(self, result: Result) -> Predicted:
        """What it predicts for the samples that count, as class indices of the dataset."""
        target, scorer = self._shown[result.target].target, self._scorer(result)
        if result.backbone:
            judged = scorer.singles[result.backbone]
            is_guess = result.backbone in target.reader.unsure
        else:
            judged = self._combined[result.target][str(result.ensemble)].judged
            is_guess = bool(target.reader.silent)
        return Predicted(
            result.about,
            target.rows[scorer.rows],
            target.class_indices(judged.prediction[scorer.rows]),
            None if is_guess else judged.confidence[scorer.rows],
        )

    def _scorer(self, result: Result) -> Scorer:
        return self._shown[result.target].scorer

    def _seconds(self, name: str, seconds: float, n: int) -> Iterator[Measured]:
        """To fit, with the head, and to predict n samples."""
        method = self._methods[name]
        learned = getattr(method.ensemble, "sampled_", self._combiner.n)
        took = self._combiner.seconds + method.seconds
        yield Measured("fit_seconds", Score(took, learned), None)
        yield Measured("predict_seconds", Score(seconds, n), None)

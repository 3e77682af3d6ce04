"""A task, done: its head fitted on the draw; then each ensemble fitted, and measured on targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import TooFewSamples
from clipsyn.evaluation.methods import (
    ORACLE,
    Combiner,
    Method,
    fit_chosen,
    fit_ensemble,
    fit_head,
)
from clipsyn.evaluation.plan import Comparison, Result, Task
from clipsyn.evaluation.results.frame import Measured, Row, row
from clipsyn.evaluation.results.predictions import Predicted
from clipsyn.evaluation.scoring import Scorer
from clipsyn.evaluation.shown import Combined, KeptBlocks, Shown
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.methods.heads import ZERO_SHOT
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
        support, chosen = self._pool(task.rows), None
        try:
            if task.head == CHOSEN:
                asked = self.comparison.settings
                combiner, method = fit_chosen(support, asked.heads, asked.ensembles, task.seed)
                chosen = _Chosen(method, *self._zero_shot(support))
            else:
                combiner = fit_head(support, task.head, task.seed)
        except TooFewSamples as error:
            yield Finished([], [], self._left_out(task, error))
            return
        shown = self._shown(combiner)
        for (_, seed, _), results in task.fits().items():
            yield self._finished(results, _Fit(combiner, results, seed, shown, chosen))

    def _zero_shot(self, support: Support) -> tuple[list[Shown], str | None]:
        """The targets without a head, and the backbone that the support chooses there."""
        if ZERO_SHOT not in self.comparison.settings.heads:
            return [], None
        combiner = fit_head(support, ZERO_SHOT, None)
        return self._shown(combiner), combiner.best

    def _finished(self, results: Sequence[Result], fit: _Fit) -> Finished:
        finished = Finished([], [], [])
        measured: dict[object, list[Measured]] = {}  # several draws may be of the same
        for result in results:
            if result.subject not in measured:
                measured[result.subject] = [*fit.numbers(result)]
            about = result.about | {"choice": fit.choice}
            finished.rows.extend(row(one, **about) for one in measured[result.subject])
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

    def _shown(self, combiner: Combiner) -> list[Shown]:
        """The targets on a head: what learns nothing shows all draws the same."""
        if combiner.name in self._unlearned:
            return self._unlearned[combiner.name]
        transformed = KeptBlocks()
        shown = [
            Shown(number, target, combiner.head, self._kept, transformed)
            for number, target in enumerate(self.comparison.targets)
        ]
        if not combiner.head.learns:
            self._unlearned[combiner.name] = shown
        return shown


class _Chosen(NamedTuple):
    """What the support has chosen, and what it is compared with: one backbone, zero-shot."""

    method: Method
    shown: list[Shown]
    best: str | None


class _Fit:
    """Ensembles fitted on one head, and what they say of the targets of their results."""

    def __init__(
        self,
        combiner: Combiner,
        results: Sequence[Result],
        seed: int | None,
        shown: Sequence[Shown],
        chosen: _Chosen | None = None,
    ) -> None:
        self._combiner = combiner
        self._shown = shown
        names = dict.fromkeys(result.ensemble for result in results)
        self._methods = {
            name: chosen.method if chosen else fit_ensemble(combiner, name, seed)
            for name in names
            if name and name != ORACLE
        }
        self._chosen = chosen
        self.choice = chosen.method.choice if chosen else None
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
        best = self._combiner.best
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
            if self._chosen and self._chosen.best:
                scorer_of_zero_shot = self._chosen.shown[result.target].scorer
                over = scorer_of_zero_shot.single(self._chosen.best)
                yield scorer.gain("gain_over_zero_shot", scorer.answers(judged), over)
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

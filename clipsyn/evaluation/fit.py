"""A head fitted on a draw; on top of it each ensemble fitted, and measured on the targets.

`fit_head` gets the support alone, `fit_ensemble` what the head says of it, and
`clipsyn.evaluation.score` shows the targets to what is fitted, so that labels of a target cannot
reach a fit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import polars as pl

from clipsyn.errors import InputError, TooFewSamples
from clipsyn.evaluation.plan import Comparison, Result, Task, is_random
from clipsyn.evaluation.results.files import predicted
from clipsyn.evaluation.results.frame import Measured, Row, estimate, gain, row
from clipsyn.evaluation.score import Combined, Shown
from clipsyn.methods.chosen import choose
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN, ENSEMBLES, ORACLE
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS, ZERO_SHOT
from clipsyn.methods.heads.base import Head
from clipsyn.methods.numerics import Rows
from clipsyn.methods.numerics.samples import halves
from clipsyn.methods.pool import Pool
from clipsyn.show.table import shots_text


class FittedHead(NamedTuple):
    """A fitted head, the pool that ensembles on top of it are fitted on, and the targets on it."""

    head: Head
    pool: Pool
    best: str | None  # the backbone that was best on the support
    seconds: float
    n: int  # samples learned from
    shown: Sequence[Shown] = ()


class Method(NamedTuple):
    """A fitted ensemble and the seconds it took."""

    ensemble: Ensemble
    seconds: float
    choice: str | None = None  # the head and the ensemble that were chosen


class Finished(NamedTuple):
    """A fit with all of its rows, or a note on why nothing of a task can be fitted."""

    rows: list[Row]
    predicted: list[pl.DataFrame]  # as `PREDICTIONS`, of a method each
    note: str = ""


def fit_head(support: Pool, text: str, seed: int | None) -> FittedHead:
    """Fit a head on the support.

    Raises TooFewSamples where the head cannot spare samples for a combiner.
    """
    head = from_text(HEADS, text, seed)
    start = time.perf_counter()
    pool = head.fit_transform(support)
    seconds = time.perf_counter() - start
    n = getattr(head, "sampled_", len(support.labelled()))
    return FittedHead(head, pool, _best(pool), seconds, n)


def fit_ensemble(on: FittedHead, text: str, seed: int | None) -> Method:
    """Fit an ensemble on what a head says of the support."""
    ensemble = from_text(ENSEMBLES, text, seed)
    start = time.perf_counter()
    ensemble.fit(on.pool)
    return Method(ensemble, time.perf_counter() - start)


def _best(support: Pool) -> str | None:
    """The backbone that is best on the support, if there is one to choose on."""
    if not len(support):
        return None
    best: str = from_text(ENSEMBLES, BEST_SINGLE).fit(support).best_
    return best


class Study:
    """Fits the tasks of one dataset, which share its targets, and heads fitted on the same draw."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self._rows = np.empty(0, np.intp)  # of the draw that these are of:
        self._support: Pool | None = None
        self._heads: dict[tuple[str, int | None], FittedHead] = {}  # by name and seed
        self._unlearned: dict[str, list[Shown]] = {}  # by head: for all draws

    def run(self, task: Task) -> Iterator[Finished]:
        """What a task gives, one fit at a time."""
        try:
            chosen = None
            if task.head == CHOSEN:
                on, chosen = self._chosen(task)
            else:
                on = self._head(task.head, task)
        except TooFewSamples as error:
            shots = dict.fromkeys(result.about["shots"] for result in task.results)
            few = ", ".join(map(shots_text, shots))
            note = f"{self.comparison.dataset}, {few}, {task.head} left out: {error}"
            yield Finished([], [], note)
            return
        for (_, seed, _), results in task.fits().items():
            names = dict.fromkeys(it.ensemble or ORACLE for it in results)
            names.pop(ORACLE, None)
            methods = {it: chosen or fit_ensemble(on, it, seed) for it in names}
            yield self._finished(on, methods, results)

    def _head(self, name: str, task: Task) -> FittedHead:
        """A head on the draw of a task, fitted once as long as tasks are of that draw."""
        support, seed = self._read(task.rows), task.seed if is_random(name, None) else None
        if (name, seed) not in self._heads:
            if not self.comparison.chooses:  # nothing else asks for the last one
                self._heads.clear()
            on = fit_head(support, name, seed)
            self._heads[name, seed] = on._replace(shown=self._shown(name, on.head))
        return self._heads[name, seed]

    def _read(self, rows: Rows) -> Pool:
        """The support of a draw."""
        if self._support is None or not np.array_equal(rows, self._rows):
            self._heads.clear()
            self._support = None  # it goes before another comes
            self._rows, self._support = rows, self._pool(rows)
        return self._support

    def _pool(self, rows: Rows) -> Pool:
        comparison = self.comparison
        is_halved = comparison.settings.base_to_new
        if comparison.support is not None and not is_halved:
            return comparison.support.support(rows)
        pool = comparison.reader.read(rows)
        if comparison.support is None:
            pool = replace(pool, split="")  # empty; a fit would refuse the name of the test split
        return pool.of_classes(halves(pool.n_classes)[0]) if is_halved else pool

    def _shown(self, name: str, head: Head) -> list[Shown]:
        """The targets on a head: what learns nothing shows all draws the same."""
        if name not in self._unlearned:
            shown = [Shown(target, head) for target in self.comparison.targets]
            if head.learns:
                return shown
            self._unlearned[name] = shown
        return self._unlearned[name]

    def _chosen(self, task: Task) -> tuple[FittedHead, Method]:
        """The head and the ensemble that the support chooses; all seconds are the ensemble's."""
        asked, support = self.comparison.settings, self._read(task.rows)
        fitted: dict[str, FittedHead] = {}
        for name in asked.heads:
            if not support.is_too_large or name == ZERO_SHOT:
                with suppress(InputError):  # the choice says so where none is left
                    fitted[name] = self._head(name, task)
        start = time.perf_counter()
        heads = {name: (on.head, on.pool) for name, on in fitted.items()}
        choice = choose(support, asked.heads, self.comparison.candidates, task.seed, heads)
        seconds = time.perf_counter() - start + sum(on.seconds for on in fitted.values())
        chosen = choice.candidates[0]
        on = self._head(chosen.head, task)
        return on._replace(seconds=0), Method(choice.ensemble, seconds, chosen.name)

    def _finished(
        self, on: FittedHead, methods: Mapping[str, Method], results: Sequence[Result]
    ) -> Finished:
        """What is measured of the results of one fit, of a target in one pass."""
        finished = Finished([], [])
        in_order = sorted(results, key=lambda result: result.target)
        for target, of_target in groupby(in_order, key=lambda result: result.target):
            shown, of_shown = on.shown[target], [*of_target]
            known = {it.ensemble for it in of_shown if it.is_gain} & {*shown.right}
            asked = {it.ensemble for it in of_shown} - known
            judged = shown.judge({it: methods[it].ensemble for it in methods if it in asked})
            measured: dict[object, list[Measured]] = {}  # several draws may be of the same
            for result in of_shown:
                method, said = methods.get(result.ensemble or ""), judged.get(result.ensemble or "")
                if (subject := result[:3]) not in measured:
                    measured[subject] = [*self._numbers(on, shown, result, method, said)]
                about = result.about | {"choice": method and method.choice}
                finished.rows.extend(row(one, **about) for one in measured[subject])
                if self.comparison.settings.predictions_file and result.has_predictions:
                    finished.predicted.append(_predicted(shown, result, said))
        return finished

    def _numbers(
        self,
        on: FittedHead,
        shown: Shown,
        result: Result,
        method: Method | None,
        said: Combined | None,
    ) -> Iterator[Measured]:
        """All that is measured of what a result is about; said: by an ensemble."""
        scorer = shown.scorer
        chosen = None if on.best is None else scorer.right[on.best]
        if result.backbone:
            yield from shown.singles[result.backbone]
        elif method is None:
            if len(scorer.singles) > 1:
                if not result.is_gain:
                    yield from (*scorer.oracle(), *scorer.diversity())
                yield from scorer.over_chosen(scorer.anyone, chosen)
        elif result.is_gain or said is None:
            yield from scorer.over_chosen(shown.right[str(result.ensemble)], chosen)
        else:
            has_scores = not shown.target.reader.silent
            for one in scorer.ensemble(said.judged, chosen, probabilities=has_scores):
                itself = one.metric == "gain" and result.ensemble == BEST_SINGLE
                yield one._replace(interval=None) if itself else one  # nothing gains over itself
            plain = self._heads.get((ZERO_SHOT, None)) if method.choice else None
            if plain:
                over = plain.shown[result.target].scorer.right[str(plain.best)]
                right = scorer.is_right(said.judged)
                yield gain("gain_over_zero_shot", right, over[None], scorer.images)
            learned = getattr(method.ensemble, "sampled_", on.n)
            yield estimate("fit_seconds", on.seconds + method.seconds, learned)
            yield estimate("predict_seconds", said.seconds, len(said.judged.prediction))


def _predicted(shown: Shown, result: Result, said: Combined | None) -> pl.DataFrame:
    """What it predicts for the samples that count, as class indices of the dataset."""
    target, rows = shown.target, shown.scorer.rows
    judged = said.judged if said else shown.scorer.singles[str(result.backbone)]
    is_guess = bool(target.reader.silent) if said else result.backbone in target.reader.unsure
    classes = np.arange(target.n_classes) if target.subset is None else np.asarray(target.subset)
    return predicted(
        result.fingerprint,
        target.reader.samples,
        target.rows[rows],
        classes[judged.prediction[rows]],
        None if is_guess else judged.confidence[rows],
    )

"""The few-shot protocol on one dataset: fitted on its support, judged on its targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import TooFewSamples
from clipsyn.evaluation.methods import ORACLE, Combiner, Target, fit_ensemble, fit_head, learns
from clipsyn.evaluation.plan import Fit, Subject, Task
from clipsyn.evaluation.results.frame import Measured, Row, row
from clipsyn.evaluation.results.predictions import Predicted
from clipsyn.evaluation.scoring import Scorer
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.evaluation.shown import Combined, KeptBlocks, Shown
from clipsyn.methods.numerics.fewshot import halves
from clipsyn.methods.numerics.metrics import Judged, Score
from clipsyn.methods.stream import Support
from clipsyn.store.pools import PoolReader


@dataclass
class Batch:
    """What is finished together: a fit with all of its rows, or a task that cannot be fitted."""

    fits: int  # that are finished: all of a task where its head cannot be fitted
    ensemble: str | None = None  # that was fitted
    seconds: float = 0.0  # which it and the head took
    rows: list[Row] = field(default_factory=list)
    predicted: list[tuple[int, Predicted]] = field(default_factory=list)  # with their target
    notes: list[str] = field(default_factory=list)


class FewShotStudy:
    """Fits on the support of one dataset and prompt set, measured on its targets.

    support: None where nothing is fitted.
    """

    def __init__(
        self, support: PoolReader | None, targets: Sequence[Target], settings: ProtocolSettings
    ) -> None:
        self._support = support
        self._targets = targets
        self._base_to_new = settings.base_to_new
        self._predictions = settings.predictions is not None
        self._reader = support or targets[0].reader  # no sample of a target is read to fit
        self._kept = KeptBlocks()
        self._unlearned: dict[str, Shown] = {}  # by head that learns nothing: for all draws

    def run(self, task: Task) -> Iterator[Batch]:
        """What a task gives, one fit at a time."""
        try:
            combiner = fit_head(self._pool(task.rows), task.head, task.seed)
        except TooFewSamples as error:
            notes = [self._left_out(task, shots, error) for shots in task.shots()]
            yield Batch(len(task.fits), notes=notes)
            return
        shown = self._shown(task.head, combiner)
        for fit in task.fits:
            yield self._batch(fit, _Measures(fit, task.head, combiner, shown))

    def _batch(self, fit: Fit, measures: _Measures) -> Batch:
        batch = Batch(1, fit.ensemble, measures.fit_seconds(fit.ensemble))
        for result in fit.results:
            subject = result.subject
            batch.rows += [row(one, **result.about) for one in measures.numbers[subject]]
            if self._predictions and result.has_predictions:
                predicted = self._predicted(subject, measures, result.about)
                batch.predicted.append((subject.target, predicted))
        return batch

    def _pool(self, rows: NDArray[np.intp]) -> Support:
        if self._support is not None and not self._base_to_new:
            return self._support.support(rows)
        pool = self._reader.read(rows)
        if self._support is None:
            pool = replace(pool, split="")  # empty; a fit would refuse the name of the test split
        return pool.of_classes(halves(pool.n_classes)[0]) if self._base_to_new else pool

    def _left_out(self, task: Task, shots: int | None, error: TooFewSamples) -> str:
        many = "all" if shots is None else shots
        return f"{self._reader.samples.dataset}, {many} shots, {task.head} left out: {error}"

    def _shown(self, head: str, combiner: Combiner) -> Shown:
        """The targets on a head: what learns nothing shows all draws the same."""
        if combiner.head.learns:
            return Shown(combiner.head, self._targets, self._kept)
        if head not in self._unlearned:
            self._unlearned[head] = Shown(combiner.head, self._targets, self._kept)
        return self._unlearned[head]

    def _predicted(self, subject: Subject, measures: _Measures, about: Row) -> Predicted:
        """What a subject predicts for the samples that count, as class indices of the dataset."""
        target, judged = self._targets[subject.target], measures.judged[subject]
        rows = measures.rows(subject.target)
        guessed = subject.backbone in target.reader.unsure
        if subject.backbone is None:
            guessed = bool(target.reader.silent)
        return Predicted(
            about,
            target.rows[rows],
            target.class_indices(judged.prediction[rows]),
            None if guessed else judged.confidence[rows],
        )


class _Measures:
    """A fit, measured on the targets: each subject once, though several draws may be of it."""

    def __init__(self, fit: Fit, head: str, combiner: Combiner, shown: Shown) -> None:
        self._combiner = combiner
        self._shown = shown
        # what learns nothing was measured without a draw: only the chosen backbone is another
        self._gains = {
            result.subject
            for result in fit.results
            if result.shots != 0 and not learns(head, result.subject.ensemble)
        }
        self._methods = {name: fit_ensemble(combiner, name, fit.seed) for name in fit.ensembles()}
        subjects = dict.fromkeys(result.subject for result in fit.results)
        self.numbers: dict[Subject, list[Measured]] = {}
        self.judged: dict[Subject, Judged] = {}  # of what is judged here, not for gains alone
        for target in fit.targets():
            self._measure([subject for subject in subjects if subject.target == target])

    def rows(self, target: int) -> NDArray[np.intp]:
        """The samples of a target that count."""
        return self._shown.scorer(target).rows

    def _measure(self, subjects: Sequence[Subject]) -> None:
        target = subjects[0].target
        ensembles = {
            subject.ensemble: self._methods[subject.ensemble].ensemble
            for subject in subjects
            if subject.ensemble in self._methods
            and (subject not in self._gains or not self._shown.knows(subject))
        }
        combined = self._shown.judge(target, ensembles)
        scorer = self._shown.scorer(target)
        if any(subject.backbone for subject in subjects):
            for backbone, measured in scorer.backbones(self._shown.silent(target)):
                single = Subject(target, None, backbone)
                self.numbers.setdefault(single, []).append(measured)
                self.judged[single] = scorer.singles[backbone]
        for subject in subjects:
            if subject.backbone is None:
                self.numbers[subject] = list(self._of(subject, scorer, combined))

    def _of(
        self, subject: Subject, scorer: Scorer, combined: Mapping[str, Combined]
    ) -> Iterator[Measured]:
        name, best = subject.ensemble, self._combiner.chosen
        chosen = None if best is None else scorer.single(best)
        if name == ORACLE:
            if len(scorer.singles) > 1:
                if subject not in self._gains:
                    yield from (*scorer.oracle(), *scorer.diversity())
                yield from scorer.over_chosen(scorer.anyone, chosen)
        elif subject in self._gains:
            yield from scorer.over_chosen(self._shown.answers(subject), chosen)
        elif name is not None:
            certain = not self._shown.silent(subject.target)
            self.judged[subject] = combined[name].judged
            yield from scorer.ensemble(combined[name].judged, chosen, probabilities=certain)
            yield from self._seconds(name, combined[name])

    def fit_seconds(self, name: str | None) -> float:
        """Of an ensemble, with the head."""
        return self._combiner.seconds + (self._methods[name].seconds if name else 0.0)

    def _seconds(self, name: str, combined: Combined) -> Iterator[Measured]:
        n = getattr(self._methods[name].ensemble, "sampled_", self._combiner.n)
        yield Measured("fit_seconds", Score(self.fit_seconds(name), n), None)
        n = len(combined.judged.prediction)
        yield Measured("predict_seconds", Score(combined.seconds, n), None)

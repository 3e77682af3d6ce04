"""What takes too long is not fitted on more images: judged by what fits really took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from clipsyn.evaluation.comparison import Comparison, Job
from clipsyn.evaluation.methods import CHOSEN
from clipsyn.evaluation.settings import ProtocolSettings

_Method = tuple[Comparison, str, str | None]  # a head, and an ensemble on it


class Budget:
    """The methods whose fits took longer than `budget` minutes, by dataset.

    Seconds are those of the results, of head and ensemble together, so that a run which goes on
    where another ended leaves out the same. What was asked for by name is always fitted, and so is
    the choice of a single backbone.
    """

    def __init__(self, settings: ProtocolSettings) -> None:
        self._minutes = settings.budget
        self._named = {*settings.heads, *settings.ensembles, CHOSEN}
        self._slow: dict[_Method, int] = {}  # -> the smallest support on which it was
        self._said: set[_Method] = set()

    def count(self, job: Job, ensemble: str | None, seconds: float) -> None:
        """Take note of a fit that is done."""
        rows, method = len(job.task.rows), (job.comparison, job.task.head, ensemble)
        if seconds > 60 * self._minutes and not self._is_named(method):
            self._slow[method] = min(rows, self._slow.get(method, rows))

    def count_known(self, jobs: Iterable[Job], seconds: Mapping[str, float]) -> None:
        """Of fits in earlier runs; seconds: by the fingerprint of results."""
        for job in jobs if seconds else ():
            for fit in job.task.fits:
                for result in fit.results:
                    self.count(job, fit.ensemble, seconds.get(result.fingerprint, 0.0))

    def within(self, job: Job) -> tuple[Job, list[str]]:
        """The job without what took too long on fewer images, and notes on what that is."""
        task, notes = job.task, []
        kept = []
        for fit in task.fits:
            method = (job.comparison, task.head, fit.ensemble)
            fewest = self._slow.get(method)
            if fewest is None or fewest >= len(task.rows):
                kept.append(fit)
            elif method not in self._said:
                self._said.add(method)
                notes.append(
                    f"{fit.ensemble} on {task.head} left out of {job.comparison.cells.dataset} on "
                    f"more than {fewest:,} images, where its fit took longer than "
                    f"budget={self._minutes:g} minutes; what is asked for by name is always fitted"
                )
        return replace(job, task=replace(task, fits=tuple(kept))), notes

    def _is_named(self, method: _Method) -> bool:
        _, head, ensemble = method
        return ensemble is None or (head in self._named and ensemble in self._named)

"""What is compared on the cells of one dataset: planned, and run in this process or another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipsyn.evaluation.choice import DatasetCells
from clipsyn.evaluation.coop import read_indices
from clipsyn.evaluation.methods import Target
from clipsyn.evaluation.plan import FewShotPlan, Task
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.evaluation.study import Batch, FewShotStudy
from clipsyn.methods.numerics.fewshot import halves
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader


@dataclass(frozen=True)
class Comparison:
    """Methods on the cells of one dataset and prompt set; it can be sent to another process."""

    store: Path
    cells: DatasetCells
    settings: ProtocolSettings  # without the methods that cannot work on these cells

    def plan(self) -> FewShotPlan:
        support, targets = self._readers()
        indices = None
        if self.settings.coop and support:
            drawn = [k for k in self.settings.images if k]
            wanted = [(shots, seed) for shots in drawn for seed in self.settings.draws]
            indices = read_indices(self.settings.coop, support.samples, wanted)
        return FewShotPlan(support, targets, self.settings, indices)

    def study(self) -> FewShotStudy:
        return FewShotStudy(*self._readers(), self.settings)

    def _readers(self) -> tuple[PoolReader | None, list[Target]]:
        store = FeatureStore.open(self.store)
        support = self._support(store, self.cells.support) if self.cells.support else None
        targets = [
            target
            for split, perturbation in self.cells.places
            for target in self._targets(store, split, perturbation)
        ]
        return support, targets

    def _support(self, store: FeatureStore, split: str) -> PoolReader:
        return PoolReader(
            store,
            self.cells.dataset,
            split,
            backbones=self.cells.backbones,
            prompts=self.settings.support_prompts or self.cells.prompts,
            views=self.settings.views,
        )

    def _targets(self, store: FeatureStore, split: str, perturbation: str) -> Iterator[Target]:
        reader = PoolReader(
            store,
            self.cells.dataset,
            split,
            perturbation=perturbation,
            backbones=self.cells.backbones,
            prompts=self.cells.prompts,
            votes=True,
        )
        if not self.settings.base_to_new:
            yield Target(reader)
            return
        base, new = halves(len(reader.samples.class_names))
        yield Target(reader, "base", base)
        yield Target(reader, "new", new)


@dataclass(frozen=True)
class Job:
    """A task, and the comparison that it is a part of."""

    comparison: Comparison
    task: Task


class Runner:
    """Runs jobs one after the other; those of one comparison share what is read of its targets."""

    def __init__(self) -> None:
        self._studies: dict[Comparison, FewShotStudy] = {}  # of the last job

    def __call__(self, job: Job) -> Iterator[Batch]:
        if job.comparison not in self._studies:
            self._studies.clear()  # its blocks go before those of another come
            self._studies[job.comparison] = job.comparison.study()
        yield from self._studies[job.comparison].run(job.task)

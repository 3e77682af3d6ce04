"""The loop over datasets, shots, seeds, heads and ensembles, which gives a tidy frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipsyn.ensembles.static import tied_votes
from clipsyn.errors import DatasetError
from clipsyn.numerics.blocks import work_alone
from clipsyn.numerics.fewshot import halves, shortfall
from clipsyn.progress import Progress
from clipsyn.protocol.choice import (
    DatasetCells,
    cells_by_dataset,
    check,
    learning,
    spelled_out,
    usable,
)
from clipsyn.protocol.coop import read_indices
from clipsyn.protocol.estimate import Estimate
from clipsyn.protocol.methods import Target
from clipsyn.protocol.settings import ProtocolSettings
from clipsyn.protocol.study import Batch, FewShotStudy
from clipsyn.results.files import ResultsFile
from clipsyn.settings import signature_of
from clipsyn.store.alike import alike_notes
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader

_LOG = logging.getLogger("clipsyn")


def evaluate(
    store: FeatureStore, *, progress: Progress | None = None, **settings: Any
) -> pl.DataFrame:
    """Fit heads and ensembles on the support split, and measure them on others.

    settings: those of `clipsyn.protocol.settings.ProtocolSettings`. Unlabelled datasets and splits
    are left out unless datasets are asked for. heads, ensembles: names, or
    ``NAME:parameter=value``; "all" leaves out what cannot work for classes never seen, without
    embeddings, or where nothing is labelled to learn from. Methods are always fitted on clean
    images of the support. output: results are added to it as they come, by several processes if
    need be; what it already holds from the same inputs is not computed again.

    Returns what was asked for, new or known, as a tidy frame with the columns of `RESULT`. The
    metrics are those of `clipsyn.protocol.scoring.Scorer`, fit_seconds (head and ensemble
    together) and predict_seconds. Raises MissingCell, UnknownName, DatasetError, UsageError and
    ConflictingResults, each saying what to do.

    >>> from clipsyn import FeatureStore, evaluate
    >>> store = FeatureStore.open("store")
    >>> frame = evaluate(store, ensembles=["super-learner"], shots=[1, 2], seeds=2)
    >>> accuracy = frame.filter(metric="acc1", ensemble="super-learner")
    >>> accuracy.select("shots", "seed").rows()  # with a value, its interval and n each
    [(1, 0), (2, 0), (1, 1), (2, 1)]
    """
    return measure(store, ProtocolSettings(**settings), progress)


vars(evaluate)["__signature__"] = signature_of(
    ProtocolSettings, Parameter("progress", Parameter.KEYWORD_ONLY, default=None)
)


def measure(
    store: FeatureStore, settings: ProtocolSettings, progress: Progress | None = None
) -> pl.DataFrame:
    """`evaluate`, with settings that have been read."""
    tasks, notes = _plan(store, settings)
    for note in dict.fromkeys((*notes, *_notes(tasks))):
        _LOG.info("note: %s", note)
    results = ResultsFile(settings.output, replace=settings.replace)
    counter = progress.add("fits", len(tasks)) if progress else 0
    estimate = Estimate((task.seed is not None for task in tasks), settings.workers)
    said: set[str] = set()
    wanted: set[str] = set()
    for batch, finished in _run(tasks, results.known, settings.workers):
        results.add(batch.rows)
        wanted |= batch.wanted
        for note in batch.notes:
            if note not in said:
                _LOG.info("note: %s", note)
                said.add(note)
        estimate.count(new=bool(batch.rows), finished=finished)
        if progress and finished:
            progress.advance(counter, 1)
    return results.frame.filter(pl.col("fingerprint").is_in(wanted))


@dataclass(frozen=True)
class _Task:
    """What one worker does in one go; it can be sent to another process."""

    store: Path
    cells: DatasetCells
    settings: ProtocolSettings  # without the methods that cannot work on these cells
    seed: int | None

    def study(self) -> FewShotStudy:
        store = FeatureStore.open(self.store)
        support = self._support(store, self.cells.support) if self.cells.support else None
        targets = [
            target
            for split, perturbation in self.cells.places
            for target in self._targets(store, split, perturbation)
        ]
        indices = None
        if self.settings.coop and support:
            drawn = [k for k in self.settings.images if k]
            wanted = [(shots, seed) for shots in drawn for seed in self.settings.draws]
            indices = read_indices(self.settings.coop, support.samples, wanted)
        return FewShotStudy(support, targets, self.settings, indices)

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


def _plan(store: FeatureStore, settings: ProtocolSettings) -> tuple[list[_Task], list[str]]:
    """The tasks, and notes to say before they start."""
    every = spelled_out(settings)
    by_name = {*settings.heads, *settings.ensembles}
    check(usable(every, by_name)[0])
    learners = learning(every)
    optional = settings.support is None and not learners & by_name
    split = (settings.support or "train") if learners else None
    tasks, notes = [], []
    for cells in cells_by_dataset(store, settings, split, optional=optional):
        asked, left_out = usable(every, by_name, cells)
        notes += left_out
        notes += alike_notes(store, cells.dataset, cells.prompts, cells.backbones)
        support = cells.support if learning(asked) else None
        fitted = cells._replace(support=support)
        seeds = (None, *(asked.draws if support else ()))
        tasks += [_Task(store.path, fitted, asked, seed) for seed in seeds]
    return tasks, notes


def _run(tasks: Sequence[_Task], known: set[str], workers: int) -> Iterator[tuple[Batch, bool]]:
    """Batches in the order of the tasks, each with whether it is the last of its task."""
    if workers <= 1 or len(tasks) <= 1:
        for task in tasks:
            for batch in task.study().run(task.seed, known):
                yield batch, False
            yield Batch(), True
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
        try:
            for batch in pool.map(_work, tasks, [frozenset(known)] * len(tasks)):
                yield batch, True
        finally:
            pool.shutdown(cancel_futures=True)


def _work(task: _Task, known: frozenset[str]) -> Batch:
    batches = list(task.study().run(task.seed, known))
    return Batch(
        [row for batch in batches for row in batch.rows],
        [note for batch in batches for note in batch.notes],
        {one for batch in batches for one in batch.wanted},
    )


def _one_thread() -> None:
    """Each worker has one thread, since the workers fill the cores."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    work_alone()


def _notes(tasks: Sequence[_Task]) -> Iterator[str]:
    """What the support lacks, and which votes are tied; once for each dataset."""
    for task in tasks:
        if task.seed is not None:
            continue
        study = task.study()
        classes = len(study.targets[0].reader.samples.class_names)
        dataset, settings = task.cells.dataset, task.settings
        where = f"{dataset}/{task.cells.support}"
        if settings.base_to_new and classes < 3:
            raise DatasetError(
                f"{dataset} has too few classes for base-to-new ({classes}), which needs two "
                "to learn and a new one: choose others with datasets=…"
            )
        yield from _ties(study)
        if study.support is None:
            continue
        labels = study.labels()
        if not (labels >= 0).any():
            raise study.targets[0].reader.store.no_labels((dataset, study.support.samples.split))
        _, empty = shortfall(labels, None, classes)
        if empty and not settings.base_to_new:
            yield f"{where}: {empty} of {classes} classes have no image to learn from"
        drawn = study.drawn(settings.draws[0])
        if gone := [k for k in settings.images if k and k not in drawn]:
            most = list(drawn)[-1]
            yield (
                f"{where}: {', '.join(map(str, gone))} shots are the same {len(drawn[most])} "
                f"images as {most or 'full'}: fitted once"
            )
        for shots in settings.images:
            short, _ = shortfall(labels, shots, classes)
            if short:
                yield (
                    f"{where}: {short} of {classes} classes have fewer than {shots} images; from "
                    f"{shots} shots on they give all they have"
                )
                break


def _ties(study: FewShotStudy) -> Iterator[str]:
    """On how many images the votes are tied, of backbones with predictions alone."""
    for target in study.targets:
        reader = target.reader
        if study.settings.ensembles and len(reader.unsure) == len(reader.backbones) > 1:
            store, prompts = reader.store, reader.prompts
            votes = np.stack([store.predictions(key, prompts) for key in reader.keys])
            if tied := int(np.count_nonzero(tied_votes(votes))):
                samples = reader.samples
                yield (
                    f"{samples.name} · {reader.perturbation}: on {tied:,} of "
                    f"{len(samples):,} images no class has the most votes; without logits to "
                    "decide, the class that comes first in the list of classes wins"
                )

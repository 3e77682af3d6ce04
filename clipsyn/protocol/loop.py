"""The one loop: datasets x shots x seeds x heads x ensembles -> a tidy frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from clipsyn.ensembles import ENSEMBLES
from clipsyn.ensembles.static import tied_votes
from clipsyn.errors import DatasetError
from clipsyn.heads import HEADS
from clipsyn.numerics.blocks import work_alone
from clipsyn.numerics.fewshot import halves, shortfall
from clipsyn.progress import Progress
from clipsyn.protocol.choice import ALL, Choice, Place, check, learning, no_labels, spread, usable
from clipsyn.protocol.coop import read_indices
from clipsyn.protocol.estimate import Estimate
from clipsyn.protocol.methods import Target
from clipsyn.protocol.study import Batch, Protocol, Shots, Study
from clipsyn.results.files import ResultsFile
from clipsyn.specs import CLEAN
from clipsyn.store.alike import alike_notes
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import Names

_LOG = logging.getLogger("clipsyn")
SHOTS: tuple[Shots, ...] = (1, 2, 4, 8, 16, None)


@dataclass(frozen=True)
class _Task:
    """What one worker does in one go; everything in it can be sent to another process."""

    store: Path
    dataset: str
    places: tuple[Place, ...]  # measured on
    backbones: tuple[str, ...]
    prompts: str
    support: str | None
    support_prompts: str
    views: tuple[str, ...]
    coop: Path | None
    protocol: Protocol
    seed: int | None

    def study(self) -> Study:
        store = FeatureStore.open(self.store)
        support = self._support(store, self.support) if self.support else None
        targets = [
            target
            for split, perturbation in self.places
            for target in self._targets(store, split, perturbation)
        ]
        wanted = [(k, s) for k in self.protocol.shots if k for s in self.protocol.seeds]
        indices = None
        if self.coop and support:
            indices = read_indices(self.coop, support.samples, wanted)
        return Study(support, targets, self.protocol, indices)

    def _support(self, store: FeatureStore, split: str) -> PoolReader:
        return PoolReader(
            store,
            self.dataset,
            split,
            backbones=self.backbones,
            prompts=self.support_prompts,
            views=self.views,
        )

    def _targets(self, store: FeatureStore, split: str, perturbation: str) -> Iterator[Target]:
        reader = PoolReader(
            store,
            self.dataset,
            split,
            perturbation=perturbation,
            backbones=self.backbones,
            prompts=self.prompts,
            votes=True,
        )
        if not self.protocol.base_to_new:
            yield Target(reader)
            return
        base, new = halves(len(reader.samples.class_names))
        yield Target(reader, "base", base)
        yield Target(reader, "new", new)


def evaluate(
    store: FeatureStore,
    *,
    datasets: Names = None,
    splits: Names = ("test",),
    perturbations: Names = (CLEAN.label,),
    backbones: Names = None,
    prompts: Names = None,
    heads: Sequence[str] = ("zero-shot",),
    ensembles: Sequence[str] | None = None,
    shots: Sequence[Shots] = SHOTS,
    seeds: Sequence[int] = (0, 1, 2),
    support: str | None = None,
    support_prompts: str | None = None,
    views: Sequence[str] = (),
    base_to_new: bool = False,
    coop: Path | None = None,
    output: Path | None = None,
    replace: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Fit heads and ensembles on the support split, and measure them on others.

    Filters are names or patterns with ``*``; None takes all there is. Unlabelled datasets and
    splits are left out unless datasets are asked for. heads, ensembles: names, or
    ``NAME:parameter=value`` (`clipsyn.heads`, `clipsyn.ensembles`); "all", for ensembles None too,
    leaves out what cannot work for classes never seen, or without embeddings. shots: images of each
    class, None for the whole support split. support: None is train, or nothing where no dataset has
    a labelled train split: then what learns is left out of "all". Always fitted on its clean
    images, so more `perturbations` are a shift transfer; `support_prompts` other than `prompts`
    make a prompt transfer; `base_to_new` fits on the first half of the classes and measures on each
    half among its own classes. coop: a folder with CoOp's ``shot_K-seed_S.pkl``, S being 1, 2, 3
    there, which replace the drawing of samples. views: perturbations of the support that are
    augmented views.

    Of backbones that were imported as predictions alone there are accuracies, the oracle and votes.

    output: a Parquet file to which results are added as they come, by several processes if need be;
    what it already holds from the same inputs is not computed again. workers: processes side by
    side.

    Returns what was asked for, new or known, as a tidy frame with the columns of `RESULT`. The
    metrics are those of `clipsyn.protocol.scoring.Scorer`, fit_seconds (head and ensemble
    together) and predict_seconds. Raises MissingCell, UnknownName, DatasetError, UsageError and
    ConflictingResults, each saying what to do.
    """
    methods = Protocol(
        spread(heads, HEADS),
        spread([ALL] if ensembles is None else ensembles, ENSEMBLES),
        tuple(dict.fromkeys(shots)),
        tuple(dict.fromkeys(seeds)),
        base_to_new,
    )
    by_name = {*heads, *(ensembles or ())}
    check(usable(methods, by_name)[0])
    learners = learning(methods)
    optional = support is None and not learners & by_name
    split = (support or "train") if learners else None
    chosen = Choice(store, splits, perturbations, backbones, prompts, split, optional)
    tasks, notes = [], []
    for unit in chosen.units(datasets):
        protocol, left_out = usable(methods, by_name, unit)
        notes += [
            *left_out,
            *alike_notes(store, unit.dataset, unit.prompts, unit.backbones),
        ]
        fits = unit.support if learning(protocol) else None
        tasks += [
            _Task(
                store.path,
                unit.dataset,
                unit.places,
                unit.backbones,
                unit.prompts,
                fits,
                support_prompts or unit.prompts,
                tuple(views),
                coop,
                protocol,
                seed,
            )
            for seed in (None, *(protocol.seeds if fits else ()))
        ]
    for note in dict.fromkeys((*notes, *_notes(tasks))):
        _LOG.info("note: %s", note)
    results = ResultsFile(output, replace=replace)
    counter = progress.add("fits", len(tasks)) if progress else 0
    estimate = Estimate((task.seed is not None for task in tasks), workers)
    said: set[str] = set()
    wanted: set[str] = set()
    for batch, finished in _run(tasks, results.known, workers):
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
    """Workers fill the cores: more threads would only fight for them."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    work_alone()


def _notes(tasks: Sequence[_Task]) -> Iterator[str]:
    """What the support sets, and votes of predictions, cannot give; once for each dataset."""
    for task in tasks:
        if task.seed is not None:
            continue
        study = task.study()
        classes = len(study.targets[0].reader.samples.class_names)
        where = f"{task.dataset}/{task.support}"
        if task.protocol.base_to_new and classes < 3:
            raise DatasetError(
                f"{task.dataset} has too few classes for base-to-new ({classes}), which needs two "
                "to learn and a new one: choose others with datasets=…"
            )
        yield from _ties(study)
        if study.support is None:
            continue
        labels = study.labels()
        if not (labels >= 0).any():
            raise DatasetError(no_labels(where))
        _, empty = shortfall(labels, None, classes)
        if empty and not task.protocol.base_to_new:
            yield f"{where}: {empty} of {classes} classes have no image to learn from"
        drawn = study.drawn(next(iter(task.protocol.seeds), None))
        if gone := [k for k in task.protocol.shots if k and k not in drawn and task.protocol.seeds]:
            most = list(drawn)[-1]
            yield (
                f"{where}: {', '.join(map(str, gone))} shots are the same {len(drawn[most])} "
                f"images as {most or 'full'}: fitted once"
            )
        for shots in task.protocol.shots:
            short, _ = shortfall(labels, shots, classes)
            if short:
                yield (
                    f"{where}: {short} of {classes} classes have fewer than {shots} images; from "
                    f"{shots} shots on they give all they have"
                )
                break


def _ties(study: Study) -> Iterator[str]:
    """On how many images backbones that give predictions alone vote for several classes alike."""
    for target in study.targets:
        reader = target.reader
        if study.protocol.ensembles and len(reader.unsure) == len(reader.backbones) > 1:
            store, prompts = reader.store, reader.prompts
            votes = np.stack([store.predictions(key, prompts) for key in reader.keys])
            if tied := int(np.count_nonzero(tied_votes(votes))):
                samples = reader.samples
                yield (
                    f"{samples.name} · {reader.perturbation}: on {tied:,} of "
                    f"{len(samples):,} images no class has the most votes; without logits to "
                    "decide, the class that comes first in the list of classes wins"
                )

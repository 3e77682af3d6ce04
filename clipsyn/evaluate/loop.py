"""The one loop: datasets x shots x seeds x heads x ensembles -> a tidy frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from clipsyn.blocks import work_alone
from clipsyn.coop import read_indices
from clipsyn.ensembles import ENSEMBLES
from clipsyn.errors import DatasetError, UsageError
from clipsyn.estimator import from_text
from clipsyn.evaluate.results import ResultsFile
from clipsyn.evaluate.study import Batch, Protocol, Shots, Study, Target
from clipsyn.fewshot import halves, shortfall
from clipsyn.heads import HEADS
from clipsyn.progress import Progress
from clipsyn.registry import Registry
from clipsyn.specs import CLEAN
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import Names, groups, select

_LOG = logging.getLogger("clipsyn")
SHOTS: tuple[Shots, ...] = (1, 2, 4, 8, 16, None)


@dataclass(frozen=True)
class _Task:
    """What one worker does in one go; everything in it can be sent to another process."""

    store: Path
    dataset: str
    splits: tuple[str, ...]
    perturbations: tuple[str, ...]
    backbones: tuple[str, ...]
    prompts: str
    support: str
    support_prompts: str
    views: tuple[str, ...]
    coop: Path | None
    protocol: Protocol
    seed: int | None

    def study(self) -> Study:
        store = FeatureStore.open(self.store)
        support = PoolReader(
            store,
            self.dataset,
            self.support,
            backbones=self.backbones,
            prompts=self.support_prompts,
            views=self.views,
        )
        targets = [
            target
            for split in self.splits
            for perturbation in self.perturbations
            for target in self._targets(store, split, perturbation)
        ]
        wanted = [(k, s) for k in self.protocol.shots if k for s in self.protocol.seeds]
        indices = read_indices(self.coop, support.samples, wanted) if self.coop else None
        return Study(support, targets, self.protocol, indices)

    def _targets(self, store: FeatureStore, split: str, perturbation: str) -> Iterator[Target]:
        reader = PoolReader(
            store,
            self.dataset,
            split,
            perturbation=perturbation,
            backbones=self.backbones,
            prompts=self.prompts,
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
    splits: Sequence[str] = ("test",),
    perturbations: Names = (CLEAN.label,),
    backbones: Names = None,
    prompts: Names = None,
    heads: Sequence[str] = ("zero-shot",),
    ensembles: Sequence[str] | None = None,
    shots: Sequence[Shots] = SHOTS,
    seeds: Sequence[int] = (0, 1, 2),
    support: str = "train",
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

    Filters are names or patterns with ``*``; None takes all there is. heads, ensembles: names,
    or ``NAME:parameter=value`` (`clipsyn.heads`, `clipsyn.ensembles`; None is all of them).
    shots: images of each class, None for the whole support split. Always fitted on the clean
    images of `support`, so more `perturbations` are a shift transfer; `support_prompts` other
    than `prompts` make a prompt transfer; `base_to_new` fits on the first half of the classes
    and measures on each half among its own classes. coop: a folder with CoOp's
    ``shot_K-seed_S.pkl``, which replace the drawing of samples. views: perturbations of the
    support that are augmented views.

    output: a Parquet file to which results are added as they come; what it already holds from
    the same inputs is not computed again. workers: processes side by side.

    Returns what was asked for, new or known, as a tidy frame with the columns of `RESULT`. The
    metrics are those of `clipsyn.evaluate.scoring.Scorer`, fit_seconds (head and ensemble
    together) and predict_seconds. Raises MissingCell, UnknownName, DatasetError, UsageError and
    ConflictingResults, each saying what to do.
    """
    protocol = Protocol(
        tuple(heads),
        tuple(ENSEMBLES if ensembles is None else ensembles),
        tuple(shots),
        tuple(seeds),
        base_to_new,
    )
    _check(protocol, splits, support)
    chosen = _Choice(store, tuple(splits), perturbations, backbones, prompts, support)
    tasks = [
        _Task(
            store.path,
            dataset,
            tuple(splits),
            labels,
            names,
            prompt_set,
            support,
            support_prompts or prompt_set,
            tuple(views),
            coop,
            protocol,
            seed,
        )
        for dataset, labels, names, prompt_set in chosen.units(datasets)
        for seed in (None, *protocol.seeds)
    ]
    for note in _notes(tasks):
        _LOG.info("note: %s", note)
    results = ResultsFile(output, replace=replace)
    counter = progress.add("fits", len(tasks)) if progress else 0
    said: set[str] = set()
    wanted: set[str] = set()
    for batch, finished in _run(tasks, results.known, workers):
        results.add(batch.rows)
        wanted |= batch.wanted
        for note in batch.notes:
            if note not in said:
                _LOG.info("note: %s", note)
                said.add(note)
        if progress and finished:
            progress.advance(counter, 1)
    return results.frame.filter(pl.col("fingerprint").is_in(wanted))


@dataclass(frozen=True)
class _Choice:
    """Which datasets, perturbations, backbones and prompt sets the filters leave."""

    store: FeatureStore
    splits: tuple[str, ...]
    perturbations: Names
    backbones: Names
    prompts: Names
    support: str

    def units(self, datasets: Names) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...], str]]:
        keys = select(
            self.store,
            dataset=datasets,
            split=self.splits,
            perturbation=self.perturbations,
            backbone=self.backbones,
        )
        for dataset in sorted({key.dataset for key in keys}):
            cells = [key for key in keys if key.dataset == dataset]
            labels = self.store.samples(dataset, self.splits[0]).labels
            if not (labels >= 0).any():
                if datasets is not None:
                    raise DatasetError(_no_labels(dataset, self.splits[0]))
                continue
            grouped = groups(self.store, cells, self.prompts)
            names = tuple(sorted({key.backbone for key in cells}))
            for prompt_set in sorted({prompt_set for (_, prompt_set), _ in grouped}):
                perturbations = [label for (label, of), _ in grouped if of == prompt_set]
                yield dataset, tuple(dict.fromkeys(perturbations)), names, prompt_set


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


def read_shots(texts: Sequence[str] | None) -> tuple[Shots, ...]:
    """Numbers of images a class; "full" is the whole support split."""
    try:
        return tuple(None if text == "full" else int(text) for text in texts or ())
    except ValueError:
        raise UsageError(
            f"shots are numbers or full, such as 1,2,4,full; not {', '.join(texts or ())}"
        ) from None


def named(
    heads: Sequence[str] | None, ensembles: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names given; "all" stands for all of the registry."""

    def spread(texts: Sequence[str] | None, registry: Registry) -> tuple[str, ...]:
        names = (name for text in texts or () for name in (registry if text == "all" else [text]))
        return tuple(dict.fromkeys(names))

    return spread(heads, HEADS), spread(ensembles, ENSEMBLES)


def _check(protocol: Protocol, splits: Sequence[str], support: str) -> None:
    """Refuse names and combinations that cannot work before anything is read."""
    heads = {text: from_text(HEADS, text) for text in protocol.heads}
    ensembles = {text: from_text(ENSEMBLES, text) for text in protocol.ensembles}
    if support in splits:
        raise UsageError(
            f"{support} is both fitted on and measured on: give another --support or --split"
        )
    if bad := [k for k in protocol.shots if k is not None and k < 1]:
        raise UsageError(f"shots are images of a class, at least 1, or full; not {bad[0]}")
    if not protocol.base_to_new:
        return
    if learned := [text for text, head in heads.items() if head.learns]:
        raise UsageError(
            f"base-to-new needs a head for classes it has never seen: {learned[0]} learns the "
            "classes, leave it out"
        )
    if bound := [text for text, ensemble in ensembles.items() if ensemble.knows_classes]:
        raise UsageError(
            f"base-to-new cannot use {bound[0]}, which learns the classes: leave it out"
        )


def _notes(tasks: Sequence[_Task]) -> Iterator[str]:
    """What the support sets cannot give, once for each dataset."""
    for task in tasks:
        if task.seed is not None:
            continue
        study = task.study()
        labels = study.labels()
        classes = len(study.support.samples.class_names)
        where = f"{task.dataset}/{task.support}"
        if not (labels >= 0).any():
            raise DatasetError(_no_labels(task.dataset, task.support))
        _, empty = shortfall(labels, None, classes)
        if empty and not task.protocol.base_to_new:
            yield f"{where}: {empty} of {classes} classes have no image to learn from"
        for shots in task.protocol.shots:
            short, _ = shortfall(labels, shots, classes)
            if short:
                yield (
                    f"{where}: {short} of {classes} classes have fewer than {shots} images; from "
                    f"{shots} shots on they give all they have"
                )
                break


def _no_labels(dataset: str, split: str) -> str:
    return (
        f"{dataset}/{split} has no labels, so nothing can be learned or judged: extract a "
        "labelled folder or a manifest with a label column"
    )

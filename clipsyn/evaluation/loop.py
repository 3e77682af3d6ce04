"""The loop over datasets, shots, seeds, heads and ensembles, which gives a tidy frame."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from inspect import Parameter
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl

from clipsyn.errors import DatasetError, UsageError
from clipsyn.evaluation.budget import Budget
from clipsyn.evaluation.choice import cells_by_dataset, check, learning, spelled_out, usable
from clipsyn.evaluation.comparison import Comparison, Job, Runner
from clipsyn.evaluation.plan import FewShotPlan
from clipsyn.evaluation.results.files import ResultsFile
from clipsyn.evaluation.results.frame import RESULT
from clipsyn.evaluation.results.predictions import PredictionsFile
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.evaluation.study import Batch
from clipsyn.evaluation.workers import in_workers
from clipsyn.methods.ensembles.static import tied_votes
from clipsyn.methods.numerics.fewshot import shortfall
from clipsyn.names import Shard, parse_shard
from clipsyn.settings import signature_of
from clipsyn.show.progress import Progress
from clipsyn.store.alike import alike_notes
from clipsyn.store.features import FeatureStore

_LOG = logging.getLogger("clipsyn")


def evaluate(
    store: FeatureStore, *, progress: Progress | None = None, **settings: Any
) -> pl.DataFrame:
    """Fit heads and ensembles on the support split, and measure them on others.

    settings: those of `clipsyn.evaluation.settings.ProtocolSettings`. Unlabelled datasets and
    splits are left out unless datasets are asked for. heads, ensembles: names, or
    ``NAME:parameter=value``; "all" leaves out what cannot work for classes never seen, without
    embeddings, or where nothing is labelled to learn from. Methods are always fitted on clean
    images of the support. output: results are added to it as they come, by several processes if
    need be; what it already holds from the same inputs is not computed again. predictions: the
    same for what each method predicts (`clipsyn.evaluation.results.predictions`).

    Returns what was asked for, new or known, as a tidy frame with the columns of `RESULT`. The
    metrics are those of `clipsyn.evaluation.scoring.Scorer`, fit_seconds (head and ensemble
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
    shard = parse_shard(settings.shard)
    if settings.shard and not settings.output:
        raise UsageError("shard=… is a share of a file of results: name it by output=…")
    comparisons, notes = _comparisons(store, settings)
    plans = [one.plan() for one in comparisons]
    for note in dict.fromkeys((*notes, *(note for plan in plans for note in _notes(plan)))):
        _LOG.info("note: %s", note)
    with (
        ResultsFile(settings.output, replace=settings.replace) as results,
        PredictionsFile(settings.predictions, replace=settings.replace) as predictions,
    ):
        jobs = [
            Job(comparison, task)
            for comparison, plan in zip(comparisons, plans, strict=True)
            for task in plan.tasks()
        ]
        jobs = _share(jobs, shard)
        samples = {one: plan.samples() for one, plan in zip(comparisons, plans, strict=True)}
        known = _Known(results, predictions, jobs) if predictions.path else results.known
        budget, left = Budget(settings), list(_left(jobs, known))
        before = results.frame.filter(metric="fit_seconds").select("fingerprint", "value")
        budget.count_known(jobs, dict(before.iter_rows()))
        fits = sum(len(job.task.fits) for job in left)
        counter = progress.add("fits", fits) if progress else 0
        said: set[str] = set()
        for job, batch in _run(_affordable(left, known, budget), settings.workers):
            results.add(batch.rows)
            predictions.add(batch.predicted, samples[job.comparison])
            budget.count(job, batch.ensemble, batch.seconds)
            for note in batch.notes:
                if note not in said:
                    _LOG.info("note: %s", note)
                    said.add(note)
            if progress:
                progress.advance(counter, batch.fits)
        return _in_order(results.frame, (one for job in jobs for one in job.task.fingerprints()))


def gather(store: FeatureStore, settings: ProtocolSettings) -> pl.DataFrame:
    """What was asked for, as far as others have measured it; nothing is fitted."""
    comparisons, _ = _comparisons(store, settings)
    tasks = [task for one in comparisons for task in one.plan().tasks()]
    with ResultsFile(settings.output) as results:
        return _in_order(results.frame, (it for task in tasks for it in task.fingerprints()))


class _Known:
    """What need not be computed again: its results are there, and what it predicts."""

    def __init__(
        self, results: ResultsFile, predictions: PredictionsFile, jobs: Iterable[Job]
    ) -> None:
        self._results, self._predictions = results, predictions
        self._without = {
            result.fingerprint
            for job in jobs
            for fit in job.task.fits
            for result in fit.results
            if not result.has_predictions
        }

    def __contains__(self, fingerprint: object) -> bool:
        there = fingerprint in self._predictions.known or fingerprint in self._without
        return there and fingerprint in self._results.known


def _share(jobs: Sequence[Job], shard: Shard) -> list[Job]:
    """One worker's jobs, in their order: of each head and size of draw as many as the others'."""
    first, workers = shard
    alike = sorted(
        range(len(jobs)), key=lambda at: (jobs[at].task.head, len(jobs[at].task.rows), at)
    )
    return [jobs[at] for at in sorted(alike[first::workers])]


def _affordable(jobs: Iterable[Job], known: Container[str], budget: Budget) -> Iterator[Job]:
    """What is left when its turn comes; within a dataset small supports tell of larger ones."""
    for _, alike in groupby(jobs, key=lambda job: job.comparison):
        for job in _left(sorted(alike, key=lambda job: len(job.task.rows)), known):
            affordable, notes = budget.within(job)
            for note in notes:
                _LOG.info("note: %s", note)
            if affordable.task.fits:
                yield affordable


def _left(jobs: Iterable[Job], known: Container[str]) -> Iterator[Job]:
    """The jobs without what is known when their turn comes."""
    for job in jobs:
        if (task := job.task.without(known)).fits:
            yield replace(job, task=task)


def _in_order(frame: pl.DataFrame, fingerprints: Iterable[str]) -> pl.DataFrame:
    """The rows of these fingerprints, in their order."""
    order = pl.Series("fingerprint", list(dict.fromkeys(fingerprints)), pl.String).to_frame()
    joined = order.join(frame, on="fingerprint", how="inner", maintain_order="left_right")
    return joined.select(*RESULT)


def _comparisons(
    store: FeatureStore, settings: ProtocolSettings
) -> tuple[list[Comparison], list[str]]:
    """The datasets and prompt sets, and notes to say before they are worked on."""
    every = spelled_out(settings)
    by_name = {*settings.heads, *settings.ensembles}
    check(every, by_name)
    learners = learning(every)
    optional = settings.support is None and not learners & by_name
    split = (settings.support or "train") if learners else None
    comparisons, notes = [], []
    for cells in cells_by_dataset(store, settings, split, optional=optional):
        asked, left_out = usable(every, by_name, cells)
        notes += left_out
        notes += alike_notes(store, cells.dataset, cells.prompts, cells.backbones)
        support = cells.support if learning(asked) else None
        comparisons.append(Comparison(store.path, cells._replace(support=support), asked))
    return comparisons, notes


def _run(jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Batch]]:
    if workers > 1:
        yield from in_workers(Runner, jobs, workers)
        return
    run = Runner()
    for job in jobs:
        for batch in run(job):
            yield job, batch


def _notes(plan: FewShotPlan) -> Iterator[str]:
    """What the support lacks, and which votes are tied."""
    samples, settings = plan.targets[0].reader.samples, plan.settings
    classes = len(samples.class_names)
    if settings.base_to_new and classes < 3:
        raise DatasetError(
            f"{samples.dataset} has too few classes for base-to-new ({classes}), which needs two "
            "to learn and a new one: choose others with datasets=…"
        )
    yield from _ties(plan)
    yield from plan.learnable.notes
    if plan.support is None:
        return
    where = f"{samples.dataset}/{plan.support.samples.split}"
    labels = plan.labels()
    if not (labels >= 0).any():
        split = plan.support.samples.split
        raise plan.support.store.no_labels((samples.dataset, split))
    _, empty = shortfall(labels, None, classes)
    if empty and not settings.base_to_new:
        yield f"{where}: {empty} of {classes} classes have no image to learn from"
    drawn = plan.drawn(settings.draws[0])
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


def _ties(plan: FewShotPlan) -> Iterator[str]:
    """On how many images the votes are tied, of backbones with predictions alone."""
    for target in plan.targets:
        reader = target.reader
        if plan.settings.ensembles and len(reader.unsure) == len(reader.backbones) > 1:
            store, prompts = reader.store, reader.prompts
            votes = np.stack([store.predictions(key, prompts) for key in reader.keys])
            if tied := int(np.count_nonzero(tied_votes(votes))):
                samples = reader.samples
                yield (
                    f"{samples.name} · {reader.perturbation}: on {tied:,} of "
                    f"{len(samples):,} images no class has the most votes; without logits to "
                    "decide, the class that comes first in the list of classes wins"
                )

"""The loop over datasets, shots, seeds, heads and ensembles, which gives a tidy frame."""

from __future__ import annotations

import math
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import polars as pl

from clipsyn.errors import Interrupted, UsageError
from clipsyn.evaluation import ProtocolSettings
from clipsyn.evaluation.cells import comparisons
from clipsyn.evaluation.fit import Finished, Study
from clipsyn.evaluation.plan import Result, Task
from clipsyn.evaluation.results.files import PREDICTIONS, RowsFile
from clipsyn.evaluation.results.frame import RESULT, Row, in_order
from clipsyn.methods.ensembles import BEST_SINGLE
from clipsyn.methods.numerics.blocks import work_alone
from clipsyn.names import Shard, parse_shard
from clipsyn.settings import takes
from clipsyn.show.progress import Progress
from clipsyn.store.features import FeatureStore, opened
from clipsyn.text import LOG


@takes(ProtocolSettings)
def evaluate(
    store: FeatureStore | Path | str, *, progress: Progress | None = None, **settings: Any
) -> pl.DataFrame:
    """Fit heads and ensembles on the support split, and measure them on others.

    settings: those of `clipsyn.evaluation.ProtocolSettings`. Unlabelled datasets and
    splits are left out unless datasets are asked for. heads, ensembles: names, or
    ``NAME:parameter=value``; "all" leaves out what cannot work for classes never seen, without
    embeddings, or where nothing is labelled to learn from. Methods are always fitted on clean
    images of the support. output: results are added to it as they come, by several processes if
    need be; what it already holds from the same inputs is not computed again. What each method
    predicts is kept beside it (`clipsyn.evaluation.results.files`), for `compare_methods`.

    Returns what was asked for, new or known, as a tidy frame with the columns of `RESULT`. The
    metrics are those of `clipsyn.evaluation.score.Scorer`, fit_seconds (head and ensemble
    together) and predict_seconds. Raises MissingCell, UnknownName, DatasetError, UsageError and
    ConflictingResults, each saying what to do.

    >>> from clipsyn import FeatureStore, evaluate
    >>> store = FeatureStore.open("store")
    >>> frame = evaluate(store, ensembles=["super-learner"], shots=[1, 2], seeds=2)
    >>> accuracy = frame.filter(metric="acc1", head="lda", ensemble="super-learner")
    >>> accuracy.select("shots", "seed").rows()  # with a value, its interval and n each
    [('1', 0), ('2', 0), ('1', 1), ('2', 1)]
    """
    asked = ProtocolSettings(**settings)
    shard = parse_shard(asked.shard)
    if asked.shard and not asked.output:
        raise UsageError("shard=… is a share of a file of results: name it by output=…")
    datasets, notes = comparisons(opened(store), asked)
    said: set[str] = set()
    for note in [*notes, *(note for dataset in datasets for note in dataset.notes())]:
        _say(note, said)
    with (
        RowsFile(asked.output) as results,
        RowsFile(asked.predictions_file, PREDICTIONS) as predictions,
    ):
        tasks = _share([task for dataset in datasets for task in dataset.tasks()], shard)
        every, is_new = _fingerprints(tasks), partial(_is_new, results, predictions)
        left, budget = [*_only(tasks, is_new)], Budget(asked, results, every)
        counter = progress.add("fits", sum(len(task.fits()) for task in left)) if progress else 0
        affordable = _affordable(left, is_new, budget, said)
        run = _in_workers(affordable, asked.workers) if asked.workers > 1 else _run(affordable)
        for task, finished in run:
            results.add(pl.DataFrame(finished.rows, schema=RESULT))
            for predicted in finished.predicted:
                predictions.add(predicted)
            budget.count(finished.rows)
            if finished.note:
                _say(finished.note, said)
            if progress:
                progress.advance(counter, len(task.fits()) if finished.note else 1)
        return _in_order(results.frame, every)


def count_left(store: FeatureStore, settings: ProtocolSettings) -> int:
    """How many workers at most find something to do; raises as `evaluate` for what cannot work."""
    datasets, _ = comparisons(store, settings)
    with (
        RowsFile(settings.output) as results,
        RowsFile(settings.predictions_file, PREDICTIONS) as predictions,
    ):
        tasks = [task for dataset in datasets for task in dataset.tasks()]
        is_new = partial(_is_new, results, predictions)
        budget = Budget(settings, results, _fingerprints(tasks))
        return sum(1 for _ in _affordable([*_only(tasks, is_new)], is_new, budget, set()))


def _is_new(results: RowsFile, predictions: RowsFile, result: Result) -> bool:
    if result.fingerprint not in results.known:
        return True
    is_kept = predictions.path is not None and result.has_predictions
    return is_kept and result.fingerprint not in predictions.known


def _say(note: str, said: set[str]) -> None:
    if note not in said:
        LOG.info("note: %s", note)
        said.add(note)


def gather(store: FeatureStore, settings: ProtocolSettings) -> pl.DataFrame:
    """What was asked for, as far as others have measured it; nothing is fitted."""
    datasets, _ = comparisons(store, settings)
    with RowsFile(settings.output) as results:
        tasks = (task for dataset in datasets for task in dataset.tasks())
        return _in_order(results.frame, _fingerprints(tasks))


def _share(tasks: Sequence[Task], shard: Shard) -> list[Task]:
    """One worker's tasks, in their order: of each head and size of draw as many as the others'."""
    first, workers = shard
    alike = sorted(range(len(tasks)), key=lambda at: (tasks[at].head, len(tasks[at].rows), at))
    return [tasks[at] for at in sorted(alike[first::workers])]


def _only(tasks: Iterable[Task], wanted: Callable[[Result], bool]) -> Iterator[Task]:
    """The tasks without other results, as it is when their turn comes."""
    for task in tasks:
        if (left := task.only(wanted)).results:
            yield left


def _affordable(
    tasks: Iterable[Task], is_new: Callable[[Result], bool], budget: Budget, said: set[str]
) -> Iterator[Task]:
    """What is left when its turn comes; within a dataset small supports tell of larger ones."""

    def wanted(result: Result) -> bool:
        note = budget.refuses(result) if is_new(result) else None
        if note:
            _say(note, said)
        return is_new(result) and not note

    for _, alike in groupby(tasks, key=lambda task: task.comparison):
        yield from _only(sorted(alike, key=lambda task: len(task.rows)), wanted)


class Budget:
    """Methods that took longer than `budget` minutes are not fitted on more images of a dataset.

    Seconds are those of the results, of head and ensemble together, so that a run which goes on
    where another ended leaves out the same. What was asked for by name is always fitted, and so is
    the choice of a single backbone.
    """

    def __init__(
        self, settings: ProtocolSettings, results: RowsFile, fingerprints: list[str]
    ) -> None:
        """Knows what the fits of these results have taken."""
        self._minutes = settings.budget
        self._named = {*settings.by_name, BEST_SINGLE}
        self._slow: dict[tuple[str, ...], float] = {}  # -> the fewest shots with which it was
        known = results.frame.filter(metric="fit_seconds")
        self.count(_in_order(known, fingerprints).rows(named=True))

    def count(self, rows: Iterable[Row]) -> None:
        """Take note of fits that are done, by the rows of their results."""
        for row in rows:
            if row["metric"] == "fit_seconds" and row["value"] > 60 * self._minutes:
                method = _method(row)
                self._slow[method] = min(in_order(row["shots"]), self._slow.get(method, math.inf))

    def refuses(self, result: Result) -> str:
        """Why, where it was too slow on fewer images."""
        row = result.about
        fewest = self._slow.get(_method(row), math.inf)
        is_named = {row["head"], row["ensemble"]} <= self._named
        if is_named or not result.learns or fewest >= in_order(row["shots"]):
            return ""
        return (
            f"{row['ensemble']} on {row['head']} left out of {row['dataset']} with more than "
            f"{fewest} images a class, with which its fit took longer than "
            f"budget={self._minutes:g} minutes; what is asked for by name is always fitted"
        )


def _method(row: Row) -> tuple[str, ...]:
    return row["dataset"], row["prompts"], row["head"], row["ensemble"]


def _fingerprints(tasks: Iterable[Task]) -> list[str]:
    """Of all results, fit by fit."""
    fits = (results for task in tasks for results in task.fits().values())
    return list(dict.fromkeys(result.fingerprint for results in fits for result in results))


def _in_order(frame: pl.DataFrame, fingerprints: list[str]) -> pl.DataFrame:
    """The rows of these fingerprints, in their order."""
    order = pl.Series("fingerprint", fingerprints, pl.String).to_frame()
    joined = order.join(frame, on="fingerprint", how="inner", maintain_order="left_right")
    return joined.select(*RESULT)


def _run(tasks: Iterable[Task]) -> Iterator[tuple[Task, Finished]]:
    """Tasks one after the other; those of one dataset share what is read of its targets."""
    study = None
    for task in tasks:
        if study is None or study.comparison != task.comparison:
            study = None  # what it keeps goes before that of another comes
            study = Study(task.comparison)
        for finished in study.run(task):
            yield task, finished


def _in_workers(tasks: Iterable[Task], workers: int) -> Iterator[tuple[Task, Finished]]:
    """`_run` in several processes, each of which takes a task when it is free.

    Each process has one thread, since together they fill the cores. All of them end when this
    generator does, or when this process is killed. Raises what a fit raises, and Interrupted where
    a process was killed.
    """
    context, left = get_context("spawn"), iter(tasks)
    busy: dict[Connection, Task] = {}
    processes = []
    try:
        for _, task in zip(range(workers), left, strict=False):
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=_serve, args=(theirs,), daemon=True))
            processes[-1].start()
            theirs.close()
            ours.send(task)
            busy[ours] = task
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                said = _received(connection)
                if said is not None:
                    yield busy[connection], said
                    continue
                del busy[connection]
                for task in left:
                    connection.send(task)
                    busy[connection] = task
                    break
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _received(connection: Connection) -> Finished | None:
    """A fit, or None where a task is done; raises what the worker has."""
    try:
        said = connection.recv()
    except (EOFError, ConnectionError):
        raise Interrupted(
            "a worker was killed, perhaps because memory ran out: what it had fitted is kept, and "
            "the same command goes on from there; fewer workers=… need less memory"
        ) from None
    if isinstance(said, BaseException):
        raise said
    return said  # type: ignore[no-any-return]


def _serve(connection: Connection) -> None:
    """Work until the other end is closed."""
    from threadpoolctl import threadpool_limits

    def tasks() -> Iterator[Task]:
        while True:
            yield connection.recv()
            connection.send(None)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who started this ends it
    work_alone()
    with threadpool_limits(1), suppress(EOFError, ConnectionError):
        try:
            for _, finished in _run(tasks()):
                connection.send(finished)
        except (EOFError, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 (it is raised where it was asked for)
            error.add_note(traceback.format_exc())
            connection.send(error)

"""The loop over datasets, shots, seeds, heads and ensembles, which gives a tidy frame."""

from __future__ import annotations

import logging
import math
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import polars as pl

from clipsyn.errors import Interrupted, UsageError
from clipsyn.evaluation.cells import comparisons
from clipsyn.evaluation.fit import Finished, Study
from clipsyn.evaluation.plan import Comparison, Result, Task
from clipsyn.evaluation.results.files import PREDICTIONS, RowsFile
from clipsyn.evaluation.results.frame import RESULT, Row, in_order
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.methods.ensembles import BEST_SINGLE
from clipsyn.methods.numerics.blocks import working_alone
from clipsyn.names import Shard, parse_shard
from clipsyn.settings import takes
from clipsyn.show.progress import Progress
from clipsyn.store.features import FeatureStore, opened

_LOG = logging.getLogger("clipsyn")
_J = TypeVar("_J")
_R = TypeVar("_R")


@takes(ProtocolSettings)
def evaluate(
    store: FeatureStore | Path | str, *, progress: Progress | None = None, **settings: Any
) -> pl.DataFrame:
    """Fit heads and ensembles on the support split, and measure them on others.

    settings: those of `clipsyn.evaluation.settings.ProtocolSettings`. Unlabelled datasets and
    splits are left out unless datasets are asked for. heads, ensembles: names, or
    ``NAME:parameter=value``; "all" leaves out what cannot work for classes never seen, without
    embeddings, or where nothing is labelled to learn from. Methods are always fitted on clean
    images of the support. output: results are added to it as they come, by several processes if
    need be; what it already holds from the same inputs is not computed again. What each method
    predicts is kept beside it (`clipsyn.evaluation.results.files`), for `compare_methods`.

    Returns what was asked for, new or known, as a tidy frame with the columns of `RESULT`. The
    metrics are those of `clipsyn.evaluation.scoring.Scorer`, fit_seconds (head and ensemble
    together) and predict_seconds. Raises MissingCell, UnknownName, DatasetError, UsageError and
    ConflictingResults, each saying what to do.

    >>> from clipsyn import FeatureStore, evaluate
    >>> store = FeatureStore.open("store")
    >>> frame = evaluate(store, ensembles=["super-learner"], shots=[1, 2], seeds=2)
    >>> accuracy = frame.filter(metric="acc1", head="lda", ensemble="super-learner")
    >>> accuracy.select("shots", "seed").rows()  # with a value, its interval and n each
    [('1', 0), ('2', 0), ('1', 1), ('2', 1)]
    """
    return measure(opened(store), ProtocolSettings(**settings), progress)


def measure(
    store: FeatureStore, settings: ProtocolSettings, progress: Progress | None = None
) -> pl.DataFrame:
    """`evaluate`, with settings that have been read."""
    shard = parse_shard(settings.shard)
    if settings.shard and not settings.output:
        raise UsageError("shard=… is a share of a file of results: name it by output=…")
    datasets, notes = comparisons(store, settings)
    notes += [note for dataset in datasets for note in dataset.notes()]
    for note in dict.fromkeys(notes):
        _LOG.info("note: %s", note)
    with (
        RowsFile(settings.output) as results,
        RowsFile(settings.predictions_file, PREDICTIONS) as predictions,
    ):

        def is_new(result: Result) -> bool:
            if result.fingerprint not in results.known:
                return True
            is_lacking = result.has_predictions and result.fingerprint not in predictions.known
            return is_lacking and predictions.path is not None

        tasks = _share(_tasks(datasets), shard)
        asked = _fingerprints(tasks)
        budget, left = Budget(settings), [*_only(tasks, is_new)]
        budget.count(_in_order(results.frame.filter(metric="fit_seconds"), asked).rows(named=True))
        counter = progress.add("fits", sum(len(task.fits()) for task in left)) if progress else 0
        said: set[str] = set()
        for task, finished in _run(_affordable(left, is_new, budget), settings.workers):
            results.add(pl.DataFrame(finished.rows, schema=RESULT))
            samples = task.comparison.samples()
            for target, predicted in finished.predicted:
                predictions.add(predicted.frame(samples[target]))
            budget.count(finished.rows)
            for note in finished.notes:
                if note not in said:
                    _LOG.info("note: %s", note)
                    said.add(note)
            if progress:
                progress.advance(counter, len(task.fits()) if finished.notes else 1)
        return _in_order(results.frame, asked)


def gather(store: FeatureStore, settings: ProtocolSettings) -> pl.DataFrame:
    """What was asked for, as far as others have measured it; nothing is fitted."""
    datasets, _ = comparisons(store, settings)
    tasks = _tasks(datasets)
    with RowsFile(settings.output) as results:
        return _in_order(results.frame, _fingerprints(tasks))


def _tasks(datasets: Iterable[Comparison]) -> list[Task]:
    return [task for dataset in datasets for task in dataset.tasks()]


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
    tasks: Iterable[Task], is_new: Callable[[Result], bool], budget: Budget
) -> Iterator[Task]:
    """What is left when its turn comes; within a dataset small supports tell of larger ones."""
    for _, alike in groupby(tasks, key=lambda task: task.comparison):
        ordered = sorted(alike, key=lambda task: len(task.rows))
        yield from _only(ordered, lambda result: is_new(result) and budget.allows(result))


class Budget:
    """Methods that took longer than `budget` minutes are not fitted on more images of a dataset.

    Seconds are those of the results, of head and ensemble together, so that a run which goes on
    where another ended leaves out the same. What was asked for by name is always fitted, and so is
    the choice of a single backbone.
    """

    def __init__(self, settings: ProtocolSettings) -> None:
        self._minutes = settings.budget
        self._named = {*settings.by_name, BEST_SINGLE}
        self._slow: dict[tuple[str, ...], float] = {}  # -> the fewest shots with which it was
        self._said: set[tuple[str, ...]] = set()

    def count(self, rows: Iterable[Row]) -> None:
        """Take note of fits that are done, by the rows of their results."""
        for row in rows:
            if row["metric"] == "fit_seconds" and row["value"] > 60 * self._minutes:
                method = _method(row)
                self._slow[method] = min(in_order(row["shots"]), self._slow.get(method, math.inf))

    def allows(self, result: Result) -> bool:
        """Whether it was not too slow on fewer images; says so where it was."""
        row = result.about
        method, is_named = _method(row), {row["head"], row["ensemble"]} <= self._named
        fewest = self._slow.get(method, math.inf)
        if is_named or not result.learns or fewest >= in_order(row["shots"]):
            return True
        if method not in self._said:
            self._said.add(method)
            _LOG.info(
                "note: %s on %s left out of %s with more than %d images a class, with which its "
                "fit took longer than budget=%g minutes; what is asked for by name is always "
                "fitted",
                *(row["ensemble"], row["head"], row["dataset"], fewest, self._minutes),
            )
        return False


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


def _run(tasks: Iterable[Task], workers: int) -> Iterator[tuple[Task, Finished]]:
    if workers > 1:
        yield from in_workers(_runner, tasks, workers)
        return
    run = _runner()
    for task in tasks:
        for finished in run(task):
            yield task, finished


def _runner() -> Callable[[Task], Iterator[Finished]]:
    """Runs tasks one after the other; those of one dataset share what is read of its targets."""
    of_last: list[Study] = []

    def run(task: Task) -> Iterator[Finished]:
        if not of_last or of_last[0].comparison != task.comparison:
            of_last.clear()  # what it keeps goes before that of another comes
            of_last.append(Study(task.comparison))
        yield from of_last[0].run(task)

    return run


class _Message(NamedTuple):
    """From a worker: a result, an error, a line of its log, or, with none, that a job is done."""

    result: Any = None
    error: BaseException | None = None
    said: str = ""


def in_workers(
    make: Callable[[], Callable[[_J], Iterator[_R]]], jobs: Iterable[_J], workers: int
) -> Iterator[tuple[_J, _R]]:
    """What ``make()(job)`` yields, as it comes, with the job that it is of.

    make: called once in each process. Jobs are taken when a process is free. Each process has one
    thread, since together they fill the cores. All of them end when this generator does, or when
    this process is killed. Raises what a job raises, and Interrupted where a process was killed.
    """
    context = get_context("spawn")
    left = iter(jobs)
    busy: dict[Connection, _J] = {}
    processes = {}
    try:
        for _, job in zip(range(workers), left, strict=False):
            ours, theirs = context.Pipe()
            processes[ours] = context.Process(target=_serve, args=(theirs, make), daemon=True)
            processes[ours].start()
            theirs.close()
            ours.send(job)
            busy[ours] = job
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                message = _received(connection)
                if message.error:
                    raise message.error
                if message.said:
                    _LOG.info(message.said)
                    continue
                if message.result is not None:
                    yield busy[connection], message.result
                    continue
                del busy[connection]
                for job in left:
                    connection.send(job)
                    busy[connection] = job
                    break
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def _received(connection: Connection) -> _Message:
    try:
        message: _Message = connection.recv()
    except (EOFError, ConnectionError):
        raise Interrupted(
            "a worker was killed, perhaps because memory ran out: what it had fitted is kept, and "
            "the same command goes on from there; fewer workers=… need less memory"
        ) from None
    return message


def _serve(connection: Connection, make: Callable[[], Callable[[Any], Iterator[Any]]]) -> None:
    """Work until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who started this ends it
    _LOG.addHandler(_Sent(connection))
    _LOG.setLevel(logging.INFO)
    with one_thread(), suppress(EOFError, ConnectionError):
        work = make()
        while True:
            job = connection.recv()
            try:
                for result in work(job):
                    connection.send(_Message(result))
                connection.send(_Message())
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001 (it is raised where it was asked for)
                error.add_note(traceback.format_exc())
                connection.send(_Message(error=error))


class _Sent(logging.Handler):
    """What is said in a worker is said by the process that started it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self._connection.send(_Message(said=record.getMessage()))


@contextmanager
def one_thread() -> Iterator[None]:
    """Everything that is computed here has one thread."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), working_alone():
        yield

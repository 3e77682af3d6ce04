"""Commands whose work several jobs share: `--on local`, `--on slurm`."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from clipsyn.cli.declared import settings_options, words_of
from clipsyn.cli.output import say
from clipsyn.errors import ClusterError, Interrupted, UsageError
from clipsyn.run.jobs import (
    LOCAL,
    Ended,
    ExecutorSettings,
    Task,
    check_all,
    describe,
    run_local,
    shares,
)
from clipsyn.settings import Settings, declared
from clipsyn.show.progress import progress
from clipsyn.text import advised, line_of

if TYPE_CHECKING:
    from clipsyn.evaluation.settings import ProtocolSettings
    from clipsyn.extract import ExtractSettings, Plan
    from clipsyn.run.stages import Jobs
    from clipsyn.store.features import FeatureStore

_LOG = logging.getLogger("clipsyn")
_QUEUED_AGAIN = -1  # with which submitit ends a process whose job goes on later
_EVERY = 5.0  # seconds between two looks at what has been made

executor_options = settings_options(ExecutorSettings)


def pop_executor_settings(values: dict[str, Any]) -> ExecutorSettings:
    """Where the work runs; its options are taken out of `values`."""
    return ExecutorSettings(**{name: values.pop(name) for name in declared(ExecutorSettings)})


@dataclass(frozen=True)
class Command:
    """What a node of the cluster calls: a command of ours, in a process of its own."""

    words: tuple[str, ...]

    def __call__(self) -> None:
        from clipsyn.cli import main

        say(line_of(self.words), err=True)
        try:
            main([*self.words], prog_name="clipsyn")
        except SystemExit as ended:
            if ended.code == _QUEUED_AGAIN:
                raise
            if ended.code:
                raise ClusterError(f"exit status {ended.code}") from None

    def checkpoint(self) -> Any:
        """What submitit calls when the job must make way: it goes on from what is done."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass
class SharedRun:
    """The work of one command on a store, shared by jobs.

    made: how many of `total` (cells, or else tasks) are there.
    """

    command: str
    store: Path
    settings: Settings
    executor: ExecutorSettings
    total: int = 0
    made: Callable[[], int] | None = None
    _ended: list[Ended] = field(default_factory=list)

    def run(self) -> bool:
        """Do it; False where it was submitted alone. Raises ClusterError if a task failed."""
        stop_on_sigterm()
        tasks = self.tasks()
        folder = self.executor.logs / f"{self.command}-{time.strftime('%Y%m%d-%H%M%S')}"
        if self.executor.on == LOCAL:
            self._run_local(tasks, folder)
        elif not self._run_on_slurm(tasks, folder):
            return False
        check_all(self._ended)
        return True

    def tasks(self) -> list[Task]:
        if getattr(self.settings, "shard", None):
            raise UsageError("jobs get their shares themselves: leave shard=… out")
        words = [self.command, str(self.store), *words_of(self.settings)]
        return shares(words, self.executor.jobs or 1)

    def _run_local(self, tasks: Sequence[Task], folder: Path) -> None:
        _LOG.info(f"{len(tasks)} processes; a log of each in {folder}")
        with self._looking() as look:
            run_local(tasks, folder, self._on_end, look)

    def _run_on_slurm(self, tasks: Sequence[Task], folder: Path) -> bool:
        from clipsyn.run.slurm import submit, wait

        jobs = submit(tasks, lambda task: Command(task.words), self.executor, folder.absolute())
        number = jobs[0].job.job_id.partition("_")[0]
        _LOG.info(f"SLURM job {number}, {len(tasks)} tasks; a log of each in {folder}")
        more = advised("ls", self.store, "--watch")
        _LOG.info(f"`scancel {number}` ends it, `{more}` shows more")
        if self.executor.of_a_job("detach"):
            return False
        try:
            with self._looking() as look:
                wait(jobs, self._on_end, look)
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(
                f"no longer waiting: SLURM job {number} goes on, and `scancel {number}` ends it"
            ) from None
        return True

    def _on_end(self, ended: Ended) -> None:
        self._ended.append(ended)
        level = logging.WARNING if ended.failure else logging.INFO
        _LOG.log(level, describe(ended))

    @contextmanager
    def _looking(self) -> Iterator[Callable[[], None]]:
        """A function that moves the bar, where it is time to look."""
        made = self.made or (lambda: len(self._ended))
        unit, total = ("cells", self.total) if self.made else ("tasks", self.executor.jobs or 1)
        seen = made()
        next_look = time.monotonic()
        with progress(unit) as counters:
            counter = counters.add(self.command, total, seen)

            def look() -> None:
                nonlocal seen, next_look
                if (now := time.monotonic()) >= next_look:
                    before, seen = seen, made()
                    counters.advance(counter, seen - before)
                    next_look = now + _EVERY

            yield look


def extraction(
    store: Path, job: ExtractSettings, executor: ExecutorSettings, plan: Plan
) -> SharedRun:
    """An extraction by jobs. plan: of the job on any device."""
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.marker import is_store

    wanted = plan.keys

    def made() -> int:
        return len(wanted.intersection(FeatureStore.open(store).keys())) if is_store(store) else 0

    return SharedRun("extract", store, job, executor, len(wanted), made)


def evaluation(
    store: FeatureStore, settings: ProtocolSettings, executor: ExecutorSettings
) -> SharedRun:
    """An evaluation by jobs, all of which add to one file; raises for what cannot work."""
    from clipsyn.evaluation.loop import gather

    if not settings.output:
        raise UsageError("jobs add to one file of results: name it by output=…")
    gather(store, settings)
    return SharedRun("evaluate", store.path, settings, executor)


def jobs_of(executor: ExecutorSettings) -> Jobs:
    """What runs the work of a recipe's stage by jobs."""

    from clipsyn.evaluation.settings import ProtocolSettings
    from clipsyn.extract import ExtractSettings
    from clipsyn.extract.job import plan_job
    from clipsyn.store.features import FeatureStore

    def run(store: Path, settings: Settings) -> None:
        if isinstance(settings, ProtocolSettings):
            evaluation(FeatureStore.open(store), settings, executor).run()
        elif isinstance(settings, ExtractSettings):
            plan = plan_job(store, settings.of_any_device())
            extraction(store, settings, executor, plan).run()

    return run


def stop_on_sigterm() -> None:
    """SIGTERM ends the command as Ctrl-C does, unless who runs it sees to the signal."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted("stopped by SIGTERM; finished blocks are kept, run the same command again")

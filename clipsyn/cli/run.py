"""`clipsyn run`, and commands whose work several jobs share, with `--jobs` and `--slurm`."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from clipsyn.cli.options import command, flag, options_of, words_of
from clipsyn.cli.output import say, say_lines, say_notes, say_rows
from clipsyn.errors import ClusterError, Interrupted, UsageError
from clipsyn.run.jobs import (
    LOGS,
    Ended,
    ExecutorSettings,
    OnTaskEnd,
    Task,
    check_all,
    run_local,
    shares,
    submit,
    wait,
)
from clipsyn.settings import Settings, declared
from clipsyn.text import line_of

if TYPE_CHECKING:
    from clipsyn.evaluation import ProtocolSettings
    from clipsyn.extract import Plan
    from clipsyn.run.recipe import Recipe
    from clipsyn.store.features import FeatureStore

_LOG = logging.getLogger("clipsyn")
_QUEUED_AGAIN = -1  # with which submitit ends a process whose job goes on later
EXECUTOR = options_of(ExecutorSettings)


def pop_executor_settings(values: dict[str, Any]) -> ExecutorSettings:
    """Where the work runs; its options are taken out of `values`."""
    return ExecutorSettings(**{name: values.pop(name) for name in declared(ExecutorSettings)})


@dataclass(frozen=True)
class Call:
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


def by_jobs(name: str, store: Path, settings: Settings, executor: ExecutorSettings) -> None:
    """Run the command `clipsyn NAME STORE` with these settings by jobs, each with a share.

    Raises ClusterError if a task failed.
    """
    stop_on_sigterm()
    if getattr(settings, "shard", None):
        raise UsageError("jobs get their shares themselves: leave shard=… out")
    tasks = shares([name, str(store), *words_of(settings)], executor.jobs or 1)
    folder, ended = LOGS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}", list[Ended]()

    def on_end(task: Ended) -> None:
        ended.append(task)
        _LOG.log(logging.WARNING if task.failure else logging.INFO, str(task))

    if executor.slurm:
        _on_slurm(tasks, executor, folder, on_end)
    else:
        _LOG.info(f"{len(tasks)} processes; a log of each in {folder}")
        run_local(tasks, folder, on_end)
    check_all(ended)


def _on_slurm(
    tasks: Sequence[Task], executor: ExecutorSettings, folder: Path, on_end: OnTaskEnd
) -> None:
    jobs = submit(tasks, lambda task: Call(task.words), executor, folder.absolute())
    number = jobs[0].job.job_id.partition("_")[0]
    _LOG.info(f"SLURM job {number}, {len(tasks)} tasks; a log of each in {folder}")
    try:
        wait(jobs, on_end)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            f"no longer waiting: SLURM job {number} goes on, and `scancel {number}` ends it"
        ) from None


def evaluation_by_jobs(
    store: FeatureStore, settings: ProtocolSettings, executor: ExecutorSettings
) -> None:
    """All of which add to one file; raises for what cannot work before any is started."""
    from clipsyn.evaluation.loop import gather

    if not settings.output:
        raise UsageError("jobs add to one file of results: name it by output=…")
    gather(store, settings)
    by_jobs("evaluate", store.path, settings, executor)


def stop_on_sigterm() -> None:
    """SIGTERM ends the command as Ctrl-C does, unless who runs it sees to the signal."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted("stopped by SIGTERM; finished blocks are kept, run the same command again")


def say_plan(plan: Plan) -> None:
    """What an extraction would do, told from names and the catalogue."""
    from clipsyn.show.tables import show

    say_notes(dict.fromkeys(plan.missing.values()))
    say_lines(f"{show(plan.backbone_table())}\n\n{show(plan.table())}\n")
    say_lines(plan.unchecked())


@command(
    "run",
    [
        click.Argument(["recipe"], required=False),
        flag(["--dry-run"], help="Show what each stage would do and stop."),
        *EXECUTOR,
    ],
)
def run(recipe: str | None, dry_run: bool, **values: Any) -> None:
    """Run the stages of RECIPE in order; what is already there is skipped.

    RECIPE is the name of one that ships with clipsyn, or a YAML file, whose form is in
    docs/recipes.md. Without it the names are listed. Relative paths in a recipe start at the folder
    where the command is run; those that ship write to runs/ in it.

    --dry-run needs neither weights nor images, and downloads and writes nothing.

    --jobs shares the stages extract and evaluate; the other stages run in this process, when the
    jobs of the stage before have ended.

    \b
    clipsyn run quickstart
    clipsyn run paper/zero-shot --dry-run
    clipsyn run path/to/recipe.yaml
    clipsyn run path/to/recipe.yaml --jobs 16 --slurm gpus=1
    """
    from clipsyn.run.recipe import find_recipe, read_recipe, shipped_recipes
    from clipsyn.run.stages import run_recipe

    if recipe is None:
        shipped = shipped_recipes().items()
        say_rows(
            [{"recipe": name, "what it does": read_recipe(it).description} for name, it in shipped]
        )
        return
    executor, checked = pop_executor_settings(values), find_recipe(recipe)
    if dry_run:
        _show_plan(checked)
        return
    stop_on_sigterm()

    def started(number: int, name: str) -> None:
        if _LOG.isEnabledFor(logging.INFO):
            say(f"[{number}/{len(checked.stages)}] {name}", err=True, bold=True)

    def by_executor(store: Path, settings: Settings) -> None:
        from clipsyn.evaluation import ProtocolSettings
        from clipsyn.store.features import FeatureStore

        if isinstance(settings, ProtocolSettings):
            evaluation_by_jobs(FeatureStore.open(store), settings, executor)
        else:
            by_jobs("extract", store, settings, executor)

    outcomes = run_recipe(checked, started, by_executor if executor.jobs else None)
    for outcome in outcomes:
        if outcome.report:
            say_lines(outcome.report)
    say_rows(
        [
            {
                "stage": outcome.stage,
                "": "already there" if outcome.skipped else "done",
                "seconds": round(outcome.seconds, 1),
                "what": outcome.did,
            }
            for outcome in outcomes
        ]
    )
    say(f"store: {checked.store}")


def _show_plan(recipe: Recipe) -> None:
    from clipsyn.extract import Cost
    from clipsyn.run.stages import plan_recipe

    stages = list(plan_recipe(recipe))
    for number, stage in enumerate(stages, 1):
        say(f"[{number}/{len(stages)}] {stage.stage}", bold=True)
        if stage.plan:
            say_plan(stage.plan)
        say_lines(f"{'already there: ' if stage.skipped else ''}{stage.did}\n")
    if costs := [stage.cost for stage in stages if stage.cost]:
        say_lines(f"in all: {Cost.sum(costs)}")
    say(f"store: {recipe.store}")

"""Commands that make cells, extract, split, import and run, by several jobs if so asked."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from clipsyn.cli.options import STORE, Destination, command, flag, option, output_option, words_of
from clipsyn.cli.output import Output, say, say_lines, say_notes, say_rows
from clipsyn.errors import ClusterError, Interrupted, UsageError
from clipsyn.exchange import ImportSettings
from clipsyn.extract import Cost, ExtractSettings, Plan
from clipsyn.images import SplitSettings
from clipsyn.run import jobs
from clipsyn.settings import Settings, declared
from clipsyn.text import LOG, advised, line_of

if TYPE_CHECKING:
    from clipsyn.run.recipe import Recipe

_QUEUED_AGAIN = -1  # with which submitit ends a process whose job goes on later
_DRY_RUN = flag(
    ["--dry-run"], help="Show the plan and stop, by names alone: no weights and images are read."
)


@command("extract", STORE, ExtractSettings, jobs.ExecutorSettings, _DRY_RUN)
def extract(store: Path, dry_run: bool, **values: Any) -> None:
    """Run backbones over images into STORE: image embeddings, class embeddings and logits.

    What is there is skipped; what was interrupted goes on where it stopped.

    \b
    clipsyn extract store -b zoo -d emoji-animals,emoji-food -s train,test
    clipsyn extract store -b openai -d imagenet1k -s val -p clean,imagenet-c:3 --data-root /data
    clipsyn extract store -b ViT-B-32/openai,mine=local-dir:run7/ -d photos/ --dry-run
    clipsyn extract store -b openai -d paper -s test --jobs 16 --slurm gpus=1
    """
    from clipsyn.extract.plan import plan_job

    by_jobs, job = pop_jobs(values), ExtractSettings(**values)
    if dry_run:
        plan = plan_job(store, job)
        _say_plan(plan)
        say_lines(plan.summary())
        return
    stop_on_sigterm()
    made, did = jobs.extracted(store, job, by_jobs, lambda note: say_notes([note]))
    LOG.info(f"done: next, `{advised('ls', store, '--status')}`" if made else did)


def _say_plan(plan: Plan) -> None:
    """What an extraction would do, told from names and the catalogue."""
    say_notes(dict.fromkeys(plan.missing.values()))
    for rows in (plan.backbone_rows(), plan.rows()):
        say_rows(rows)
        say("")
    say_lines(plan.unchecked())


@command(
    "split",
    click.Argument(["images"], type=click.Path(path_type=Path)),
    option(
        ["-o", "--output"],
        type=Destination(".csv", ".parquet"),
        required=True,
        help="The manifest to write, .csv or .parquet.",
    ),
    SplitSettings,
    flag(["--replace"], help="Replace a manifest that is there."),
)
def split(images: Path, output: Path, replace: bool, **values: Any) -> None:
    """Divide the labelled images of IMAGES, a folder or a manifest, into train and test.

    Writes a manifest for `clipsyn extract`, with the column split, and its class names beside it.
    Each class has the same share in test. Of images of the same content the first is taken; kept,
    they are on the same side. Unlabelled images (no label in a manifest, beside the class folders
    in a folder) are kept apart as the split unlabelled; images with several labels as conflicting.
    See docs/datasets.md.

    \b
    clipsyn split photos -o photos.csv
    clipsyn split labels.csv -o split.csv --test 0.3 --seed 1 --unlabelled unsorted
    """
    from clipsyn.images.split import SPLITS
    from clipsyn.images.split import split as divided

    division = divided(images, output, replace=replace, **values)
    say_notes(division.notes())
    sides = {name: division.labels[division.side == side] for side, name in SPLITS.items()}
    rows = [
        {"split": name, "images": len(it), "classes": len({*it[it >= 0].tolist()}) or None}
        for name, it in sides.items()
        if len(it)
    ]
    say_rows(rows)
    names = ",".join(str(row["split"]) for row in rows if row["split"] != "conflicting")
    root = division.root_beyond(output.parent)
    line = ["extract", "STORE", "-d", str(output), "-s", names]
    line += ["--data-root", str(root)] if root else []
    say(f"written to {output}: next, `{advised(*line)}`")


_FILES = click.Argument(["files"], type=click.Path(path_type=Path), nargs=-1, required=True)


@command("import", STORE, _FILES, ImportSettings, output_option())
def import_(store: Path, files: tuple[Path, ...], output: Output, **values: Any) -> None:
    """Bring predictions, logits or embeddings that were made elsewhere into STORE as cells.

    FILES are CSV, Parquet, npy, npz or pt, folders of them, what `clipsyn export` has written, or
    features of ZLaP, Tip-Adapter or CLIP_benchmark, of which all comes in at once.
    Rows are found by id, never by place (but for --row-order), among the samples of the dataset; a
    new dataset gets its samples from the file. All commands that need only predictions then show
    them beside extracted backbones.

    \b
    clipsyn import store mine.csv -d emoji-food -b mine
    clipsyn import store logits.npz -d emoji-food
    clipsyn import store zlap/features
    clipsyn import store contrast.csv -d contrast -p contrast
    """
    from clipsyn.exchange.importing import import_files, imported_table

    imported = import_files(store, files, ImportSettings(**values))
    output.show(imported, lambda shown: {"": (imported_table(shown),)})


@command("run", click.Argument(["recipe"], required=False), _DRY_RUN, jobs.ExecutorSettings)
def run(recipe: str | None, dry_run: bool, **values: Any) -> None:
    """Run the stages of RECIPE in order; what is already there is skipped.

    RECIPE is the name of one that ships with clipsyn, or a YAML file, whose form is in
    docs/recipes.md. Without it the names are listed. Relative paths in a recipe start at the folder
    where the command is run; those that ship write to runs/ in it.

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
        say_rows([{"recipe": name, "what": read_recipe(it).description} for name, it in shipped])
        return
    by_jobs, checked = pop_jobs(values), find_recipe(recipe)
    if dry_run:
        _show_plan(checked)
        return
    stop_on_sigterm()

    def started(number: int, name: str) -> None:
        if LOG.isEnabledFor(logging.INFO):
            say(f"[{number}/{len(checked.stages)}] {name}", err=True, bold=True)

    outcomes = run_recipe(checked, started, by_jobs)
    for report in [outcome.report for outcome in outcomes if outcome.report]:
        say_lines(report)
    rows = [
        {
            "stage": outcome.stage,
            "": "already there" if outcome.skipped else "done",
            "seconds": round(outcome.seconds, 1),
            "what": outcome.did,
        }
        for outcome in outcomes
    ]
    say_rows(rows)
    say(f"store: {checked.store}")


def _show_plan(recipe: Recipe) -> None:
    from clipsyn.run.stages import plan_recipe

    stages = list(plan_recipe(recipe))
    for number, stage in enumerate(stages, 1):
        say(f"[{number}/{len(stages)}] {stage.stage}", bold=True)
        if stage.plan:
            _say_plan(stage.plan)
        say_lines(f"{'already there: ' if stage.skipped else ''}{stage.did}\n")
    if costs := [stage.cost for stage in stages if stage.cost]:
        say_lines(f"in all: {Cost.sum(costs)}")
    say(f"store: {recipe.store}")


# By several jobs


def pop_jobs(values: dict[str, Any]) -> jobs.Jobs | None:
    """What does the work by jobs, whose options are taken out of `values`; None without any."""
    names = declared(jobs.ExecutorSettings)
    executor = jobs.ExecutorSettings(**{name: values.pop(name) for name in names})
    return partial(_by_jobs, executor=executor) if executor.jobs else None


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


def _by_jobs(store: Path, settings: Settings, most: float, executor: jobs.ExecutorSettings) -> None:
    """Extract or evaluate with these settings by jobs, of which no more than `most` find work.

    Raises ClusterError if a task failed.
    """
    stop_on_sigterm()
    name = "extract" if isinstance(settings, ExtractSettings) else "evaluate"
    if getattr(settings, "shard", None):
        raise UsageError("jobs get their shares themselves: leave shard=… out")
    folder, ended = jobs.LOGS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}", list[jobs.Ended]()
    if name == "extract":
        settings = settings.replaced(hashes=folder.absolute() / "hashes")
    tasks = jobs.shares([name, str(store), *words_of(settings)], int(min(executor.jobs or 1, most)))

    def on_end(task: jobs.Ended) -> None:
        ended.append(task)
        LOG.log(logging.WARNING if task.failure else logging.INFO, str(task))

    if executor.slurm:
        _on_slurm(tasks, executor, folder, on_end)
    else:
        LOG.info(f"{len(tasks)} processes; a log of each in {folder}")
        jobs.run_local(tasks, folder, on_end)
    jobs.check_all(ended)


def _on_slurm(
    tasks: Sequence[jobs.Task],
    executor: jobs.ExecutorSettings,
    folder: Path,
    on_end: jobs.OnTaskEnd,
) -> None:
    submitted = jobs.submit(tasks, lambda task: Call(task.words), executor, folder.absolute())
    number = next(iter(submitted)).partition("_")[0]
    LOG.info(f"SLURM job {number}, {len(tasks)} tasks; a log of each in {folder}")
    try:
        jobs.wait(submitted, on_end)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            f"no longer waiting: SLURM job {number} goes on, and `scancel {number}` ends it"
        ) from None


def stop_on_sigterm() -> None:
    """SIGTERM ends the command as Ctrl-C does, unless who runs it sees to the signal."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted("stopped by SIGTERM; finished blocks are kept, run the same command again")

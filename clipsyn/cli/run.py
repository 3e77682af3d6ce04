"""`clipsyn run`."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.jobs import executor_options, jobs_of, pop_executor_settings, stop_on_sigterm
from clipsyn.cli.make import say_sizes
from clipsyn.cli.options import with_options
from clipsyn.cli.output import say, say_lines, say_rows
from clipsyn.errors import UsageError

if TYPE_CHECKING:
    from clipsyn.run.recipe import Recipe
    from clipsyn.run.stages import Outcome

_LOG = logging.getLogger("clipsyn")


@click.command()
@click.argument("recipe", required=False)
@click.option("--dry-run", is_flag=True, help="Show what each stage would do and stop.")
@partial(with_options, options=executor_options)
def run(recipe: str | None, dry_run: bool, **values: Any) -> None:
    """Run the stages of RECIPE in order; what is already there is skipped.

    RECIPE is the name of one that ships with clipsyn, or a YAML file, whose form is in
    docs/recipes.md. Without it the names are listed. Relative paths in a recipe start at the folder
    where the command is run; those that ship write to runs/ in it.

    --dry-run needs neither weights nor images, and downloads and writes nothing.

    --on local and --on slurm share the stages extract and evaluate among jobs; the other stages run
    in this process, when the jobs of the stage before have ended.

    \b
    clipsyn run quickstart
    clipsyn run paper/zero-shot --dry-run
    clipsyn run path/to/recipe.yaml
    clipsyn run path/to/recipe.yaml --on slurm --jobs 16 --slurm gpus=1
    """
    from clipsyn.run.recipe import find_recipe, run_recipe

    if recipe is None:
        _list_shipped()
        return
    executor, checked = pop_executor_settings(values), find_recipe(recipe)
    if executor.of_a_job("detach"):
        raise UsageError("a stage needs what the one before has made: leave detach out of slurm=…")
    if dry_run:
        _show_plan(checked)
        return
    stop_on_sigterm()

    def started(number: int, name: str) -> None:
        if _LOG.isEnabledFor(logging.INFO):
            say(f"[{number}/{len(checked.stages)}] {name}", err=True, bold=True)

    outcomes = run_recipe(checked, started, None if executor.is_here else jobs_of(executor))
    for outcome in outcomes:
        if outcome.report:
            say_lines(outcome.report)
    _summarise(checked.store, outcomes)


def _list_shipped() -> None:
    from clipsyn.run.recipe import read_recipe, shipped_recipes

    shipped = shipped_recipes().items()
    say_rows(
        [{"recipe": name, "what it does": read_recipe(path).description} for name, path in shipped]
    )


def _show_plan(recipe: Recipe) -> None:
    from clipsyn.run.recipe import joined, plan_recipe, total
    from clipsyn.show.tables import show

    stages = list(plan_recipe(recipe))
    plans = [stage.plan for stage in stages if stage.plan]
    if plans:
        say_sizes(joined(plans))
    for number, stage in enumerate(stages, 1):
        say(f"[{number}/{len(stages)}] {stage.stage}", bold=True)
        if stage.plan:
            say_lines(show(stage.plan.table().drop("passes left")))
        say_lines(f"{'already there: ' if stage.is_there else ''}{stage.what}\n")
    if plans:
        say_lines(f"in all: {total(stages)}")
        say_lines(joined(plans).unchecked())
    say(f"store: {recipe.store}")


def _summarise(store: Path, outcomes: list[Outcome]) -> None:
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
    say(f"store: {store}")

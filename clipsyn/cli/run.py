"""`clipsyn run`."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipsyn.cli.extract import say_outlined, terminate
from clipsyn.cli.output import say, say_lines, say_rows

if TYPE_CHECKING:
    from clipsyn.recipe import Recipe
    from clipsyn.recipe.stages import Outcome

_LOG = logging.getLogger("clipsyn")


@click.command(short_help="Run the stages of a recipe.")
@click.argument("recipe", required=False)
@click.option("--dry-run", is_flag=True, help="Show what each stage would do and stop.")
def run(recipe: str | None, dry_run: bool) -> None:
    """Run the stages of RECIPE in order; what is already there is skipped.

    RECIPE is the name of one that ships with clipsyn, or a YAML file, whose form is in
    docs/recipes.md. Without it the names are listed. Relative paths in a recipe start at the folder
    where the command is run; those that ship write to runs/ in it.

    --dry-run needs neither weights nor images, and downloads and writes nothing.

    \b
    clipsyn run quickstart
    clipsyn run paper/zero-shot --dry-run
    clipsyn run path/to/recipe.yaml
    """
    from clipsyn.recipe import find_recipe, run_recipe

    if recipe is None:
        _list_shipped()
        return
    checked = find_recipe(recipe)
    if dry_run:
        _show_plan(checked)
        return
    signal.signal(signal.SIGTERM, terminate)

    def started(number: int, name: str) -> None:
        if _LOG.isEnabledFor(logging.INFO):
            say(f"[{number}/{len(checked.stages)}] {name}", err=True, bold=True)

    outcomes = run_recipe(checked, started)
    for outcome in outcomes:
        if outcome.report:
            say_lines(outcome.report)
    _summarise(checked.store, outcomes)


def _list_shipped() -> None:
    from clipsyn.recipe import read_recipe, shipped_recipes

    shipped = shipped_recipes().items()
    say_rows(
        [{"recipe": name, "what it does": read_recipe(path).description} for name, path in shipped]
    )


def _show_plan(recipe: Recipe) -> None:
    from clipsyn.recipe.plan import joined, plan_recipe, total
    from clipsyn.show.tables import show

    stages = list(plan_recipe(recipe))
    outlines = [stage.outline for stage in stages if stage.outline]
    if outlines:
        say_outlined(joined(outlines))
    for number, stage in enumerate(stages, 1):
        say(f"[{number}/{len(stages)}] {stage.stage}", bold=True)
        if stage.outline:
            say_lines(show(stage.outline.table()))
        say_lines(f"{'already there: ' if stage.is_there else ''}{stage.what}\n")
    if outlines:
        say_lines(f"in all: {total(stages)}")
        say_lines(joined(outlines).unchecked())
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

"""`clipsyn run`."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipsyn.cli.extract import terminate

if TYPE_CHECKING:
    from clipsyn.pipeline.stages import Outcome

_LOG = logging.getLogger("clipsyn")


@click.command(short_help="Run the stages of a recipe.")
@click.argument("recipe", type=click.Path(path_type=Path))
def run(recipe: Path) -> None:
    """Run the stages of RECIPE, a YAML file, in order; what is already there is skipped.

    Relative paths in a recipe start at the folder where the command is run. Recipes are in
    pipelines/, their form is in docs/recipes.md.

    \b
    clipsyn run pipelines/quickstart.yaml
    """
    from clipsyn.pipeline import read_recipe, run_recipe

    signal.signal(signal.SIGTERM, terminate)
    checked = read_recipe(recipe)

    def started(number: int, name: str) -> None:
        _LOG.info(click.style(f"[{number}/{len(checked.stages)}] {name}", bold=True))

    outcomes = run_recipe(checked, started)
    for outcome in outcomes:
        if outcome.report:
            click.echo(outcome.report)
    _summarise(checked.store, outcomes)


def _summarise(store: Path, outcomes: list[Outcome]) -> None:
    import polars as pl

    from clipsyn.report.tables import show

    rows = [
        {
            "stage": outcome.stage,
            "": "already there" if outcome.skipped else "done",
            "seconds": round(outcome.seconds, 1),
            "what": outcome.did,
        }
        for outcome in outcomes
    ]
    click.echo(show(pl.DataFrame(rows)))
    click.echo(f"store: {store}")

"""`clipsyn perturbations`."""

from __future__ import annotations

import click

from clipsyn.cli.output import say_json, say_lines


@click.command(short_help="List perturbations and their groups.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def perturbations(as_json: bool) -> None:
    """List what `clipsyn extract --perturb` can do to images, by group.

    \b
    NAME:SEVERITY     one of them, severities 1 (mild) to 5
    GROUP:SEVERITY    all of a group
    GROUP             all of a group at all severities
    """
    from clipsyn.perturb import available

    rows = [
        {
            "group": info.group,
            "perturbation": name,
            "severities": "1-5" if info.graded else "all equal",
            "version": info.version,
            "what it does": info.doc,
        }
        for name, info in available().items()
    ]
    if as_json:
        say_json(rows)
        return
    import polars

    from clipsyn.show.tables import show

    say_lines(show(polars.DataFrame(rows).drop("version")))

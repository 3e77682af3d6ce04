"""`clipsyn backbones`: the catalogue."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def backbones(as_json: bool) -> None:
    """List the backbones that clipsyn knows by name, with what they cost.

    Any other model of open_clip works too: ARCHITECTURE/TAG, hf-hub:ORG/REPO, local-dir:PATH or
    ARCHITECTURE@CHECKPOINT.
    """
    rows = _rows()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    import polars

    from clipsyn.report.tables import show

    click.echo(show(polars.DataFrame(rows, infer_schema_length=None)))
    click.echo("GFLOPs count 2 per multiply-add, for one image or one text.", err=True)


def _rows() -> list[dict[str, Any]]:
    from clipsyn.catalog.backbones import cost, known_backbones

    return [
        {"backbone": backbone.name, "collection": collection, **asdict(facts)}
        for collection, members in known_backbones().items()
        for backbone in members
        if (facts := cost(backbone.name)) is not None
    ]

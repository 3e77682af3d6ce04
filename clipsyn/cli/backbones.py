"""`clipsyn backbones`: the catalogue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from clipsyn.cli.output import say, say_json, say_lines


@click.command(short_help="List known backbones with what they cost.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def backbones(as_json: bool) -> None:
    """List the backbones that clipsyn knows by name, with what they cost.

    Any other model of open_clip works too: ARCHITECTURE/TAG, hf-hub:ORG/REPO, local-dir:PATH or
    ARCHITECTURE@CHECKPOINT.
    """
    rows = _rows()
    if as_json:
        say_json(rows)
        return
    import polars

    from clipsyn.show.tables import show

    shown = [{name: _text(value) for name, value in row.items()} for row in rows]
    say_lines(show(polars.DataFrame(shown), headers=_HEADERS, right=list(_HEADERS)))
    say("GFLOPs are for one image or one text, 2 per multiply-add; M is millions.", err=True)


_HEADERS = {
    "image_size": "pixels",
    "embed_dim": "width",
    "image_params_m": "image M",
    "text_params_m": "text M",
    "image_gflops": "image GFLOPs",
    "text_gflops": "text GFLOPs",
}


def _text(value: str | float | None) -> str:
    """Three significant digits: costs range over four orders of magnitude."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _rows() -> list[dict[str, Any]]:
    from clipsyn.catalog.backbones import cost, known_backbones

    return [
        {"backbone": backbone.name, "collection": collection, **asdict(facts)}
        for collection, members in known_backbones().items()
        for backbone in members
        if (facts := cost(backbone.name)) is not None
    ]

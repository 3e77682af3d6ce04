"""`clipsyn datasets`: the catalogue."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.output import say, say_json, say_lines
from clipsyn.cli.sentences import with_flags

if TYPE_CHECKING:
    from clipsyn.catalog.datasets import DatasetInfo

_FLAGS = {"download": "--download"}  # of `clipsyn extract`


@click.command(short_help="List known datasets with size, metric and licence.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def datasets(as_json: bool) -> None:
    """List the datasets that clipsyn knows by name, with size, metric, licence and origin.

    Any other images work too: [NAME=]PATH of a folder with a sub-folder per class, of a .csv or
    .parquet manifest (path, label, split, id), or of a webdataset. The names emoji, shipped and
    paper stand for several datasets. Nothing is downloaded unless an extraction says --download.
    """
    from clipsyn.catalog.datasets import available

    if as_json:
        rows = [
            {**asdict(info), "where": info.where, "get": with_flags(info.get, _FLAGS)}
            for info in available()
        ]
        say_json(rows)
        return
    import polars

    from clipsyn.show.tables import show

    frame = polars.DataFrame([_row(info) for info in available()], infer_schema_length=None)
    say_lines(show(frame))
    say(
        "torchvision, webdataset: found under --data-root; --json adds aliases, all splits, "
        "how to get the images, and what to watch out for.",
        err=True,
    )


def _row(info: DatasetInfo) -> dict[str, Any]:
    test = info.splits.get("test")
    return {
        "dataset": info.name,
        "classes": info.classes,
        "test n": test.n if test else None,
        "metric": info.metric,
        "licence": info.licence,
        "where": info.where,
    }

"""`clipsyn catalog`: the backbones, datasets and perturbations that are known by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.output import (
    format_of,
    format_option,
    json_option,
    say,
    say_json,
    say_tables,
)
from clipsyn.cli.sentences import with_flags

if TYPE_CHECKING:
    from clipsyn.show.table import Cell

_FLAGS = {"download": "--download"}  # of `clipsyn extract`
_HEADERS = {
    "image_size": "pixels",
    "embed_dim": "width",
    "image_params_m": "image M",
    "text_params_m": "text M",
    "image_gflops": "image GFLOPs",
    "text_gflops": "text GFLOPs",
}


@click.command(short_help="List known backbones, datasets or perturbations.")
@click.argument(
    "kind", type=click.Choice(["backbones", "datasets", "perturbations"]), metavar="KIND"
)
@format_option()
@json_option
def catalog(kind: str, as_json: bool, format: str) -> None:
    """List what clipsyn knows by name: KIND is backbones, datasets or perturbations.

    Backbones come with what they cost. Any other model of open_clip works too: ARCHITECTURE/TAG,
    hf-hub:ORG/REPO, local-dir:PATH or ARCHITECTURE@CHECKPOINT.

    Datasets come with size, metric, licence and origin. Any other images work too: [NAME=]PATH of a
    folder with a sub-folder per class, of a .csv or .parquet manifest (path, label, split, id), of
    a webdataset, or of Parquet files of Hugging Face. The names emoji, shipped and paper stand for
    several datasets. Nothing is downloaded unless an extraction says --download.

    Perturbations are what `clipsyn extract --perturb` can do to images, by group:

    \b
    NAME:SEVERITY     one of them, severities 1 (mild) to 5
    GROUP:SEVERITY    all of a group
    GROUP             all of a group at all severities

    \b
    clipsyn catalog backbones
    clipsyn catalog datasets --json
    """
    listed = {"backbones": _backbones, "datasets": _datasets, "perturbations": _perturbations}
    listed[kind](format_of(as_json, format))


def _backbones(format: str) -> None:
    from clipsyn.catalog.backbones import cost, known_backbones

    rows = [
        {"backbone": backbone.name, "collection": collection, **asdict(facts)}
        for collection, members in known_backbones().items()
        for backbone in members
        if (facts := cost(backbone.name)) is not None
    ]
    if format == "json":
        say_json(rows)
        return
    from clipsyn.show.tables import table_of

    shown = [{name: _cell(value) for name, value in row.items()} for row in rows]
    say_tables({"": (table_of(shown, headers=_HEADERS, right=list(_HEADERS)),)}, format)
    say("GFLOPs are for one image or one text, 2 per multiply-add; M is millions.", err=True)


def _cell(value: str | float | None) -> Cell:
    """Three significant digits: costs range over four orders of magnitude."""
    from clipsyn.show.table import UNKNOWN, Cell

    if value is None:
        return UNKNOWN
    return Cell(f"{value:.3g}" if isinstance(value, float) else str(value), value)


def _datasets(format: str) -> None:
    from clipsyn.catalog.datasets import available

    every = available()
    if format == "json":
        say_json(
            [
                {**asdict(info), "where": info.where, "get": with_flags(info.get, _FLAGS)}
                for info in every
            ]
        )
        return
    rows = [
        {
            "dataset": info.name,
            "classes": info.classes,
            "test n": info.splits["test"].n if "test" in info.splits else None,
            "metric": info.metric,
            "licence": info.licence,
            "where": info.where,
        }
        for info in every
    ]
    from clipsyn.show.tables import table_of

    say_tables({"": (table_of(rows),)}, format)
    say(
        "torchvision, webdataset: found under --data-root; --json adds aliases, all splits, "
        "how to get the images, and what to watch out for.",
        err=True,
    )


def _perturbations(format: str) -> None:
    from clipsyn.images.perturb import available

    rows: list[dict[str, Any]] = [
        {
            "group": info.group,
            "perturbation": name,
            "severities": "1-5" if info.graded else "all equal",
            "version": info.version,
            "what it does": info.doc,
        }
        for name, info in available().items()
    ]
    if format == "json":
        say_json(rows)
        return
    from clipsyn.show.tables import table_of

    lines = [{k: v for k, v in row.items() if k != "version"} for row in rows]
    say_tables({"": (table_of(lines),)}, format)

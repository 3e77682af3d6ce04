"""`clipsyn backbones`, `datasets` and `perturbations`: what is known by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from clipsyn.cli.output import json_option, say, say_json, say_rows
from clipsyn.cli.sentences import with_flags

_FLAGS = {"download": "--download"}  # of `clipsyn extract`
_HEADERS = {
    "image_size": "pixels",
    "embed_dim": "width",
    "image_params_m": "image M",
    "text_params_m": "text M",
    "image_gflops": "image GFLOPs",
    "text_gflops": "text GFLOPs",
}


@click.command(short_help="List known backbones with what they cost.")
@json_option
def backbones(as_json: bool) -> None:
    """List the backbones that clipsyn knows by name, with what they cost.

    Any other model of open_clip works too: ARCHITECTURE/TAG, hf-hub:ORG/REPO, local-dir:PATH or
    ARCHITECTURE@CHECKPOINT.
    """
    from clipsyn.catalog.backbones import cost, known_backbones

    rows = [
        {"backbone": backbone.name, "collection": collection, **asdict(facts)}
        for collection, members in known_backbones().items()
        for backbone in members
        if (facts := cost(backbone.name)) is not None
    ]
    if as_json:
        say_json(rows)
        return
    shown = [{name: _text(value) for name, value in row.items()} for row in rows]
    say_rows(shown, headers=_HEADERS, right=list(_HEADERS))
    say("GFLOPs are for one image or one text, 2 per multiply-add; M is millions.", err=True)


def _text(value: str | float | None) -> str:
    """Three significant digits: costs range over four orders of magnitude."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@click.command(short_help="List known datasets with size, metric and licence.")
@json_option
def datasets(as_json: bool) -> None:
    """List the datasets that clipsyn knows by name, with size, metric, licence and origin.

    Any other images work too: [NAME=]PATH of a folder with a sub-folder per class, of a .csv or
    .parquet manifest (path, label, split, id), or of a webdataset. The names emoji, shipped and
    paper stand for several datasets. Nothing is downloaded unless an extraction says --download.
    """
    from clipsyn.catalog.datasets import available

    every = available()
    if as_json:
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
    say_rows(rows)
    say(
        "torchvision, webdataset: found under --data-root; --json adds aliases, all splits, "
        "how to get the images, and what to watch out for.",
        err=True,
    )


@click.command(short_help="List perturbations and their groups.")
@json_option
def perturbations(as_json: bool) -> None:
    """List what `clipsyn extract --perturb` can do to images, by group.

    \b
    NAME:SEVERITY     one of them, severities 1 (mild) to 5
    GROUP:SEVERITY    all of a group
    GROUP             all of a group at all severities
    """
    from clipsyn.perturb import available

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
    if as_json:
        say_json(rows)
    else:
        say_rows([{k: v for k, v in row.items() if k != "version"} for row in rows])

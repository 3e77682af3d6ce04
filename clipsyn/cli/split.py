"""`clipsyn split`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.declared import settings_options
from clipsyn.cli.options import Destination, with_options
from clipsyn.cli.output import say, say_rows
from clipsyn.images.settings import SplitSettings
from clipsyn.text import advised

if TYPE_CHECKING:
    from clipsyn.images.split import Division


def _split(images: Path, *, output: Path, replace: bool, **values: Any) -> None:
    from clipsyn.images.split import split as divided

    division = divided(images, output, replace=replace, **values)
    for note in division.notes():
        say(f"note: {note}", fg="yellow", err=True)
    rows = _rows(division)
    say_rows(rows)
    names = ",".join(row["split"] for row in rows if row["split"] != "conflicting")
    root = division.root_beyond(output.parent)
    line = ["extract", "STORE", "-d", str(output), "-s", names]
    line += ["--data-root", str(root)] if root else []
    say(f"written to {output}: next, `{advised(*line)}`")


def _rows(division: Division) -> list[dict[str, Any]]:
    """Images and classes of each split that has any."""
    from clipsyn.images.split import SPLITS

    rows = []
    for side, name in SPLITS.items():
        labels = division.labels[division.side == side]
        classes = len({*labels[labels >= 0].tolist()})
        if len(labels):
            rows.append({"split": name, "images": len(labels), "classes": classes or None})
    return rows


split = click.command(
    "split",
    short_help="Divide labelled images into train and test.",
    help="""\
Divide the labelled images of IMAGES, a folder or a manifest, into train and test.

Writes a manifest for `clipsyn extract`, with the column split, and its class names beside it. Each
class has the same share in test. Images of the same content are on the same side. Unlabelled images
(no label in a manifest, beside the class folders in a folder) are kept apart as the split
unlabelled; images with several labels as conflicting. See docs/datasets.md.

\b
clipsyn split photos -o photos.csv
clipsyn split labels.csv -o split.csv --test 0.3 --seed 1 --unlabelled unsorted""",
)(
    with_options(
        _split,
        [
            click.argument("images", type=click.Path(path_type=Path)),
            click.option(
                "-o",
                "--output",
                type=Destination(),
                required=True,
                help="The manifest to write, .csv or .parquet.",
            ),
            *settings_options(SplitSettings),
            click.option("--replace", is_flag=True, help="Replace a manifest that is there."),
        ],
    )
)

"""`clipsyn import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.cli.declared import settings_command
from clipsyn.cli.options import Report, report_options
from clipsyn.exchange.importing.settings import ImportSettings

_FILES = click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)


def _import(store: Path, files: tuple[Path, ...], *, report: Report, **values: Any) -> None:
    from clipsyn.exchange.importing.summary import imported_table
    from clipsyn.exchange.importing.write import import_files

    imported = import_files(store, files, ImportSettings(**values))
    report.show(imported, lambda shown: {"": (imported_table(shown),)})


import_ = settings_command(
    "import",
    ImportSettings,
    report_options(_import, formats=()),
    short="Bring predictions made elsewhere into a store.",
    about="""\
Bring predictions, logits or embeddings that were made elsewhere into STORE as cells.

FILES are CSV, Parquet, npy, npz or pt, folders of them, folders of clip-retrieval, or what
`clipsyn export` has written. Rows are found by id, never by place (but for --row-order), among the
samples of the dataset; a new dataset gets its samples from the file. All commands that need only
predictions then show them beside extracted backbones.""",
    examples=(
        "clipsyn import store mine.csv -d emoji-food -b mine",
        "clipsyn import store logits.npy -d emoji-food --kind logits --ids ids.txt",
        "clipsyn import store features/Food101-ViT-B-32 -d food101 --row-order",
        "clipsyn import store contrast.csv -d contrast -p contrast",
    ),
    arguments=[_FILES],
)

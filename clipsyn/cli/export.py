"""`clipsyn export`."""

from __future__ import annotations

from pathlib import Path

import click

from clipsyn.cli.options import cell_filters, store_argument
from clipsyn.cli.output import say
from clipsyn.exchange.exporting import LAYOUTS
from clipsyn.text import counted


@click.command(short_help="Write cells as files for other tools.")
@store_argument
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=LAYOUTS[0],
    show_default=True,
    help="Whose files: see above.",
)
@cell_filters()
def export(store: Path, output: Path, layout: str, **filters: tuple[str, ...] | None) -> None:
    """Write cells of STORE into the new folder OUTPUT, for other tools or as a data set.

    \b
    npz           one file a cell
    huggingface   parquet with a card, as the library datasets and the hub read

    The numbers have the bits of the store's, and `clipsyn import STORE OUTPUT` reads them back.

    \b
    clipsyn export store embeddings -d emoji-food -b tiny-RN/zoo
    clipsyn export store for-the-hub --layout huggingface -p clean
    """
    from clipsyn.exchange.exporting.export import export as write
    from clipsyn.show.progress import progress
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.select import select

    opened = FeatureStore.open(store)
    with progress() as counters:
        manifest = write(opened, output, select(opened, **filters), layout, counters)
    cells = len(manifest.cells)
    say(f"{counted(cells, 'cell')} written to {output}, with README.md and export.json")

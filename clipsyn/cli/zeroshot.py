"""`clipsyn zeroshot`."""

from __future__ import annotations

from pathlib import Path

import click

from clipsyn.cli.options import listed, output_options, say_left_out, say_written

_NAMES = "Names or patterns such as '{}', repeated or with commas.  [default: all]"


@click.command(short_help="Zero-shot accuracy of what a store holds.")
@click.argument("store", type=click.Path(path_type=Path), envvar="CLIPSYN_STORE")
@click.option("-d", "--dataset", "datasets", multiple=True, help=_NAMES.format("emoji-*"))
@click.option(
    "-s",
    "--split",
    "splits",
    multiple=True,
    default=["test"],
    show_default=True,
    help="Repeated or with commas.",
)
@click.option("-p", "--perturb", "perturbations", multiple=True, help=_NAMES.format("jpeg-*"))
@click.option("-b", "--backbones", multiple=True, help=_NAMES.format("*/openai"))
@click.option("--prompts", multiple=True, help="Prompt sets.  [default: all]")
@click.option("--summary", is_flag=True, help="One table for everything: a line a dataset.")
@output_options
def zeroshot(
    store: Path,
    *,
    summary: bool,
    as_json: bool,
    csv: Path | None,
    parquet: Path | None,
    **filters: tuple[str, ...],
) -> None:
    """Zero-shot accuracy of every backbone in STORE: top-1 with a 95 % interval, top-5, mean per
    class, n; and of the oracle, which for each image knows a backbone that gets it right.

    Needs no image, no model and no GPU.

    \b
    clipsyn zeroshot store
    clipsyn zeroshot store -d 'emoji-*' -p clean,jpeg-3 --summary
    clipsyn zeroshot store --json --csv results.csv
    """
    from clipsyn import evaluate, frames
    from clipsyn.report import tables
    from clipsyn.store.features import FeatureStore

    opened = FeatureStore.open(store)
    wanted = {name: listed(texts) for name, texts in filters.items()}
    frame = evaluate.zeroshot(opened, **wanted)
    frames.write(frame, csv=csv, parquet=parquet)
    if as_json:
        click.echo(frames.to_json(frame))
    else:
        click.echo(tables.accuracy_table(frame) if summary else tables.backbone_tables(frame))
    if wanted["datasets"] is None:
        say_left_out(opened, frame)
    say_written(frame, csv, parquet)

"""`clipsyn robustness`."""

from __future__ import annotations

from pathlib import Path

import click

from clipsyn.cli.options import listed, output_options, say_left_out, say_written

_NAMES = "Names or patterns such as '{}', repeated or with commas.  [default: all]"


@click.command(short_help="What perturbations do to accuracy, order and ensembles.")
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
@click.option(
    "--reference",
    help="Backbone that corruption errors are divided by.  [default: the weakest on clean images]",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Results of `clipsyn evaluate -p '*' -o`: show the ensembles in it.",
)
@click.option("--head", default="zero-shot", show_default=True, help="Head of those ensembles.")
@click.option(
    "--shots",
    help="Images a class of those ensembles, or full for the whole support.  [default: the most]",
)
@click.option("--details", is_flag=True, help="All tables, of each dataset too.")
@output_options
def robustness(
    store: Path,
    *,
    reference: str | None,
    results: Path | None,
    head: str,
    shots: str | None,
    details: bool,
    as_json: bool,
    csv: Path | None,
    parquet: Path | None,
    **filters: tuple[str, ...],
) -> None:
    """What perturbations do to the backbones in STORE, with zero-shot predictions.

    Accuracy, its drop, relative robustness and corruption error (mCE); which backbone is best under
    which perturbation, and whether their order changes; the gain of the oracle, and with --results
    of ensembles, under perturbation; curves by severity. Several datasets are shown by their mean;
    --csv, --parquet and --json have everything with intervals.

    \b
    clipsyn robustness store
    clipsyn robustness store -d emoji-food -p 'fog-*,jpeg-*' --details
    clipsyn robustness store --reference tiny-RN/zoo --results results.parquet --csv robustness.csv
    """
    from clipsyn import frames
    from clipsyn.evaluate.robustness import robustness as measure
    from clipsyn.report.robustness import tables
    from clipsyn.store.features import FeatureStore

    opened = FeatureStore.open(store)
    wanted = {name: listed(texts) for name, texts in filters.items()}
    frame = measure(opened, **wanted, reference=reference, results=results, head=head, shots=shots)
    frames.write(frame, csv=csv, parquet=parquet)
    if as_json:
        click.echo(frames.to_json(frame))
    else:
        click.echo("\n\n".join(tables(frame, details=details).values()))
    if wanted["datasets"] is None:
        say_left_out(opened, frame, "labels, perturbed images")
    say_written(frame, csv, parquet)

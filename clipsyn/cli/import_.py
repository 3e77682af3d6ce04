"""`clipsyn import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.cli.options import Report, list_option, report_options, store_argument
from clipsyn.errors import UsageError

_PATH = click.Path(path_type=Path)
_ROLES = ("id", "prediction", "confidence", "label", "backbone", "perturbation", "severity")
_GUESSED = "Column of {}, if it is not called as usual."


def _column_options(command: Any) -> Any:
    about = {
        "id": "the sample ids",
        "prediction": "the predicted classes",
        "confidence": "the probabilities of the predicted classes",
        "label": "the true classes",
        "backbone": "the backbones' names",
        "perturbation": "perturbations such as jpeg-3",
        "severity": "severities of --perturb",
    }
    for role in reversed(_ROLES):
        text = _GUESSED.format(about[role])
        command = click.option(f"--{role}-column", metavar="NAME", help=text)(command)
    return command


@click.command("import", short_help="Bring predictions made elsewhere into a store.")
@store_argument
@click.argument("files", type=_PATH, nargs=-1, required=True)
@click.option(
    "-d",
    "--dataset",
    help="What of: a dataset of the store, or a new one.  [default: the experiment of "
    "model-vs-human that each file is called after]",
)
@click.option("-s", "--split", default="test", show_default=True, help="Which part of it.")
@click.option(
    "-p",
    "--perturb",
    "perturbation",
    default="clean",
    show_default=True,
    help="NAME:SEVERITY of all rows; NAME alone where a column has the severities.",
)
@click.option(
    "-b", "--backbone", help="What made it.  [default: as a column says, or the file's name]"
)
@click.option(
    "--kind",
    type=click.Choice(["auto", "predictions", "logits", "probabilities", "embeddings"]),
    default="auto",
    show_default=True,
    help="What the numbers are.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["auto", "model-vs-human", "vlm-shapebias"]),
    default="auto",
    show_default=True,
    help="Whose files they are; these two sources' are known by their columns.",
)
@click.option(
    "--na",
    type=click.Choice(["wrong", "left-out"]),
    default="wrong",
    show_default=True,
    help="What model-vs-human's answer na is: wrong, as there, or no prediction.",
)
@click.option("--prompts", help="Prompt set that the predictions were made with.")
@click.option("--ids", type=_PATH, help="Sample ids of an npy: one a line, an npy, or a table.")
@click.option("--row-order", is_flag=True, help="Rows without ids are the samples in their order.")
@click.option("--labels", type=_PATH, help="True classes of an npy, in the same forms as --ids.")
@click.option("--classes", type=_PATH, help="Class names by index: one a line, or a JSON list.")
@_column_options
@list_option(
    "--conditions",
    help="Which perturbation a condition is: c100=clean,c50=contrast:2. Repeated or with commas.",
)
@list_option(
    "--names",
    help="What to call the backbones of the files: clip=ViT-B-32. Repeated or with commas.",
)
@click.option("--intersect", is_flag=True, help="Take the ids in common; the rest has no value.")
@click.option("--replace", is_flag=True, help="Replace what was imported under the same names.")
@report_options
def import_(
    store: Path,
    *,
    files: tuple[Path, ...],
    dataset: str | None,
    format_: str,
    conditions: tuple[str, ...] | None,
    names: tuple[str, ...] | None,
    report: Report,
    **options: Any,
) -> None:
    """Bring predictions, logits or embeddings that were made elsewhere into STORE as cells.

    FILES are CSV, Parquet, npy, npz or pt, or folders of them. Rows are found by id, never by place
    (but for --row-order), among the samples of the dataset; a new dataset gets its samples from
    the file. All commands that need only predictions then show them beside extracted backbones.

    \b
    clipsyn import store mine.csv -d emoji-food -b mine
    clipsyn import store logits.npy -d emoji-food --kind logits --ids ids.txt
    clipsyn import store features/Food101-ViT-B-32 -d food101 --row-order
    clipsyn import store raw-data/contrast
    """
    from clipsyn.importing.parts import Wanted
    from clipsyn.importing.summary import imported_table
    from clipsyn.importing.write import import_files

    columns = {role: options.pop(f"{role}_column") for role in _ROLES}
    named = {role: name for role, name in columns.items() if name}
    wanted = Wanted(
        dataset or "",
        by_experiment=dataset is None,
        format=format_,
        columns=named,
        conditions=_pairs("--conditions", conditions, "c100=clean"),
        names=_pairs("--names", names, "clip=ViT-B-32"),
        **options,
    )
    frame = import_files(store, files, wanted)
    report.show(frame, imported_table)


def _pairs(option: str, texts: tuple[str, ...] | None, example: str) -> dict[str, str]:
    """``HERE=THERE`` by what stands on the left."""
    pairs = {}
    for text in texts or ():
        here, equals, there = text.partition("=")
        if not (here and equals and there):
            raise UsageError(f"{option} '{text}': write {_PAIRS[option]}, as in {example}")
        pairs[here.strip()] = there.strip()
    return pairs


_PAIRS = {"--conditions": "CONDITION=PERTURBATION", "--names": "OLD=NEW"}

"""`clipsyn import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.cli.options import Report, list_option, report_options, store_argument
from clipsyn.errors import UsageError

_PATH = click.Path(path_type=Path)
_ROLES = ("id", "prediction", "label", "backbone", "perturbation", "severity")
_GUESSED = "Column of {}, if it is not called as usual."


def _column_options(command: Any) -> Any:
    about = {
        "id": "the sample ids",
        "prediction": "the predicted classes",
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
    "-d", "--dataset", required=True, help="What of: a dataset of the store, or a new one."
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
    type=click.Choice(["auto", "model-vs-human"]),
    default="auto",
    show_default=True,
    help="What the files are; model-vs-human's responses are known by their columns.",
)
@click.option("--ids", type=_PATH, help="Sample ids of an npy: one a line, an npy, or a table.")
@click.option("--row-order", is_flag=True, help="Rows without ids are the samples in their order.")
@click.option("--labels", type=_PATH, help="True classes of an npy, in the same forms as --ids.")
@click.option("--classes", type=_PATH, help="Class names by index: one a line, or a JSON list.")
@_column_options
@list_option(
    "--conditions",
    help="Which perturbation a condition is: c100=clean,c50=contrast:2. Repeated or with commas.",
)
@click.option("--intersect", is_flag=True, help="Take the ids in common; the rest has no value.")
@click.option("--replace", is_flag=True, help="Replace what was imported under the same names.")
@report_options
def import_(
    store: Path,
    *,
    files: tuple[Path, ...],
    format_: str,
    conditions: tuple[str, ...] | None,
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
    clipsyn import store raw-data/contrast -d contrast -p contrast --conditions c100=clean
    """
    from clipsyn.importing.parts import Wanted
    from clipsyn.importing.write import import_files
    from clipsyn.report.imported import imported_table

    columns = {role: options.pop(f"{role}_column") for role in _ROLES}
    named = {role: name for role, name in columns.items() if name}
    wanted = Wanted(format=format_, columns=named, conditions=_pairs(conditions), **options)
    frame = import_files(store, files, wanted)
    report.show(frame, lambda: imported_table(frame))


def _pairs(texts: tuple[str, ...] | None) -> dict[str, str]:
    """``CONDITION=PERTURBATION`` by condition."""
    pairs = {}
    for text in texts or ():
        condition, equals, perturbation = text.partition("=")
        if not (condition and equals and perturbation):
            raise UsageError(
                f"--conditions '{text}': write CONDITION=PERTURBATION, as in c100=clean"
            )
        pairs[condition.strip()] = perturbation.strip()
    return pairs

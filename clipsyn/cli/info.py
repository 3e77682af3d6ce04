"""`clipsyn info` and `catalog`: where cells come from, and what is known by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import STORE, cell_filters, command, flag, json_option, output_option
from clipsyn.cli.output import (
    STDOUT,
    Output,
    say,
    say_document,
    say_json,
    say_lines,
    say_notes,
    say_tables,
    with_flags,
)
from clipsyn.errors import UsageError
from clipsyn.text import counted, few, printable

if TYPE_CHECKING:
    from clipsyn.exchange.origins import Made, Run
    from clipsyn.show.table import Tables


def _say_citations(cells: Sequence[Made], output: Output) -> None:
    """What to cite for cells, as BibTeX; what nothing is known for, on standard error."""
    from clipsyn.exchange.origins import citations

    found = citations(cells)
    if not output.json(found.json()):
        say_document(found.bibtex())
        say_notes(found.unknown)


def _say_provenance(cells: Sequence[Made], output: Output) -> None:
    """How cells were made, and of which weights and images, each once."""
    from clipsyn.exchange.card import images_table, weights_table
    from clipsyn.exchange.origins import distinct_runs

    if output.json([cell.json() for cell in cells]):
        return
    for number, (run, made) in enumerate(distinct_runs(cells).items(), 1):
        say_lines(f"{number}. {printable(_cells(made))}")
        for line in _run(run, made):
            say(f"   {line}")
        say("")
    say_tables({"": (weights_table(cells), images_table(cells))})


def _cells(made: Sequence[Made]) -> str:
    if len(made) == 1:
        return str(made[0].key)
    counts = (
        counted(len({getattr(cell.key, field) for cell in made}), field)
        for field in ("backbone", "dataset", "perturbation")
    )
    return f"{len(made):,} cells: {', '.join(counts)}"


def _run(run: Run, made: Sequence[Made]) -> Iterator[str]:
    yield from run.commands or ("command: not recorded",)
    whens = sorted(cell.when for cell in made if cell.when)
    when = " to ".join(dict.fromkeys((whens[0], whens[-1]))) if whens else "date: not recorded"
    hosts = list(dict.fromkeys(host for cell in made for host in cell.run.hosts))
    yield f"{when} on {few(hosts)}" if hosts else when
    if run.made_by:
        yield f"made by: {run.made_by}"
    versions = ", ".join(f"{name} {version}" for name, version in run.versions)
    yield versions or "versions: not recorded"
    if run.device:
        yield f"device: {run.device}"


_FLAGS = {"download": "--download"}  # of `clipsyn extract`
_HEADERS = {
    "image_size": "pixels",
    "embed_dim": "width",
    "image_params_m": "image M",
    "text_params_m": "text M",
    "image_gflops": "image GFLOPs",
    "text_gflops": "text GFLOPs",
}


_KIND = click.Choice(["backbones", "datasets", "perturbations"])


@command("catalog", [click.Argument(["kind"], type=_KIND, metavar="KIND"), output_option()])
def catalog(kind: str, output: Output) -> None:
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
    clipsyn catalog datasets -o -
    """
    listed = {"backbones": _backbones, "datasets": _datasets, "perturbations": _perturbations}
    rows, shown, note = listed[kind]()

    def tables(_rows: object) -> dict[str, Tables]:
        from clipsyn.show.tables import table_of

        return {"": (table_of(shown, headers=_HEADERS, right=[*_HEADERS]),)}

    output.show(rows, tables)
    if note and STDOUT not in output.files:
        say(note, err=True)


Rows = list[dict[str, Any]]  # as they are written to a file, or as a table shows them


def _backbones() -> tuple[Rows, Rows, str]:
    from clipsyn.catalog.backbones import cost, known_backbones
    from clipsyn.show.table import UNKNOWN, Cell

    rows = [
        {"backbone": backbone.name, "collection": collection, **asdict(facts)}
        for collection, members in known_backbones().items()
        for backbone in members
        if (facts := cost(backbone.name)) is not None
    ]

    def cell(value: str | float | None) -> Cell:
        """Three significant digits: costs range over four orders of magnitude."""
        if value is None:
            return UNKNOWN
        return Cell(f"{value:.3g}" if isinstance(value, float) else str(value), value)

    shown = [{name: cell(value) for name, value in row.items()} for row in rows]
    note = "GFLOPs are for one image or one text, 2 per multiply-add; M is millions."
    return rows, shown, note


def _datasets() -> tuple[Rows, Rows, str]:
    from clipsyn.catalog.datasets import catalogue

    rows = [
        {**asdict(info), "where": info.where, "get": with_flags(info.get, _FLAGS)}
        for info in catalogue()
    ]
    shown = [
        {
            "dataset": row["name"],
            "classes": row["classes"],
            "test n": row["splits"].get("test", {}).get("n"),
            **{name: row[name] for name in ("metric", "licence", "where")},
        }
        for row in rows
    ]
    note = (
        "torchvision, webdataset: found under --data-root; `-o -` adds aliases, all splits, "
        "how to get the images, and what to watch out for."
    )
    return rows, shown, note


def _perturbations() -> tuple[Rows, Rows, str]:
    from clipsyn.images.perturb import INFO

    rows: Rows = [
        {
            "group": info.group,
            "perturbation": name,
            "severities": "1-5" if info.graded else "all equal",
            "version": info.version,
            "what it does": info.doc,
        }
        for name, info in INFO.items()
    ]
    return rows, [{k: v for k, v in row.items() if k != "version"} for row in rows], ""


@command(
    "info",
    [
        STORE,
        click.Argument(["group"], required=False),
        flag(["--provenance"], help="Who made the cells, of what, on whose terms."),
        flag(["--bibtex"], help="What to cite for the cells."),
        *cell_filters("With --provenance or --bibtex, as all filters: of which cells."),
        json_option,
    ],
)
def info(
    store: Path,
    group: str | None,
    provenance: bool,
    bibtex: bool,
    output: Output,
    **filters: tuple[str, ...] | None,
) -> None:
    """Say as JSON how STORE was made: format, backbones, datasets; or all about one GROUP.

    With --provenance: by which command, versions and device each cell was made, and when; from
    which weights and images, and under which licence.

    With --bibtex: what to cite for the cells, which is the method and the software, weights by
    their tags, datasets and perturbations of the catalogue. What nothing is known for is named on
    standard error.

    \b
    clipsyn info store
    clipsyn info store features/emoji-food/test/clean/tiny-RN--zoo
    clipsyn info store --provenance -d emoji-food -b tiny-RN/zoo
    clipsyn info store --bibtex -d food101 -b 'ViT-*'
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import describe, describe_group
    from clipsyn.store.select import select

    opened = FeatureStore.open(store)
    chosen = {name: names for name, names in filters.items() if names}
    if provenance and bibtex:
        raise UsageError("give one of --provenance and --bibtex")
    if provenance or bibtex:
        if group:
            raise UsageError("--provenance and --bibtex take filters, no GROUP")
        from clipsyn.exchange.origins import made

        cells = made(opened, select(opened, **filters))
        (_say_citations if bibtex else _say_provenance)(cells, output)
        return
    if chosen:
        raise UsageError(
            "filters choose cells for --provenance or --bibtex: add one, or give a GROUP"
        )
    described = describe_group(opened, group) if group else describe(opened)
    if not output.json(described):
        say_json(described)

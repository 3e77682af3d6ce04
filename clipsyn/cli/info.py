"""`clipsyn info` and `catalog`: where cells come from, and what is known by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import STORE, cell_filters, command, flag, json_option, output_option
from clipsyn.cli.output import STDOUT, Output, as_json, say, say_document, say_notes, say_tables
from clipsyn.errors import UsageError
from clipsyn.names import FeatureKey
from clipsyn.text import counted, few

if TYPE_CHECKING:
    from clipsyn.exchange.provenance import Made
    from clipsyn.show.table import Tables

Rows = list[dict[str, Any]]


@command(
    "info",
    STORE,
    click.Argument(["group"], required=False),
    flag(["--provenance"], help="Who made the cells, of what, on whose terms."),
    flag(["--bibtex"], help="What to cite for the cells."),
    *cell_filters(),
    json_option,
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

    Filters choose cells for these two.

    \b
    clipsyn info store
    clipsyn info store features/emoji-food/test/clean/tiny-RN--zoo
    clipsyn info store --provenance -d emoji-food -b tiny-RN/zoo
    clipsyn info store --bibtex -d food101 -b 'ViT-*'
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import describe, describe_group
    from clipsyn.store.select import select

    if sum([bool(group), provenance, bibtex]) > 1:
        raise UsageError("give one of --provenance, --bibtex and a GROUP")
    opened = FeatureStore.open(store)
    if provenance or bibtex:
        from clipsyn.exchange.provenance import made

        cells = made(opened, select(opened, **filters))
        (_say_citations if bibtex else _say_provenance)(cells, output)
    elif any(filters.values()):
        raise UsageError("filters choose cells for --provenance or --bibtex: add one")
    else:
        described = describe_group(opened, group) if group else describe(opened)
        if not output.json(described):
            say_document(as_json(described))


def _say_citations(cells: Sequence[Made], output: Output) -> None:
    """What to cite for cells, as BibTeX; what nothing is known for, on standard error."""
    from clipsyn.exchange.provenance import bibtex, cited, not_cited

    works = [
        {"key": known.key, "kind": known.kind, **known.fields, "for": reasons}
        for known, reasons in cited(cells)
    ]
    if not output.json({"works": works, "unknown": not_cited(cells)}):
        say_document(bibtex(cells))
        say_notes(not_cited(cells))


def _say_provenance(cells: Sequence[Made], output: Output) -> None:
    """How cells were made, and of which weights and images, each once."""
    from clipsyn.exchange.provenance import images_table, runs, weights_table

    if output.json(cells):
        return
    for number, made in enumerate(runs(cells), 1):
        whens = sorted(cell["made"] for cell in made if cell["made"])
        first = made[0]
        about = {
            "command": "; ".join(first["commands"]) or "not recorded",
            "made": " to ".join(dict.fromkeys((*whens[:1], *whens[-1:]))) or "not recorded",
            "on": few(list(dict.fromkeys(host for cell in made for host in cell["hosts"]))),
            "by": first["made_by"],
            "versions": ", ".join(map(" ".join, first["versions"].items())) or "not recorded",
            "device": first["device"],
        }
        say(f"{number}. {_cells(made)}")
        for what, said in about.items():
            if said:
                say(f"   {what}: {said}")
        say("")
    say_tables({"": (weights_table(cells), images_table(cells))})


def _cells(made: Sequence[Made]) -> str:
    if len(made) == 1:
        names = ("dataset", "split", "perturbation", "backbone")
        return str(FeatureKey(*(made[0][name] for name in names)))
    counts = (
        counted(len({cell[field] for cell in made}), field)
        for field in ("backbone", "dataset", "perturbation")
    )
    return f"{len(made):,} cells: {', '.join(counts)}"


_OF_DATASETS = ("name", "classes", "test n", "metric", "licence", "where")  # in the table
_KIND = click.Choice(["backbones", "datasets", "perturbations"])


@command("catalog", click.Argument(["kind"], type=_KIND, metavar="KIND"), output_option())
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
    rows, note = listed[kind]()
    output.show(rows, _catalog_tables)
    if note and STDOUT not in output.files:
        say(note, err=True)


def _catalog_tables(rows: Rows) -> dict[str, Tables]:
    from clipsyn.show.table import UNKNOWN, Cell
    from clipsyn.show.tables import table_of

    def cell(value: Any) -> Any:
        """Three significant digits: costs range over four orders of magnitude."""
        if value is None:
            return UNKNOWN
        return Cell(f"{value:.3g}", value) if isinstance(value, float) else value

    names = _OF_DATASETS if "metric" in rows[0] else [*rows[0]]
    numbers = [name for name in names if any(isinstance(row[name], int | float) for row in rows)]
    heads = {name: name.replace("_", " ") for name in names}
    shown = [{name: cell(row[name]) for name in names} for row in rows]
    return {"": (table_of(shown, headers=heads, right=numbers),)}


def _backbones() -> tuple[Rows, str]:
    from clipsyn.catalog.backbones import cost, known_backbones

    rows = [
        {"backbone": backbone.name, "collection": collection, **asdict(facts)}
        for collection, members in known_backbones().items()
        for backbone in members
        if (facts := cost(backbone.name)) is not None
    ]
    return rows, "GFLOPs are for one image or one text, 2 per multiply-add; M is millions."


def _datasets() -> tuple[Rows, str]:
    from clipsyn.catalog.datasets import catalogue

    rows = [
        {
            **asdict(it),
            "test n": it.splits["test"].n if "test" in it.splits else None,
            "where": it.where,
            "get": it.get.replace("download=True", "--download"),
        }
        for it in catalogue()
    ]
    note = (
        "torchvision, webdataset: found under --data-root; `-o -` adds aliases, all splits, "
        "how to get the images, and what to watch out for."
    )
    return rows, note


def _perturbations() -> tuple[Rows, str]:
    from clipsyn.images.perturb import INFO

    rows = [
        {
            "group": it.group,
            "perturbation": name,
            "severities": "1-5" if it.graded else "all equal",
            "version": it.version,
            "what it does": it.doc,
        }
        for name, it in INFO.items()
    ]
    return rows, ""

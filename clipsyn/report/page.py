"""The page: one HTML file that needs nothing else, and asks for nothing."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from clipsyn import __version__
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import WHERE
from clipsyn.exchange.provenance import made, weights_table
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.names import CLEAN, FeatureKey
from clipsyn.report import FIGURES, ReportSettings, tables
from clipsyn.report.evidence import EVALUATE, Evidence, gather, without_folders
from clipsyn.report.standings import answer, backbones, leading, main_part, methods
from clipsyn.settings import takes
from clipsyn.show.figure import Figure, image_of
from clipsyn.show.files import check_place, written_whole
from clipsyn.show.table import NOTHING, Cell, Column, Table
from clipsyn.show.titles import title, where
from clipsyn.store.features import FeatureStore, opened
from clipsyn.store.overlap import alike_notes, image_notes, sample_tables
from clipsyn.text import advised, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_MOST_PARTS = 6  # datasets that a figure of one dataset is drawn for
_WIDE = 4.5  # inches, from which on a figure has the page's width
_FEW = 100  # labelled images, below which an interval spans ten points and more
_SECTIONS: dict[str, Sequence[str]] = {  # with their figures
    "alone": ["accuracy-matrix"],
    "combined": ["chosen", "gains", "few-shot", "router-weights"],
    "together": ["upset", "venn", "error-consistency", "cka"],
    "perturbed": ["severity", "corruptions"],
    "cost": ["pareto"],
    "certainty": ["reliability", "coverage"],
}


def sections(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """What each section shows, by the name that the template knows it by; empty ones are left out.

    Of each may be there: tables, drawings, gallery, points.
    """
    results = evidence.frames.get(EVALUATE)
    compared = [] if results is None else methods(results)
    over = "the backbone that is best on the "
    over += "support" if evidence.has_support else "images that it is measured on"
    placed = {name for figures in _SECTIONS.values() for name in figures}
    figures = _SECTIONS | {"more": [name for name in FIGURES if name not in placed]}
    every: dict[str, dict[str, Any]] = {
        name: {"drawings": [*_drawn(names, evidence)]} for name, names in figures.items()
    }
    frame = evidence.frames.get("zeroshot", pl.DataFrame())
    if len(frame) and backbones(frame):  # else no image of theirs is readable
        both = tables.backbone_table(evidence), tables.dataset_table(evidence, leading(compared))
        every["alone"]["tables"] = both
    every["combined"]["tables"] = [tables.method_table(compared, over)] if compared else []
    if evidence.settings.images:
        every["images"] = {"gallery": tables.gallery(evidence)}
    every["caveats"] = {"points": rendered("caveats.html", **caveats(evidence)).strip()}
    weights = weights_table(made(evidence.store, evidence.keys), "Backbones and their weights")
    every["provenance"] = {"tables": [weights, tables.image_table(evidence)]}
    nothing: dict[str, Any] = {"tables": [], "drawings": [], "gallery": None, "points": ""}
    return {name: nothing | it for name, it in every.items() if any(it.values())}


def _drawn(names: Sequence[str], evidence: Evidence) -> Iterator[dict[str, Any]]:
    for name in names:
        if name in FIGURES:
            frame = _frame(name, evidence)
            yield from () if frame is None else drawings(name, frame)


def _frame(name: str, evidence: Evidence) -> pl.DataFrame | None:
    """What a figure shows: the numbers of its analysis, and gains on the first head there is."""
    results = evidence.frames.get(EVALUATE)
    if name != "gains" or results is None:
        return evidence.frames.get(FIGURES.load(name).source)
    heads = results["head"].unique(maintain_order=True).to_list()
    return main_part(results.filter(head=next(it for it in heads if it != CHOSEN)))


def drawings(name: str, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """A figure of a frame; one for each dataset where it cannot show several.

    Empty where the frame has nothing for it to show.
    """
    figure: Figure = FIGURES.load(name)
    for whole in (frame, main_part(frame)):
        data = _data(figure, whole)
        if data is not None:
            return [_drawing(figure, data)]
    parts = main_part(frame).drop_nulls("dataset").partition_by(WHERE)
    there = [(part, data) for part in parts if (data := _data(figure, part)) is not None]
    return [
        _drawing(figure, data, title(*where(part.row(0, named=True), WHERE)))
        for part, data in there[:_MOST_PARTS]
    ]


def _data(figure: Figure, frame: pl.DataFrame) -> pl.DataFrame | None:
    """What the figure draws; None where the frame lacks it, or has too much for one figure."""
    try:
        return figure.data(frame)
    except UsageError:
        return None


def _drawing(figure: Figure, data: pl.DataFrame, about: str = "") -> dict[str, Any]:
    """A figure with its caption and the numbers that it shows.

    about: the dataset that it is of; empty for all.
    """
    drawn = b64encode(image_of(cast("Canvas", figure(data).figure), "svg")).decode()
    rest = f"{advised('plot', figure.name)} writes them all to a CSV file."
    short = f"{figure.short} {about}".strip()
    return {
        "name": figure.name,
        "about": about,
        "short": short,
        "caption": figure.text(data),
        "source": f"data:image/svg+xml;base64,{drawn}",
        "numbers": tables.numbers_of(data, f"The numbers of this figure. {short}", rest),
        "is_wide": figure.size(data)[0] > _WIDE,
    }


def caveats(evidence: Evidence) -> dict[str, Any]:
    """What the template says of things that make numbers weaker than they look."""
    places, keys = evidence.splits, dict.fromkeys(evidence.keys)
    frame = evidence.frames.get("zeroshot", pl.DataFrame({"dataset": [], "prompts": []}))
    names = dict.fromkeys(key.backbone for key in keys)
    holes = [
        key
        for place in places
        for label, name in product(place.perturbations, names)
        if (key := FeatureKey(place.samples.dataset, place.samples.split, label, name)) not in keys
    ]
    alike = dict.fromkeys(
        note
        for place in places
        for prompts in _sets(frame.filter(dataset=place.samples.dataset)).sort()
        for note in alike_notes(evidence.store, place.samples.dataset, prompts, place.backbones)
    )
    shared = [] if frame.is_empty() else image_notes(sample_tables(evidence.store, frame))
    first = evidence.store.extract_line(holes[0]) if holes else ""
    return {
        "unlabelled": [place.samples.name for place in places if not place.labelled],
        "small": [
            f"{place.samples.name} ({place.labelled})"
            for place in places
            if 0 < place.labelled < _FEW
        ],
        "masked": [f"{it.samples.name} ({it.masked:,})" for it in places if it.masked],
        "holes": len(holes),
        "cells": len(holes) + len(keys),
        "first_line": without_folders(first, evidence.store),
        "imported": sorted(
            {cell.key.backbone for place in places for cell in place.cells if cell.imported_as}
        ),
        "prompts": _sets(frame).sort().to_list(),
        "main_prompts": _sets(main_part(frame)).to_list() if len(frame) else [],
        "notes": [note.removeprefix("note: ") for note in (*alike, *shared)],
        "has_support": evidence.has_support,
        "lacking": {
            name: without_folders(why, evidence.store) for name, why in evidence.lacking.items()
        },
    }


def _sets(frame: pl.DataFrame) -> pl.Series:
    return frame["prompts"].unique(maintain_order=True).drop_nulls()


@takes(ReportSettings)
def write_report(store: FeatureStore | Path | str, **settings: Any) -> Path:
    """Write one HTML page about a store, for a reader who has five minutes; returns its path.

    The page opens from a file and asks for nothing else. The same store and files give the same
    bytes.
    Raises UsageError for a place that cannot be written to and for files that hold no results.

    >>> import clipsyn
    >>> store = clipsyn.FeatureStore.open("store")
    >>> clipsyn.write_report(store, output="report.html")
    PosixPath('report.html')
    """
    asked = ReportSettings(**settings)
    check_place(asked.output)
    text = page(gather(opened(store), asked))
    with written_whole(asked.output) as file:
        file.write(text.encode())
    return asked.output


def page(evidence: Evidence) -> str:
    """The text of the page."""
    places, script = evidence.splits, f"\n{_file('page.js')}"
    labels = {label for place in places for label in place.perturbations}
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return rendered(
        "page.html",
        **answer(evidence),
        sections=sections(evidence),
        given_title=evidence.settings.title,
        datasets=[*dict.fromkeys(place.samples.name for place in places)],
        backbones=[*dict.fromkeys(name for place in places for name in place.backbones)],
        n_images=sum(len(place.samples) for place in places),
        has_clean=CLEAN.label in labels,
        perturbations=len(labels - {CLEAN.label}),
        several=len({place.samples.dataset for place in places}) > 1,
        source="/".join(evidence.store.path.parts[-2:]),
        version=__version__,
        style=f"\n{_file('page.css')}",
        script=script,
        # nothing but styles, this very script, and pictures that are in the page
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "img-src data:; base-uri 'none'; form-action 'none'",
    )


def _file(name: str) -> str:
    return (files("clipsyn.report") / "page" / name).read_text("utf-8")


def rendered(name: str, **values: Any) -> str:
    """A template of the page, filled in; what is no markup of its own is escaped."""
    return str(_environment().get_template(name).render(values))


@cache
def _environment() -> Any:
    # jinja2 comes with the extra `report`
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("clipsyn.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda it: printable(it) if type(it) is str else it,  # markup is a kind of str
        keep_trailing_newline=True,
    )
    environment.filters |= {"placed": placed, "sorted_by": sorted_by}
    return environment


def placed(table: Table) -> list[tuple[Column, Column | None]]:
    """Columns with what stands smaller behind their cells, without those where nothing is known."""
    names = {column.name for column in table.columns}
    behind = {column.interval_of: column for column in table.columns if column.interval_of in names}
    return [
        (column, behind.get(column.name))
        for column in table.columns
        if column.interval_of not in names and any(it.text != NOTHING for it in column.cells)
    ]


def sorted_by(cell: Cell) -> str:
    """What the script reads: empty for a number that is not known, which comes last."""
    return f"{cell.value:.6g}" if isinstance(cell.value, int | float) else ""

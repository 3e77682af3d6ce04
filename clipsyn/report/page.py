"""The page: one HTML file that needs nothing else, and asks for nothing."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import polars as pl

from clipsyn import __version__
from clipsyn.analyses import ANALYSES, Analysis
from clipsyn.errors import UsageError
from clipsyn.evaluation.paired_tables import tables as paired_tables
from clipsyn.evaluation.results.frame import WHERE
from clipsyn.evaluation.tables import named_tables
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.names import CLEAN, FeatureKey
from clipsyn.report import FIGURES, ReportSettings, tables
from clipsyn.report.evidence import (
    EVALUATE,
    PAIRED,
    Evidence,
    gather,
    settings_of,
    without_folders,
)
from clipsyn.report.gallery import gallery, unique_table
from clipsyn.report.standings import Standing, answer, backbones, leading, main_part, methods
from clipsyn.settings import UNFITTED, takes
from clipsyn.show.figure import Figure, png, svg
from clipsyn.show.frames import check_place, printable_frame, written_whole
from clipsyn.show.table import NOTHING, Cell, Column, Table, Tables
from clipsyn.show.titles import title, where
from clipsyn.store.features import FeatureStore, opened
from clipsyn.store.overlap import alike_notes, image_notes, sample_tables
from clipsyn.text import advised, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_MOST_CELLS = 4000  # of the tables of one command
_MOST_PARTS = 6  # datasets that a figure of one dataset is drawn for
_LARGEST = 300_000  # characters of an SVG: a larger one becomes a picture of dots
_WIDE = 4.5  # inches, from which on a figure has the page's width
_FEW = 100  # labelled images, below which an interval spans ten points and more
_SHOWN: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    # by section: its figures, and the commands whose tables it has
    "alone": (["accuracy-matrix"], ["zeroshot"]),
    "combined": (["gains", "few-shot", "router-weights"], [EVALUATE, PAIRED]),
    "together": (
        ["upset", "venn", "error-consistency"],
        ["oracle", "diversity"],
    ),
    "perturbed": (["severity"], ["robustness"]),
    "cost": (["pareto"], ["cascade"]),
    "certainty": (["reliability", "coverage"], ["selective", "representation"]),
}


def sections(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """What each section shows, by the name that the template knows it by; empty ones are left out.

    Of each may be there: tables, drawings, folded (a command, and all its tables, unfolded by
    whoever wants them), gallery, points.
    """
    results = evidence.frames.get(EVALUATE)
    compared = [] if results is None else methods(results)
    over = "the backbone that is best on the "
    over += "support" if evidence.has_support else "images that it is measured on"
    every: dict[str, dict[str, Any]] = {
        name: {
            "drawings": [*_drawn(figures, evidence)],
            "folded": [it for command in commands if (it := folded(command, evidence))],
        }
        for name, (figures, commands) in _SHOWN.items()
    }
    every["alone"]["tables"] = _alone(evidence, leading(compared))
    every["combined"]["tables"] = [tables.method_table(compared, over)] if compared else []
    placed = {name for figures, _ in _SHOWN.values() for name in figures}
    every["more"] = {"drawings": [*_drawn([it for it in FIGURES if it not in placed], evidence)]}
    oracle = evidence.frames.get("oracle")
    unique = None if oracle is None else unique_table(oracle)
    is_shown = unique and evidence.settings.images
    every["images"] = {
        "tables": [unique] if unique else [],
        "gallery": gallery(evidence) if is_shown else None,
    }
    every["caveats"] = {"points": rendered("caveats.html", **caveats(evidence)).strip()}
    every["provenance"] = {"tables": [tables.weights_table(evidence), tables.image_table(evidence)]}
    nothing: dict[str, Any] = {"tables": [], "drawings": [], "folded": []}
    nothing |= {"gallery": None, "points": ""}
    return {name: nothing | it for name, it in every.items() if any(it.values())}


def folded(name: str, evidence: Evidence) -> tuple[str, Tables] | None:
    """The tables of an analysis, `evaluate` or `compare`; None for none, or for too many cells."""
    frame = evidence.frames.get(name)
    if frame is None or frame.is_empty():
        return None
    shown = [
        table for tables in _tables(name, printable_frame(frame), evidence) for table in tables
    ]
    if not shown or sum(len(table) * len(table.columns) for table in shown) > _MOST_CELLS:
        return None
    return name, tuple(shown)


def _tables(name: str, frame: pl.DataFrame, evidence: Evidence) -> Iterable[Tables]:
    if name == EVALUATE:
        return named_tables(frame).values()
    if name == PAIRED:
        return paired_tables(frame).values()
    analysis: Analysis = ANALYSES.load(name)
    settings = settings_of(analysis, evidence.settings)
    if "summary" in analysis.declared:  # a line a dataset, no table of each
        settings = settings.replaced(summary=True)
    return analysis.tables(frame, settings).values()


def _drawn(names: Sequence[str], evidence: Evidence) -> Iterator[Drawing]:
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


def _alone(evidence: Evidence, lead: Standing | None) -> list[Table]:
    frame = evidence.frames.get("zeroshot", pl.DataFrame())
    if frame.is_empty() or not backbones(frame):  # no image of theirs is readable
        return []
    return [tables.backbone_table(evidence), tables.dataset_table(evidence, lead)]


class Drawing(NamedTuple):
    """A figure of the page, with its caption and the numbers that it shows."""

    name: str
    about: str  # the dataset that it is about; empty for all
    short: str
    caption: str
    source: str  # of the image, in the page itself
    numbers: Table
    is_wide: bool


def drawings(name: str, frame: pl.DataFrame) -> list[Drawing]:
    """A figure of a frame; one for each dataset where it cannot show several.

    Empty where the frame has nothing for it to show.
    """
    figure: Figure = FIGURES.load(name)
    for whole in (frame, main_part(frame)):
        data = _data(figure, whole)
        if data is not None:
            return [_drawing(figure, data)]
    parts = list(_parts(main_part(frame)))
    found: list[Drawing] = []
    for about, part in parts if len(parts) > 1 else ():
        data = _data(figure, part) if len(found) < _MOST_PARTS else None
        if data is not None:
            found.append(_drawing(figure, data, about))
    return found


def _data(figure: Figure, frame: pl.DataFrame) -> pl.DataFrame | None:
    """What the figure draws; None where the frame lacks it, or has too much for one figure."""
    try:
        return figure.data(frame)
    except UsageError:
        return None


def _parts(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    known = frame.filter(pl.col("dataset").is_not_null())
    for _, part in known.group_by(WHERE, maintain_order=True):
        yield title(*where(part.row(0, named=True), WHERE)), part


def _drawing(figure: Figure, data: pl.DataFrame, about: str = "") -> Drawing:
    drawn = cast("Canvas", figure(data).figure)
    rest = f"{advised('plot', figure.name)} writes them all to a CSV file."
    short = f"{figure.short} {about}".strip()
    return Drawing(
        figure.name,
        about,
        figure.short,
        figure.text(data),
        _source(drawn),
        tables.numbers_of(data, f"The numbers of this figure. {short}", rest),
        figure.size(data)[0] > _WIDE,
    )


_TAG, _LONG_NUMBER = re.compile(r"<[^>]+>"), re.compile(r"-?\d+\.\d{3,}")


def _shortened(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"


def _source(drawn: Canvas) -> str:
    """An image in the page itself."""
    text = _TAG.sub(lambda tag: _LONG_NUMBER.sub(_shortened, tag[0]), svg(drawn))
    kind, content = ("png", png(drawn)) if len(text) > _LARGEST else ("svg+xml", text.encode())
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def caveats(evidence: Evidence) -> dict[str, Any]:
    """What the template says of things that make numbers weaker than they look."""
    places, keys = evidence.splits, dict.fromkeys(evidence.keys)
    frame = evidence.frames.get("zeroshot", pl.DataFrame({"prompts": []}))
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
        for prompts in evidence.prompts.get((place.samples.dataset, place.samples.split), [])
        for note in alike_notes(evidence.store, place.samples.dataset, prompts, place.backbones)
    )
    shared = [] if frame.is_empty() else image_notes(sample_tables(evidence.store, frame))
    results = evidence.frames.get(EVALUATE)
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
        "imported": sorted({name for place in places for name in place.imported}),
        "prompts": _sets(frame).sort().to_list(),
        "main_prompts": _sets(main_part(frame)).to_list() if len(frame) else [],
        "notes": [note.removeprefix("note: ") for note in (*alike, *shared)],
        "has_support": evidence.has_support,
        "has_no_curve": results is not None and _has_no_curve(results),
        "lacking": {
            name: without_folders(why, evidence.store) for name, why in evidence.lacking.items()
        },
    }


def _sets(frame: pl.DataFrame) -> pl.Series:
    return frame["prompts"].unique(maintain_order=True).drop_nulls()


def _has_no_curve(results: pl.DataFrame) -> bool:
    """Whether there is no figure by number of labelled images."""
    if results.is_empty():
        return False
    learned = main_part(results).filter(pl.col("shots") != UNFITTED, metric="acc1")
    numbers = learned.group_by("dataset").agg(pl.col("shots").n_unique())["shots"]
    return numbers.max() == 1


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
    return write_page(opened(store), ReportSettings(**settings))


def write_page(store: FeatureStore, settings: ReportSettings) -> Path:
    """`write_report`, with settings that have been read."""
    check_place(settings.output)
    text = page(gather(store, settings))
    with written_whole(settings.output) as file:
        file.write(text.encode())
    return settings.output


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
        has_images=evidence.settings.images is not None,
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

"""The page: one HTML file that needs nothing else, and asks for nothing."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from clipsyn import __version__
from clipsyn.analyses import ANALYSES, Analysis
from clipsyn.analyses.predicted import predicted
from clipsyn.evaluation.paired import PairedSettings
from clipsyn.evaluation.paired.tables import tables as paired_tables
from clipsyn.evaluation.tables import named_tables
from clipsyn.report import FIGURES, provenance, tables
from clipsyn.report.answer import ZERO_SHOT, Choice, answer, choose
from clipsyn.report.drawings import Drawing, drawings, picture
from clipsyn.report.evidence import EVALUATE, PAIRED, Evidence, gather, settings_of
from clipsyn.report.html import Html, html, named, rendered
from clipsyn.report.provenance import places, summary, title
from clipsyn.report.settings import ReportSettings
from clipsyn.report.standings import backbones, main_part, methods
from clipsyn.report.tables import Grid, grid_of_table
from clipsyn.report.unique import Example, Thumbnails, examples, spread, unique_grid
from clipsyn.settings import signature_of
from clipsyn.show.frames import check_place, printable_frame, written_whole
from clipsyn.show.table import Tables
from clipsyn.store.features import FeatureStore, opened

_EXAMPLES = 12  # pictures of a backbone
_MOST_CELLS = 4000  # of the tables of one command
_SHOWN: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    # by section: its figures, and the commands whose tables it has
    "alone": (["accuracy-matrix"], ["zeroshot"]),
    "combined": (["gains", "few-shot", "router-weights"], [EVALUATE, PAIRED]),
    "together": (["upset", "error-consistency", "diversity-gain", "cka"], ["oracle", "diversity"]),
    "perturbed": (["severity", "corruptions"], ["robustness"]),
    "cost": (["pareto"], ["cascade"]),
    "certainty": (["reliability", "coverage"], ["selective", "representation"]),
}


class Pictured(NamedTuple):
    """An image that only one backbone gets right, as the page shows it."""

    image: Html
    truth: str
    others: Html
    id: str


class Gallery(NamedTuple):
    backbone: str
    images: list[Pictured]


@dataclass(frozen=True)
class Folded:
    """All tables of one command, unfolded by whoever wants them."""

    command: str
    grids: tuple[Grid, ...]


@dataclass(frozen=True)
class Section:
    """A section of the page, which has its words; it is left out where it has nothing to show."""

    id: str
    grids: Sequence[Grid] = ()
    drawings: Sequence[Drawing] = ()
    gallery: Sequence[Gallery] = ()
    points: Sequence[Html] = ()
    folded: Sequence[Folded] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.grids or self.drawings or self.gallery or self.points or self.folded)


def sections(evidence: Evidence) -> list[Section]:
    """Those that have anything to show, in order."""
    results, places = evidence.frames.get(EVALUATE), provenance.places(evidence)
    compared = [] if results is None else methods(results)
    grids = {
        "alone": _alone(evidence, choose(compared, evidence.sharing)),
        "combined": [tables.method_grid(compared)] if compared else [],
    }
    placed = {name for figures, _ in _SHOWN.values() for name in figures}
    more = [name for name in FIGURES if name not in placed]
    every = [
        Section(
            name,
            grids.get(name, ()),
            [*_drawn(figures, evidence)],
            folded=[one for command in commands if (one := folded(command, evidence))],
        )
        for name, (figures, commands) in [*_SHOWN.items(), ("more", (more, ()))]
    ]
    every += [
        _unique(evidence),
        Section("caveats", points=provenance.caveats(evidence, places)),
        Section("provenance", provenance.grids(evidence, places)),
    ]
    return [section for section in every if not section.is_empty]


def folded(name: str, evidence: Evidence) -> Folded | None:
    """The tables of an analysis, `evaluate` or `compare`; None for none, or for too many cells."""
    frame = evidence.frames.get(name)
    if frame is None or frame.is_empty():
        return None
    shown = [
        table for tables in _tables(name, printable_frame(frame), evidence) for table in tables
    ]
    if not shown or sum(len(table) * len(table.columns) for table in shown) > _MOST_CELLS:
        return None
    return Folded(name, tuple(map(grid_of_table, shown)))


def _tables(name: str, frame: pl.DataFrame, evidence: Evidence) -> Iterable[Tables]:
    if name == EVALUATE:
        return named_tables(frame).values()
    if name == PAIRED:
        return paired_tables(frame, PairedSettings()).values()
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
    """What a figure shows: the numbers of its analysis, and of gains those of ensembles too."""
    frame = evidence.frames.get(FIGURES.load(name).source)
    results = evidence.frames.get(EVALUATE)
    if name != "gains" or frame is None or results is None:
        return frame
    choice = choose(methods(results), evidence.sharing)
    ours = results.filter(head=choice.best.head if choice else ZERO_SHOT)
    return pl.concat([main_part(frame), main_part(ours)], how="diagonal_relaxed")


def _alone(evidence: Evidence, choice: Choice | None) -> list[Grid]:
    frame = evidence.frames.get("zeroshot", pl.DataFrame())
    if frame.is_empty() or not backbones(frame):  # no image of theirs is readable
        return []
    return [tables.backbone_grid(evidence), tables.dataset_grid(evidence, choice)]


def _unique(evidence: Evidence) -> Section:
    oracle = evidence.frames.get("oracle")
    grid = None if oracle is None else unique_grid(oracle)
    pictures = _gallery(evidence) if grid and evidence.settings.images else ()
    return Section("unique", [grid] if grid else [], gallery=[*pictures])


def _gallery(evidence: Evidence) -> Iterator[Gallery]:
    """Pictures by backbone; those that are not where the user says are left out."""
    assert evidence.settings.images
    places = dict.fromkeys((key.dataset, key.split) for key in evidence.keys)
    there = Thumbnails(evidence.settings.images, places)
    by_backbone: dict[str, list[Pictured]] = {}
    for example in _examples(evidence):
        if data := there.of(example):
            by_backbone.setdefault(example.backbone, []).append(_pictured(example, data))
    return (Gallery(name, images) for name, images in by_backbone.items())


def _examples(evidence: Evidence) -> list[Example]:
    settings = evidence.main_settings
    found: dict[str, list[Example]] = {}
    for group in predicted(evidence.store, settings, pooled=settings.pooled):
        about = f"{group.samples.name}, {group.perturbation}"
        found.setdefault(about, list(examples(group, _EXAMPLES)))  # of the first prompt set
    names = {example.backbone for every in found.values() for example in every}
    return spread(found, _EXAMPLES * len(names))


def _pictured(example: Example, data: str) -> Pictured:
    label = f"{example.truth}, an image of {example.dataset}/{example.split}"
    others = html("{} of the others: {}", example.agreeing, named(example.others))
    return Pictured(picture("jpeg", data, label), example.truth, others, example.id)


MADE_FROM = "clipsyn-made-from"  # the name of the page's note of what it was made from


def write_report(store: FeatureStore | Path | str, **settings: Any) -> Path:
    """Write one HTML page about a store, for a reader who has five minutes; returns its path.

    settings: those of `clipsyn.report.settings.ReportSettings`; `output` is needed. The page
    opens from a file and asks for nothing else. The same store and files give the same bytes.
    Raises UsageError for a place that cannot be written to and for files that hold no results.

    >>> import clipsyn
    >>> store = clipsyn.FeatureStore.open("store")
    >>> clipsyn.write_report(store, output="report.html")
    PosixPath('report.html')
    """
    return write_page(opened(store), ReportSettings(**settings))


vars(write_report)["__signature__"] = signature_of(ReportSettings)


def write_page(store: FeatureStore, settings: ReportSettings, made_from: str = "") -> Path:
    """`write_report`, with settings that have been read. made_from: a digest to note in it."""
    check_place(settings.output)
    text = page(gather(store, settings), made_from)
    with written_whole(settings.output) as file:
        file.write(text.encode())
    return settings.output


def page(evidence: Evidence, made_from: str = "") -> str:
    """The text of the page."""
    parts = {"answer": answer(evidence), "sections": sections(evidence)}
    shown = places(evidence)
    style = Html(f"\n{_file('page.css')}")
    script = Html(f"\n{_file('page.js')}")
    return rendered(
        "page.html",
        **parts,
        title=evidence.settings.title or title(shown),
        summary=summary(shown),
        has_images=evidence.settings.images is not None,
        source="/".join(evidence.store.path.parts[-2:]),
        version=__version__,
        made_from=made_from,
        style=style,
        script=script,
        policy=Html(_policy(script)),
    )


def _file(name: str) -> str:
    return (files("clipsyn.report") / "page" / name).read_text("utf-8")


def _policy(script: str) -> str:
    """Nothing but styles, this very script, and pictures that are in the page."""
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )

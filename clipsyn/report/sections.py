"""What stands on the page below the answer, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import polars as pl

from clipsyn.analyses.predicted import predicted
from clipsyn.report import FIGURES, provenance, tables
from clipsyn.report.choice import ZERO_SHOT, Choice, choose
from clipsyn.report.commands import Folded, folded
from clipsyn.report.drawings import Drawing, drawings
from clipsyn.report.evidence import EVALUATE, PAIRED, Evidence
from clipsyn.report.grids import Grid
from clipsyn.report.html import Html, html, named
from clipsyn.report.means import main_part
from clipsyn.report.standings import Method, backbones, methods
from clipsyn.report.thumbnails import Thumbnails
from clipsyn.report.unique import Example, examples, spread, unique_grid
from clipsyn.report.vector import StyleSheet, picture

_EXAMPLES = 12  # pictures of a backbone
_FIGURES = {  # the section of each; those of others stand under "more"
    "alone": ("accuracy-matrix",),
    "combined": ("gains", "few-shot", "router-weights"),
    "together": ("upset", "error-consistency", "diversity-gain", "cka"),
    "perturbed": ("severity", "corruptions"),
    "cost": ("pareto",),
    "certainty": ("reliability", "coverage"),
}


_COMMANDS = {  # whose tables each section has, folded
    "alone": ("zeroshot",),
    "combined": (EVALUATE, PAIRED),
    "together": ("oracle", "diversity"),
    "perturbed": ("robustness",),
    "cost": ("cascade",),
    "certainty": ("selective", "representation"),
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
class Section:
    """A section of the page; it is left out where it has nothing to show."""

    id: str
    title: str
    short: str  # in the contents
    lead: str | Html = ""
    grids: tuple[Grid, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    gallery: tuple[Gallery, ...] = ()
    points: tuple[Html, ...] = ()
    folded: tuple[Folded, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.grids or self.drawings or self.gallery or self.points or self.folded)


def sections(evidence: Evidence, sheet: StyleSheet) -> list[Section]:
    """Those that have anything to show, in order."""
    results = evidence.frames.get(EVALUATE)
    compared = [] if results is None else methods(results)
    placed = {name for names in _FIGURES.values() for name in names}
    more = tuple(name for name in FIGURES if name not in placed)
    every = [
        _with(_alone(evidence, choose(compared, evidence.sharing)), evidence, sheet),
        _with(_combined(compared), evidence, sheet),
        _with(_TOGETHER, evidence, sheet),
        _with(_PERTURBED, evidence, sheet),
        _with(_COST, evidence, sheet),
        _with(_CERTAINTY, evidence, sheet),
        replace(_MORE, drawings=tuple(_drawn(more, evidence, sheet))),
        _unique(evidence),
        *_provenance(evidence),
    ]
    return [section for section in every if not section.is_empty]


_TOGETHER = Section(
    "together",
    "Who is right where",
    "Who is right where",
    "Combining helps only where backbones err on different images.",
)
_PERTURBED = Section(
    "perturbed",
    "Under perturbation",
    "Perturbation",
    "How accuracy, and the order of the backbones, hold where images are corrupted.",
)
_COST = Section(
    "cost",
    "What accuracy costs",
    "Cost",
    "Cost is that of the image towers, in GFLOPs an image; texts are encoded beforehand.",
)
_CERTAINTY = Section(
    "certainty",
    "How far confidence can be trusted",
    "Confidence",
    "Whether an answer that is given with 80 % confidence is right in 80 of 100 cases, and what "
    "is won by leaving out those that are least sure.",
)
_MORE = Section("more", "More figures", "More figures")


def _with(section: Section, evidence: Evidence, sheet: StyleSheet) -> Section:
    """A section with its figures, and the tables of its commands."""
    commands = [folded(name, evidence) for name in _COMMANDS[section.id]]
    return replace(
        section,
        drawings=tuple(_drawn(_FIGURES[section.id], evidence, sheet)),
        folded=tuple(filter(None, commands)),
    )


def _drawn(names: Sequence[str], evidence: Evidence, sheet: StyleSheet) -> Iterator[Drawing]:
    for name in names:
        if name in FIGURES:
            frame = _frame(name, evidence)
            yield from () if frame is None else drawings(name, frame, sheet)


def _frame(name: str, evidence: Evidence) -> pl.DataFrame | None:
    """What a figure shows: the numbers of its analysis, and of gains those of ensembles too."""
    frame = evidence.frames.get(FIGURES.load(name).source)
    results = evidence.frames.get(EVALUATE)
    if name != "gains" or frame is None or results is None:
        return frame
    choice = choose(methods(results), evidence.sharing)
    ours = results.filter(head=choice.best.head if choice else ZERO_SHOT)
    return pl.concat([main_part(frame), main_part(ours)], how="diagonal_relaxed")


def _alone(evidence: Evidence, choice: Choice | None) -> Section:
    section = Section("alone", "Backbones and datasets", "Backbones and datasets")
    frame = evidence.frames.get("zeroshot", pl.DataFrame())
    if frame.is_empty() or not backbones(frame):  # no image of theirs is readable
        return section
    grids = tables.backbone_grid(evidence), tables.dataset_grid(evidence, choice)
    return replace(section, grids=grids)


def _combined(compared: Sequence[Method]) -> Section:
    return Section(
        "combined",
        "Backbones combined",
        "Combinations",
        "What each method makes of all backbones, and what it gains over the one backbone that a "
        "careful user would have taken: the best on the support.",
        (tables.method_grid(compared),) if compared else (),
    )


def _unique(evidence: Evidence) -> Section:
    section = Section("unique", "Images that only one backbone gets right", "Only one is right")
    oracle = evidence.frames.get("oracle")
    grid = None if oracle is None else unique_grid(oracle)
    if grid is None:
        return section
    gallery = tuple(_gallery(evidence)) if evidence.settings.images else ()
    lead = "These are what a pool loses when that backbone leaves it."
    if gallery:
        lead += (
            " Below each picture: its true class, and what most of the others say. Shown first "
            "are those on which the others agree."
        )
    elif not evidence.settings.images:
        lead += " To see them, give --images and the folder or tar that they were extracted from."
    return replace(section, lead=lead, grids=(grid,), gallery=gallery)


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


def _provenance(evidence: Evidence) -> Iterator[Section]:
    places = provenance.places(evidence)
    yield Section(
        "caveats",
        "What to keep in mind",
        "Caveats",
        points=tuple(provenance.caveats(evidence, places)),
    )
    grids = (
        provenance.backbone_grid(evidence),
        provenance.dataset_grid(places, provenance.prompts_of(evidence)),
    )
    yield Section("provenance", "What was run, and with which weights", "Provenance", grids=grids)

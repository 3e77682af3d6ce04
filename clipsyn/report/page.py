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
from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.evaluation.paired import PairedSettings
from clipsyn.evaluation.paired.tables import tables as paired_tables
from clipsyn.evaluation.tables import named_tables
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.report import FIGURES, provenance, tables
from clipsyn.report.answer import answer, leading
from clipsyn.report.drawings import Drawing, drawings, picture
from clipsyn.report.evidence import EVALUATE, PAIRED, Evidence, gather, settings_of
from clipsyn.report.gallery import Example, chosen_answers, examples, unique_table
from clipsyn.report.html import Html, rendered
from clipsyn.report.provenance import places, summary, title
from clipsyn.report.settings import ReportSettings
from clipsyn.report.standings import Method, backbones, main_part, methods
from clipsyn.report.thumbnails import Thumbnails
from clipsyn.settings import takes
from clipsyn.show.frames import check_place, printable_frame, written_whole
from clipsyn.show.table import Table, Tables
from clipsyn.store.features import FeatureStore, opened

_EXAMPLES = 160  # pictures
_MOST_CELLS = 4000  # of the tables of one command
_SHOWN: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    # by section: its figures, and the commands whose tables it has
    "alone": (["accuracy-matrix"], ["zeroshot"]),
    "combined": (["chosen", "gains", "few-shot", "router-weights"], [EVALUATE, PAIRED]),
    "together": (
        ["upset", "venn", "error-consistency", "diversity-gain", "cka"],
        ["oracle", "diversity"],
    ),
    "perturbed": (["severity", "corruptions"], ["robustness"]),
    "cost": (["pareto"], ["cascade"]),
    "certainty": (["reliability", "coverage"], ["selective", "representation"]),
}


class Pictured(NamedTuple):
    """An image as the page shows it. marks: a letter for each of the gallery's names."""

    example: Example
    image: Html
    marks: str


@dataclass(frozen=True)
class Gallery:
    """names: the backbones, and the chosen method behind them, where its answers are known."""

    images: Sequence[Pictured] = ()
    names: Sequence[str] = ()

    @property
    def backbones(self) -> int:
        return len(self.names) - (CHOSEN in self.names)

    @property
    def datasets(self) -> list[str]:
        return sorted({it.example.dataset for it in self.images})

    @property
    def classes(self) -> list[str]:
        return sorted({it.example.truth for it in self.images})


@dataclass(frozen=True)
class Folded:
    """All tables of one command, unfolded by whoever wants them."""

    command: str
    tables: Tables


@dataclass(frozen=True)
class Section:
    """A section of the page, which has its words; it is left out where it has nothing to show."""

    id: str
    tables: Sequence[Table] = ()
    drawings: Sequence[Drawing] = ()
    gallery: Gallery = Gallery()
    points: Sequence[Html] = ()
    folded: Sequence[Folded] = ()

    @property
    def is_empty(self) -> bool:
        there = self.tables, self.drawings, self.gallery.images, self.points, self.folded
        return not any(there)


def sections(evidence: Evidence) -> list[Section]:
    """Those that have anything to show, in order."""
    results, places = evidence.frames.get(EVALUATE), provenance.places(evidence)
    compared = [] if results is None else methods(results)
    over = "the backbone that is best on the "
    over += "support" if evidence.has_support else "images that it is measured on"
    own = {
        "alone": _alone(evidence, leading(compared)),
        "combined": [tables.method_table(compared, over)] if compared else [],
    }
    placed = {name for figures, _ in _SHOWN.values() for name in figures}
    more = [name for name in FIGURES if name not in placed]
    every = [
        Section(
            name,
            own.get(name, ()),
            [*_drawn(figures, evidence)],
            folded=[one for command in commands if (one := folded(command, evidence))],
        )
        for name, (figures, commands) in [*_SHOWN.items(), ("more", (more, ()))]
    ]
    every += [
        _images(evidence),
        Section("caveats", points=provenance.caveats(evidence, places)),
        Section("provenance", provenance.tables(evidence, places)),
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
    return Folded(name, tuple(shown))


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
    """What a figure shows: the numbers of its analysis, and gains on the first head there is."""
    results = evidence.frames.get(EVALUATE)
    if name != "gains" or results is None:
        return evidence.frames.get(FIGURES.load(name).source)
    heads = results["head"].unique(maintain_order=True).to_list()
    return main_part(results.filter(head=next(it for it in heads if it != CHOSEN)))


def _alone(evidence: Evidence, lead: Method | None) -> list[Table]:
    frame = evidence.frames.get("zeroshot", pl.DataFrame())
    if frame.is_empty() or not backbones(frame):  # no image of theirs is readable
        return []
    return [tables.backbone_table(evidence), tables.dataset_table(evidence, lead)]


def _images(evidence: Evidence) -> Section:
    oracle = evidence.frames.get("oracle")
    table = None if oracle is None else unique_table(oracle)
    shown = _gallery(evidence) if table and evidence.settings.images else Gallery()
    return Section("images", [table] if table else [], gallery=shown)


def _gallery(evidence: Evidence) -> Gallery:
    """Pictures of as many images of each dataset; those that are not there are left out."""
    assert evidence.settings.images
    places = dict.fromkeys((key.dataset, key.split) for key in evidence.keys)
    there = Thumbnails(evidence.settings.images, places)
    found = [(it, data) for it in _examples(evidence) if (data := there.of(it))]
    who = dict.fromkeys(said.who for it, _ in found for said in it.said)
    names = sorted(who, key=lambda name: name == CHOSEN)
    return Gallery([_pictured(*one, names) for one in found], names)


def _examples(evidence: Evidence) -> list[Example]:
    settings = evidence.main_settings
    groups: dict[tuple[str, str], Predicted] = {}  # of the first prompt set
    for group in predicted(evidence.store, settings, pooled=settings.pooled):
        groups.setdefault((group.samples.name, group.perturbation), group)
    most = max(1, _EXAMPLES // max(1, len(groups)))
    return [
        example
        for group in groups.values()
        for example in examples(group, most, chosen_answers(settings.predictions, group))
    ]


def _pictured(example: Example, data: str, names: Sequence[str]) -> Pictured:
    right = {said.who: said.is_right for said in example.said}
    marks = "".join({True: "1", False: "0", None: "-"}[right.get(name)] for name in names)
    label = f"{example.truth}, an image of {example.dataset}/{example.split}"
    return Pictured(example, picture("webp", data, label), marks)


MADE_FROM = "clipsyn-made-from"  # the name of the page's note of what it was made from


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
        several=len({place.samples.dataset for place in shown}) > 1,
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

"""Stages of a recipe: what each has, what it would do, and when it is skipped."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from clipsyn import __version__
from clipsyn.analyses import ANALYSES, Analysis
from clipsyn.errors import UsageError
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.exchange.settings import ImportSettings
from clipsyn.extract import Cost, ExtractSettings, Plan
from clipsyn.extract.job import load_job, plan_job, run_job
from clipsyn.names import FeatureKey, fingerprint
from clipsyn.report import ReportSettings
from clipsyn.settings import OUTPUT, PATH, PATHS, REQUIRED, TEXT, Settings, declared, setting
from clipsyn.show.progress import progress
from clipsyn.store.features import FeatureStore
from clipsyn.text import counted

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.show.table import Tables

_LOG = logging.getLogger("clipsyn")


@dataclass(frozen=True)
class Outcome:
    """What a stage came to: the row of the summary, and text to show at the end."""

    stage: str
    skipped: bool
    did: str
    report: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Planned:
    """What a stage would do."""

    stage: str
    what: str
    is_there: bool = False  # all of it, by its names
    plan: Plan | None = None  # of an extraction
    cost: Cost | None = None


@dataclass
class Made:
    """The cells that earlier stages of a recipe would make, and under which prompts."""

    prompts: dict[FeatureKey, set[str]] = field(default_factory=dict)

    def add(self, plan: Plan, prompts: str) -> None:
        for key in plan.keys:
            self.prompts.setdefault(key, set()).add(prompts)


Jobs = Callable[[Path, Settings], None]  # does what settings ask for on a store


class Stage(Settings):
    """A stage: its own fields, and one for each setting of what it runs."""

    stage: ClassVar[str]
    declares: ClassVar[type[Settings]]

    def _check(self) -> None:
        self.settings()

    def settings(self, **others: Any) -> Any:
        """The settings that the fields hold, but for `others`."""
        values = {name: getattr(self, name) for name in declared(self.declares)}
        return self.declares(**{**values, **others})

    def written(self) -> list[Path]:
        """The files that it makes."""
        return []

    def planned(self, store: Path, made: Made) -> Planned:
        """What it would do, told without loading weights, downloading or writing.

        made: by the stages before it. Raises as the stage would for names that are not known.
        """
        results = getattr(self, "results", None)
        reads = [f"reads {results}"] if results else []
        return Planned(self.stage, ", ".join([*reads, *map(_is_written, self.written())]))

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        """Do it. jobs: does the work, if it can be shared, instead of this process."""
        raise NotImplementedError

    def made_from(self, store: FeatureStore, names: Iterable[str], **more: Any) -> str:
        """Changes whenever these settings, the files that are read, the store or clipsyn do."""
        values = {name: getattr(self, name) for name in names}
        asked = json.loads(json.dumps({"stage": self.stage, **values}, default=str))
        paths = [name for name, it in declared(self.declares).items() if it.kind is PATH]
        read = [getattr(self, name) for name in paths if name != "images"]  # those of the store
        read += getattr(self, "measured", {}).values()
        files = [content(Path(path)) for path in read if path]
        return fingerprint({"settings": asked, "files": files, "store": digest(store), **more})


def _is_written(path: Path) -> str:
    return f"{'renews' if path.exists() else 'writes'} {path}"


class WritingStage(Stage):
    """A stage that writes numbers to files, and tables into a document."""

    output: Path = setting(REQUIRED, PATH, "What the names of its files begin with.")
    document: Path | None = setting(
        None, PATH, "Markdown whose tables are renewed.", instead_of_none="none"
    )
    section: str | None = setting(
        None,
        TEXT,
        "With which the marks in the document begin.",
        instead_of_none="the stage; of evaluate, nothing",
    )

    def _check(self) -> None:
        if not self.output.name:
            raise UsageError(
                f"output '{self.output}' names no file: write a path such as runs/results"
            )
        super()._check()

    def beside(self, suffix: str) -> Path:
        """The file whose name is that of the output, and a suffix."""
        return self.output.with_name(self.output.name + suffix)

    def renew(self, shown: Mapping[str, Tables], section: str | None) -> None:
        """Renew the tables of the document, whose marks begin with the section."""
        from clipsyn.show.formats import renew

        if self.document:
            start = f"{section}: " if section else ""
            renew(self.document, {start + name: it for name, it in shown.items()})


class ExtractStage(Stage):
    def planned(self, store: Path, made: Made) -> Planned:
        return _planned_extraction(store, self.settings(), made)

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        settings = self.settings()
        if jobs:  # no weights are loaded here
            before = _planned_extraction(store, settings.of_any_device(), Made()).what
            jobs(store, settings)
            return Outcome("extract", False, f"by jobs: {before}")
        with progress() as counters:
            work, settings = load_job(store, settings, counters)
        for note in work.notes:
            _LOG.info("note: %s", note)
        _LOG.info(work.summary())
        if not work.is_needed:
            return Outcome("extract", True, work.summary())
        cells = list(work.cells)
        made = sum(cell.is_needed for cell in cells)
        with progress() as counters:
            run_job(work, settings, counters)
        did = (
            f"{made:,} of {len(cells):,} cells made" if made else "labels or class names corrected"
        )
        return Outcome("extract", False, did)


def _planned_extraction(store: Path, settings: ExtractSettings, made: Made) -> Planned:
    plan = plan_job(store, settings)
    every = plan.keys
    stored = every.intersection(plan.done)
    under_others = {key for key, names in made.prompts.items() if settings.prompts not in names}
    answered = every & under_others
    answered |= _without_answers(store, stored - {*made.prompts}, settings.prompts)
    plan = replace(plan, done={*plan.done, *made.prompts})
    answers = plan.cost_of_answers(answered)
    made.add(plan, settings.prompts)
    what = plan.summary()
    if answered:
        what += f"; {len(answered):,} get answers of these prompts: {answers.storage}"
    cost = Cost.sum([plan.cost(), answers])
    is_there = every <= {*plan.done} and not answered
    return Planned("extract", what, is_there, plan, cost)


def _without_answers(store: Path, keys: set[FeatureKey], prompts: str) -> set[FeatureKey]:
    """The stored cells that have no predictions of a prompt set; `auto` may be any of them."""
    from clipsyn.catalog.texts import NAMED

    if prompts == "auto" or not keys:
        return set()
    opened, name = FeatureStore.open(store), prompts if prompts in NAMED else Path(prompts).stem
    return {key for key in keys if name not in opened.cell(key).prompt_sets()}


class ImportStage(Stage):
    """Skipped where all that the files hold is there."""

    files: tuple[Path, ...] = setting(REQUIRED, PATHS, "What is imported.")

    def _check(self) -> None:
        if not self.files:
            raise UsageError("files=… is empty: it takes at least one")
        super()._check()

    def planned(self, store: Path, made: Made) -> Planned:
        gone = [str(path) for path in self.files if not path.exists()]
        lacking = f"; not here: {', '.join(gone)}" if gone else ""
        return Planned("import", f"import {', '.join(map(str, self.files))}{lacking}")

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        from clipsyn.exchange.importing import import_files

        frame = import_files(store, self.files, self.settings())
        new = int((frame["was"] != "there").sum())
        did = f"{new:,} of {len(frame):,} cells imported"
        return Outcome("import", not new, did if new else f"all {len(frame):,} cells are there")


class ProtocolStage(WritingStage):
    """`clipsyn evaluate`, added to OUTPUT.parquet; a results file skips what it has itself."""

    def settings(self, **others: Any) -> Any:
        return super().settings(output=self.beside(".parquet"), **others)

    def planned(self, store: Path, made: Made) -> Planned:
        from clipsyn.evaluation.cells import learning, spelled_out

        settings = self.settings()
        every = spelled_out(settings)
        learning(every)  # knows all names, or raises
        draws = sum(1 if shots is None else len(settings.draws) for shots in settings.images)
        heads, ensembles = len(every.heads), len(every.ensembles)
        return Planned(
            "evaluate",
            f"heads {', '.join(every.heads)}; {counted(ensembles, 'ensemble')}; "
            f"shots {', '.join(map(str, settings.shots))}; {counted(settings.seeds, 'seed')}: "
            f"up to {heads * ensembles * draws:,} fits for each dataset and prompt set, "
            f"{_is_written(settings.output)}",
        )

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        from clipsyn.evaluation.loop import gather, measure
        from clipsyn.evaluation.tables import tables
        from clipsyn.show.formats import written as as_text
        from clipsyn.show.frames import printable_frame
        from clipsyn.store.overlap import image_notes, sample_tables

        opened, settings = FeatureStore.open(store), self.settings()
        kept = [file for file in (settings.output, settings.predictions_file) if file]
        before = [_written_at(file) for file in kept]
        if jobs:  # their results are put together here
            jobs(opened.path, settings)
            frame = gather(opened, settings)
        else:
            with progress("fits") as counters:
                frame = measure(opened, settings, counters)
        samples = sample_tables(opened, frame)
        shown = tables(printable_frame(frame))
        self.renew(shown, self.section)
        skipped = None not in before and [_written_at(file) for file in kept] == before
        report = "\n\n".join([as_text(shown, "text"), *image_notes(samples)])
        return Outcome("evaluate", skipped, f"{len(frame):,} rows in {settings.output}", report)


def _written_at(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.exists() else None


class AnalysisStage(WritingStage):
    """Skipped where its files are there, made with the same settings from the same store and files.

    The note OUTPUT.made-from says what they were made from.
    """

    analysis: ClassVar[Analysis]

    def written(self) -> list[Path]:
        named = {getattr(self, name) for name, it in self.analysis.declared.items() if it.writes}
        return [self.beside(".csv"), self.beside(".parquet"), *sorted(filter(None, named))]

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        from clipsyn.evaluation.results.frame import RESULT
        from clipsyn.show.formats import written as as_text
        from clipsyn.show.frames import make_folder_of, printable_frame, write

        opened, settings = FeatureStore.open(store), self.settings()
        csv, table, *_ = self.written()
        decisive = [name for name, it in self.analysis.declared.items() if not it.display]
        made_from = self.made_from(opened, ["output", *decisive], columns=[*RESULT])
        note = self.beside(".made-from")
        is_current = all(map(Path.exists, self.written())) and _noted(note) == made_from
        frame = _read(table) if is_current else None
        skipped = frame is not None
        if frame is None:
            make_folder_of(table)
            frame = self.analysis.measure(opened, settings)
            write(frame, csv=csv, parquet=table)
            self.analysis.write_files(opened, settings)
            note.write_text(made_from)
        shown = self.analysis.tables(printable_frame(frame), settings)
        self.renew(shown, self.section or self.stage)
        said = self.analysis.notes(opened, frame, settings)
        report = "\n\n".join([*filter(None, [as_text(shown, "text")]), *said])
        return Outcome(self.stage, skipped, f"{csv} and .parquet", report)


class ReportStage(Stage):
    """Skipped where the page was made with the same settings from the same store and files.

    The note OUTPUT.made-from says what it was made from.
    """

    output: Path = setting(REQUIRED, OUTPUT, "The page to write.")

    def written(self) -> list[Path]:
        return [self.output]

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        from clipsyn.report.page import write_page
        from clipsyn.show.frames import make_folder_of

        opened = FeatureStore.open(store)
        note = self.output.parent / f"{self.output.name}.made-from"
        made_from = self.made_from(opened, self._declared)
        skipped = self.output.exists() and _noted(note) == made_from
        if not skipped:
            make_folder_of(self.output)
            write_page(opened, self.settings())
            note.write_text(made_from)
        return Outcome("report", skipped, f"{self.output}, open it in a browser")


def digest(store: FeatureStore) -> str:
    """Changes whenever anything in the store that a table could depend on does."""
    from clipsyn.store.inventory import find_groups, group_digest

    groups = {str(group.path): group_digest(store, group.path) for group in find_groups(store, {})}
    return fingerprint({"clipsyn": __version__, "groups": groups})


def content(path: Path) -> str:
    """Digest of a file, or of a folder of results."""
    try:
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        return fingerprint({"files": [sha256(file.read_bytes()).hexdigest() for file in files]})
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}; an evaluate stage before this one makes it"
        ) from None


def _read(table: Path) -> DataFrame | None:
    """None for a file that is damaged."""
    import polars as pl

    from clipsyn.show.frames import read_parquet

    try:
        return read_parquet(table)
    except (OSError, pl.exceptions.PolarsError):
        return None


def _noted(note: Path) -> str | None:
    return note.read_text("utf-8", "replace") if note.exists() else None


StageClass = TypeVar("StageClass", bound=Stage)


def _stage(name: str, settings: type[Settings], base: type[StageClass]) -> type[StageClass]:
    """A subclass of `base` for ``stage: NAME``, with a field for each setting it has not."""
    fields = {name: it for name, it in declared(settings).items() if name not in declared(base)}
    return type(f"{name.title()}Stage", (base,), {**fields, "declares": settings, "stage": name})


STAGES: dict[str, type[Stage]] = {
    "extract": _stage("extract", ExtractSettings, ExtractStage),
    "import": _stage("import", ImportSettings, ImportStage),
    "evaluate": _stage("evaluate", ProtocolSettings, ProtocolStage),
    "report": _stage("report", ReportSettings, ReportStage),
}
for _name in ANALYSES:
    _analysis: Analysis = ANALYSES.load(_name)
    STAGES[_name] = _class = _stage(_name, _analysis.settings, AnalysisStage)
    _class.analysis = _analysis

"""Stages of a recipe: what each has, and those that fill a store and evaluate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from clipsyn.errors import UsageError
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.exchange.importing.settings import ImportSettings
from clipsyn.extract import Cost, ExtractSettings, Plan
from clipsyn.extract.job import load_job, plan_job, run_job
from clipsyn.names import FeatureKey
from clipsyn.settings import PATH, PATHS, REQUIRED, TEXT, Settings, declared, setting
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

    def under_others(self, prompts: str) -> set[FeatureKey]:
        """Cells that are made, but not under these prompts."""
        return {key for key, names in self.prompts.items() if prompts not in names}


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

    def planned(self, store: Path, made: Made) -> Planned:
        """What it would do, told without loading weights, downloading or writing.

        made: by the stages before it. Raises as the stage would for names that are not known.
        """
        raise NotImplementedError

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        """Do it. jobs: does the work, if it can be shared, instead of this process."""
        raise NotImplementedError


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


StageClass = TypeVar("StageClass", bound=Stage)


def stage_class(name: str, settings: type[Settings], base: type[StageClass]) -> type[StageClass]:
    """A subclass of `base` for ``stage: NAME``, with a field for each setting it has not."""
    fields = {name: it for name, it in declared(settings).items() if name not in declared(base)}
    return type(f"{name.title()}Stage", (base,), {**fields, "declares": settings, "stage": name})


class ExtractStage(Stage):
    def planned(self, store: Path, made: Made) -> Planned:
        return planned_extraction(store, self.settings(), made)

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        settings = self.settings()
        if jobs:  # no weights are loaded here
            before = planned_extraction(store, settings.of_any_device(), Made()).what
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


def planned_extraction(store: Path, settings: ExtractSettings, made: Made) -> Planned:
    plan = plan_job(store, settings)
    every = plan.keys
    stored = every.intersection(plan.done)
    answered = every & made.under_others(settings.prompts)
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

    def planned(self, _store: Path, _made: Made) -> Planned:
        gone = [str(path) for path in self.files if not path.exists()]
        lacking = f"; not here: {', '.join(gone)}" if gone else ""
        return Planned("import", f"import {', '.join(map(str, self.files))}{lacking}")

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        from clipsyn.exchange.importing.write import import_files

        frame = import_files(store, self.files, self.settings())
        new = int((frame["was"] != "there").sum())
        did = f"{new:,} of {len(frame):,} cells imported"
        return Outcome("import", not new, did if new else f"all {len(frame):,} cells are there")


class ProtocolStage(WritingStage):
    """`clipsyn evaluate`, added to OUTPUT.parquet; a results file skips what it has itself."""

    def settings(self, **others: Any) -> Any:
        return super().settings(output=self.beside(".parquet"), **others)

    def planned(self, _store: Path, _made: Made) -> Planned:
        from clipsyn.evaluation.methods import learning, spelled_out

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
            f"{written(settings.output)}",
        )

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        from clipsyn.evaluation.report import tables
        from clipsyn.show.formats import written as as_text
        from clipsyn.show.frames import printable_frame
        from clipsyn.store.overlap import apart, image_notes, sample_tables

        opened, settings = FeatureStore.open(store), self.settings()
        kept = [file for file in (settings.output, settings.predictions_file) if file]
        before = [_written_at(file) for file in kept]
        frame = _evaluated(opened, settings, jobs)
        samples = sample_tables(opened, frame)
        shown = tables(printable_frame(frame), settings, apart(samples))
        self.renew(shown, self.section)
        skipped = None not in before and [_written_at(file) for file in kept] == before
        report = "\n\n".join([as_text(shown, "text"), *image_notes(samples)])
        return Outcome("evaluate", skipped, f"{len(frame):,} rows in {settings.output}", report)


def _evaluated(opened: FeatureStore, settings: ProtocolSettings, jobs: Jobs | None) -> DataFrame:
    from clipsyn.evaluation.loop import gather, measure

    if jobs:  # their results are put together here
        jobs(opened.path, settings)
        return gather(opened, settings)
    with progress("fits") as counters:
        return measure(opened, settings, counters)


def _written_at(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.exists() else None


def written(path: Path) -> str:
    """Whether a file is made or renewed, in words."""
    return f"{'renews' if path.exists() else 'writes'} {path}"


OTHER_STAGES: dict[str, type[Stage]] = {
    "extract": stage_class("extract", ExtractSettings, ExtractStage),
    "import": stage_class("import", ImportSettings, ImportStage),
    "evaluate": stage_class("evaluate", ProtocolSettings, ProtocolStage),
}

"""The stages that are no analyses: extract, import and evaluate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.exchange.importing.settings import ImportSettings
from clipsyn.extract.job import load_job, run_job
from clipsyn.extract.settings import ExtractSettings
from clipsyn.run.declared import DeclaredStage, SettingsStage, stage_model
from clipsyn.run.plan import (
    Made,
    Planned,
    planned_evaluation,
    planned_extraction,
    planned_import,
)
from clipsyn.settings import Settings
from clipsyn.show.progress import progress
from clipsyn.store.features import FeatureStore

if TYPE_CHECKING:
    from polars import DataFrame

_LOG = logging.getLogger("clipsyn")


@dataclass(frozen=True)
class Outcome:
    """What a stage came to: the row of the summary, and text to show at the end."""

    stage: str
    skipped: bool
    did: str
    report: str = ""
    seconds: float = 0.0


Jobs = Callable[[Path, Settings], None]  # does what settings ask for on a store


class ExtractStage(SettingsStage):
    def planned(self, store: Path, made: Made) -> Planned:
        return planned_extraction(store, self.settings(), made)

    def run(self, store: Path) -> Outcome:
        with progress() as counters:
            work, settings = load_job(store, self.settings(), counters)
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

    def run_by(self, jobs: Jobs, store: Path) -> Outcome:
        """The same by jobs; no weights are loaded here."""
        settings = self.settings()
        before = planned_extraction(store, settings.of_any_device(), Made()).what
        jobs(store, settings)
        return Outcome("extract", False, f"by jobs: {before}")


class ImportStage(SettingsStage):
    """Skipped where all that the files hold is there."""

    files: Sequence[Path] = Field(min_length=1)

    def planned(self, _store: Path, _made: Made) -> Planned:
        return planned_import(list(self.files))

    def run(self, store: Path) -> Outcome:
        from clipsyn.exchange.importing.write import import_files

        frame = import_files(store, self.files, self.settings())
        new = int((frame["was"] != "there").sum())
        did = f"{new:,} of {len(frame):,} cells imported"
        return Outcome("import", not new, did if new else f"all {len(frame):,} cells are there")


class ProtocolStage(DeclaredStage):
    """`clipsyn evaluate`, added to OUTPUT.parquet; a results file skips what it has itself."""

    def settings(self, **others: Any) -> Any:
        return super().settings(output=self.beside(".parquet"), **others)

    def planned(self, _store: Path, _made: Made) -> Planned:
        return planned_evaluation(self.settings(), self.beside(".parquet"))

    def run(self, store: Path) -> Outcome:
        from clipsyn.evaluation.loop import measure

        opened, settings = FeatureStore.open(store), self.settings()
        with progress("fits") as counters:
            return self._outcome(opened, lambda: measure(opened, settings, counters))

    def run_by(self, jobs: Jobs, store: Path) -> Outcome:
        """The same by jobs, whose results are put together here."""
        from clipsyn.evaluation.loop import gather

        opened, settings = FeatureStore.open(store), self.settings()

        def measured() -> DataFrame:
            jobs(store, settings)
            return gather(opened, settings)

        return self._outcome(opened, measured)

    def _outcome(self, opened: FeatureStore, measured: Callable[[], DataFrame]) -> Outcome:
        from clipsyn.evaluation.report import tables
        from clipsyn.show.formats import renew, written
        from clipsyn.show.frames import printable_frame
        from clipsyn.store.overlap import apart, sample_tables, shared_notes

        settings = self.settings()
        kept = [file for file in (settings.output, settings.predictions) if file]
        before = [_written_at(file) for file in kept]
        frame = measured()
        samples = sample_tables(opened, frame)
        shown = tables(printable_frame(frame), settings, apart(samples))
        if self.document:
            renew(self.document, shown)
        skipped = None not in before and [_written_at(file) for file in kept] == before
        report = "\n\n".join([written(shown, "text"), *shared_notes(samples)])
        return Outcome("evaluate", skipped, f"{len(frame):,} rows in {settings.output}", report)


def _written_at(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.exists() else None


OTHER_STAGES = {
    "extract": stage_model("extract", ExtractSettings, ExtractStage),
    "import": stage_model("import", ImportSettings, ImportStage),
    "evaluate": stage_model("evaluate", ProtocolSettings, ProtocolStage),
}

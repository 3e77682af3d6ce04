"""The stage of the few-shot protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipsyn.progress import progress
from clipsyn.protocol.settings import ProtocolSettings
from clipsyn.recipe.declared import DeclaredStage, stage_model
from clipsyn.recipe.stages import Outcome
from clipsyn.store.features import FeatureStore


class ProtocolStage(DeclaredStage):
    """`clipsyn evaluate`, added to OUTPUT.parquet; a results file skips what it has itself."""

    def settings(self, **others: Any) -> Any:
        return super().settings(output=self.beside(".parquet"), **others)

    def run(self, store: Path) -> Outcome:
        from clipsyn.analyses.shared_images import apart, notes, sample_tables
        from clipsyn.frames import printable_frame
        from clipsyn.protocol.loop import measure
        from clipsyn.protocol.report import tables
        from clipsyn.show.document import renew

        opened, settings = FeatureStore.open(store), self.settings()
        table = settings.output
        before = table.stat().st_mtime_ns if table.exists() else None
        with progress("tasks") as counters:
            frame = measure(opened, settings, counters)
        samples, shown = sample_tables(opened, frame), printable_frame(frame)
        independent = apart(samples)
        if self.document:
            renew(self.document, tables(shown, settings, independent, terminal=False))
        skipped = before is not None and table.stat().st_mtime_ns == before
        texts = tables(shown, settings, independent).values()
        report = "\n\n".join([*texts, *notes(samples)])
        return Outcome("evaluate", skipped, f"{len(frame):,} rows in {table}", report)


EvaluateStage = stage_model("evaluate", ProtocolSettings, ProtocolStage)

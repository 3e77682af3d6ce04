"""The stages that fill a store: extract and import."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from clipsyn.extract.job import ExtractJob, plan_job, run_job
from clipsyn.progress import progress

_LOG = logging.getLogger("clipsyn")


@dataclass(frozen=True)
class Outcome:
    """What a stage came to: the row of the summary, and text to show at the end."""

    stage: str
    skipped: bool
    did: str
    report: str = ""
    seconds: float = 0.0


class ExtractStage(ExtractJob):
    """`clipsyn extract`."""

    stage: Literal["extract"]

    def run(self, store: Path) -> Outcome:
        with progress() as counters:
            plan, settings = plan_job(store, self, counters)
        for note in plan.notes:
            _LOG.info("note: %s", note)
        _LOG.info(plan.summary())
        if not plan.is_needed:
            return Outcome("extract", True, plan.summary())
        cells = list(plan.cells)
        made = sum(cell.is_needed for cell in cells)
        with progress() as counters:
            run_job(plan, settings, counters)
        did = (
            f"{made:,} of {len(cells):,} cells made" if made else "labels or class names corrected"
        )
        return Outcome("extract", False, did)


class ImportStage(BaseModel):
    """`clipsyn import`; skipped where all that the files hold is there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Literal["import"]
    files: Sequence[Path] = Field(min_length=1)
    dataset: str | None = None  # each file's, which is its experiment of model-vs-human
    split: str = "test"
    perturbation: str = "clean"
    backbone: str | None = None
    kind: Literal["auto", "predictions", "logits", "probabilities", "embeddings"] = "auto"
    format: Literal["auto", "model-vs-human", "vlm-shapebias"] = "auto"
    na: Literal["wrong", "left-out"] = "wrong"
    prompts: str | None = None
    ids: Path | None = None
    row_order: bool = False
    labels: Path | None = None
    classes: Path | None = None
    columns: Mapping[str, str] = {}  # what a column is for -> its name
    conditions: Mapping[str, str] = {}
    names: Mapping[str, str] = {}
    intersect: bool = False
    replace: bool = False

    def run(self, store: Path) -> Outcome:
        from clipsyn.importing.parts import Wanted
        from clipsyn.importing.write import import_files

        options = self.model_dump(exclude={"stage", "files", "dataset"})
        wanted = Wanted(self.dataset or "", by_experiment=self.dataset is None, **options)
        frame = import_files(store, self.files, wanted)
        new = int((frame["was"] != "there").sum())
        did = f"{new:,} of {len(frame):,} cells imported"
        return Outcome("import", not new, did if new else f"all {len(frame):,} cells are there")

"""The stages that fill a store, and the protocol: extract, import and evaluate."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from clipsyn.errors import UsageError
from clipsyn.extract.job import ExtractJob, plan_job, run_job
from clipsyn.progress import progress
from clipsyn.specs import MOST_SEEDS, MOST_WORKERS
from clipsyn.store.features import FeatureStore

_LOG = logging.getLogger("clipsyn")


def _named(path: Path) -> Path:
    if not path.name:
        raise UsageError(f"output '{path}' names no file: write a path such as runs/results")
    return path


OutputPath = Annotated[Path, AfterValidator(_named)]


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


class EvaluateStage(BaseModel):
    """`clipsyn evaluate`, added to `output`.parquet; a results file skips what it has itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Literal["evaluate"]
    datasets: Sequence[str] | None = None
    splits: Sequence[str] = ("test",)
    perturbations: Sequence[str] | None = ("clean",)
    backbones: Sequence[str] | None = None
    prompts: Sequence[str] | None = None
    heads: Sequence[str] = ("zero-shot",)
    ensembles: Sequence[str] = ("all",)
    shots: Sequence[int | Literal["full"]] = (1, 2, 4, 8, 16, "full")
    seeds: int = Field(3, ge=1, le=MOST_SEEDS)
    support: str | None = None  # train, if it is needed
    support_prompts: str | None = None
    views: Sequence[str] = ()
    base_to_new: bool = False
    workers: int = Field(1, ge=1, le=MOST_WORKERS)
    output: OutputPath
    compare: Sequence[str] = ()  # ensembles whose gains are set against disagreement
    document: Path | None = None  # Markdown whose tables are renewed

    @field_validator("compare")
    @classmethod
    def _known(cls, names: Sequence[str]) -> Sequence[str]:
        from clipsyn.ensembles import ENSEMBLES
        from clipsyn.estimator import from_text

        for name in names:
            from_text(ENSEMBLES, name)  # an unknown one is refused before anything is fitted
        return list(dict.fromkeys(names))

    def run(self, store: Path) -> Outcome:
        from clipsyn.analyses.shared_images import apart, notes, sample_tables
        from clipsyn.frames import printable_frame
        from clipsyn.protocol.choice import read_shots
        from clipsyn.protocol.gains import gain_table
        from clipsyn.protocol.loop import evaluate
        from clipsyn.protocol.tables import method_tables, named_tables
        from clipsyn.show.document import renew

        table = self.output.with_name(self.output.name + ".parquet")
        before = table.stat().st_mtime_ns if table.exists() else None
        settings = self.model_dump(exclude={"stage", "output", "compare", "document"})
        settings["shots"] = read_shots([str(k) for k in self.shots])
        settings["seeds"] = range(self.seeds)
        opened = FeatureStore.open(store)
        with progress("tasks") as counters:
            frame = evaluate(opened, output=table, progress=counters, **settings)
        samples = sample_tables(opened, frame)
        independent = [of.dataset for of in apart(samples)]
        shown = printable_frame(frame)
        gains = {
            f"gains, {head}": gain_table(shown, head, [*self.compare], independent, terminal=False)
            for head in (shown["head"].unique(maintain_order=True) if self.compare else ())
        }
        if self.document:
            renew(self.document, named_tables(shown, terminal=False) | gains)
        skipped = before is not None and table.stat().st_mtime_ns == before
        report = "\n\n".join([method_tables(shown), *gains.values(), *notes(samples)])
        return Outcome("evaluate", skipped, f"{len(frame):,} rows in {table}", report)

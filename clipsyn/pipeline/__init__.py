"""Recipes: a validated YAML file whose stages run in order, skipping what is already there."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipsyn import __version__
from clipsyn.errors import UsageError
from clipsyn.extract.job import ExtractJob, plan_job, run_job
from clipsyn.progress import progress
from clipsyn.registry import unknown_name
from clipsyn.specs import fingerprint
from clipsyn.store.features import FeatureStore

_LOG = logging.getLogger("clipsyn")
_MADE_FROM = ".made-from.json"


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


class ZeroshotStage(BaseModel):
    """`clipsyn zeroshot`, written to `output`.csv and `output`.parquet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Literal["zeroshot"]
    datasets: Sequence[str] | None = None
    splits: Sequence[str] | None = ("test",)
    perturbations: Sequence[str] | None = None
    backbones: Sequence[str] | None = None
    prompts: Sequence[str] | None = None
    output: Path

    def run(self, store: Path) -> Outcome:
        import polars as pl

        from clipsyn.evaluate import zeroshot
        from clipsyn.frames import write
        from clipsyn.report.tables import accuracy_table

        opened = FeatureStore.open(store)
        csv, table = (self.output.with_name(self.output.name + x) for x in (".csv", ".parquet"))
        made_from = fingerprint({"settings": self.model_dump(mode="json"), "store": digest(opened)})
        is_there = csv.exists() and table.exists()
        skipped = is_there and _was_made_from(self.output, made_from)
        if not skipped:
            filters = self.model_dump(exclude={"stage", "output"})
            frame = zeroshot(opened, **filters)
            self.output.parent.mkdir(parents=True, exist_ok=True)
            write(frame, csv=csv, parquet=table)
            _made_from_file(self.output).write_text(json.dumps({"fingerprint": made_from}))
        report = accuracy_table(pl.read_parquet(table))
        return Outcome("zeroshot", skipped, f"{csv} and .parquet", report)


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
    seeds: int = Field(3, ge=1)
    support: str = "train"
    support_prompts: str | None = None
    views: Sequence[str] = ()
    base_to_new: bool = False
    workers: int = Field(1, ge=1)
    output: Path
    compare: Sequence[str] = ()  # ensembles whose gains are set against disagreement
    document: Path | None = None  # Markdown whose tables are renewed

    def run(self, store: Path) -> Outcome:
        from clipsyn.evaluate.loop import evaluate, named, read_shots
        from clipsyn.report.document import renew
        from clipsyn.report.gains import gain_table
        from clipsyn.report.methods import method_tables, named_tables

        table = self.output.with_name(self.output.name + ".parquet")
        before = table.stat().st_mtime_ns if table.exists() else None
        settings = self.model_dump(exclude={"stage", "output", "compare", "document"})
        settings["heads"], settings["ensembles"] = named(self.heads, self.ensembles)
        settings["shots"] = read_shots([str(k) for k in self.shots])
        settings["seeds"] = range(self.seeds)
        with progress("tasks") as counters:
            frame = evaluate(FeatureStore.open(store), output=table, progress=counters, **settings)
        gains = {
            f"gains, {head}": gain_table(frame, head, [*self.compare], terminal=False)
            for head in (settings["heads"] if self.compare else ())
        }
        if self.document:
            renew(self.document, named_tables(frame, terminal=False) | gains)
        skipped = before is not None and table.stat().st_mtime_ns == before
        report = "\n\n".join([method_tables(frame), *gains.values()])
        return Outcome("evaluate", skipped, f"{len(frame):,} rows in {table}", report)


Stage = Annotated[ExtractStage | ZeroshotStage | EvaluateStage, Field(discriminator="stage")]


class Recipe(BaseModel):
    """A recipe file: one store, and the stages that fill and read it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    store: Path  # relative paths start at the folder that the command is run in
    stages: Sequence[Stage] = Field(min_length=1)


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; raises UsageError that names the line or the field."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"recipe {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no recipe: write store: and stages:, see docs/recipes.md")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{path}: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """The first thing that is wrong, with its place: ``stage 1 (extract): max_bad …``."""
    errors = error.errors()  # a misspelt field is also a missing one: say the former
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = [*first["loc"]]  # field, or: stages, position, kind of stage, field
    where, model = "", Recipe if len(place) < 3 else _STAGES[str(place[2])]
    if len(place) > 1:
        kind = f" ({place[2]})" if len(place) > 2 else ""
        where, place = f"stage {int(place[1]) + 1}{kind}: ", place[3:]
    field = ".".join(map(str, place))
    if first["type"] == "extra_forbidden":
        return where + str(unknown_name("field", field, model.model_fields))
    text = _WORDS.get(first["type"], first["msg"])
    return f"{where}{field}: {text}" if field else where + text


_STAGES: dict[str, type[BaseModel]] = {
    "extract": ExtractStage,
    "zeroshot": ZeroshotStage,
    "evaluate": EvaluateStage,
}
_STAGE_WORDS = f"write stage: {' or stage: '.join(_STAGES)}"
_WORDS = {  # for pydantic's types of error, in a recipe's terms
    "missing": "is missing",
    "model_attributes_type": _STAGE_WORDS,
    "sequence_str": "is a single text: write a list, such as [train, test]",
    "is_instance_of": "is not a list",
    "too_short": "is empty: it takes at least one stage",
    "union_tag_invalid": f"unknown stage, {_STAGE_WORDS}",
    "union_tag_not_found": _STAGE_WORDS,
}


def run_recipe(recipe: Recipe, started: Callable[[int, str], None]) -> list[Outcome]:
    """Run every stage in order; `started` is told number and name of each before it runs."""
    outcomes = []
    for number, stage in enumerate(recipe.stages, 1):
        started(number, stage.stage)
        start = time.monotonic()
        outcome = stage.run(recipe.store)
        seconds = time.monotonic() - start
        outcomes.append(
            Outcome(outcome.stage, outcome.skipped, outcome.did, outcome.report, seconds)
        )
    return outcomes


def digest(store: FeatureStore) -> str:
    """Changes whenever anything in the store that a table could depend on does."""
    from clipsyn.store.inventory import find_groups, group_digest

    groups = {str(group.path): group_digest(group) for group in find_groups(store, {})}
    return fingerprint({"clipsyn": __version__, "groups": groups})


def _made_from_file(output: Path) -> Path:
    return output.with_name(output.name + _MADE_FROM)


def _was_made_from(output: Path, expected: str) -> bool:
    try:
        recorded: Any = json.loads(_made_from_file(output).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(recorded, dict) and recorded.get("fingerprint") == expected

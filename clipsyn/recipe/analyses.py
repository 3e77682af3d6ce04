"""Stages that measure a store: each writes its numbers to files and shows their tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from clipsyn import __version__
from clipsyn.documents import parse_json
from clipsyn.errors import UsageError
from clipsyn.recipe.stages import Outcome, OutputPath
from clipsyn.specs import MOST, fingerprint
from clipsyn.store.features import FeatureStore

if TYPE_CHECKING:
    from polars import DataFrame

_MADE_FROM = ".made-from.json"
_NO_SETTINGS = {"stage", "output", "document", "section"}  # of what is measured


class Analysis(BaseModel):
    """What all have in common; docs/recipes.md says what each field is.

    Skipped where OUTPUT.csv and OUTPUT.parquet are there, made with the same settings from the
    same store and files by the same version of clipsyn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    over_datasets: ClassVar[bool] = True  # whether tables have means or correlations over them

    stage: str
    datasets: Sequence[str] | None = None
    splits: Sequence[str] = ("test",)
    perturbations: Sequence[str] | None = None
    backbones: Sequence[str] | None = None
    prompts: Sequence[str] | None = None
    output: OutputPath
    document: Path | None = None  # Markdown whose tables are renewed
    section: str | None = None  # with which their marks begin, if not with the stage

    def run(self, store: Path) -> Outcome:
        from clipsyn.analyses.shared_images import notes, sample_tables
        from clipsyn.frames import make_folder_of, printable_frame, write
        from clipsyn.show.document import renew

        opened = FeatureStore.open(store)
        csv, table = (self.output.with_name(self.output.name + x) for x in (".csv", ".parquet"))
        made_from = self._made_from(opened)
        is_current = csv.exists() and _was_made_from(self.output, made_from)
        make_folder_of(table)
        frame = _read(table) if is_current else None
        skipped = frame is not None
        if frame is None:
            frame = self.measure(opened, self.model_dump(exclude=_NO_SETTINGS))
            write(frame, csv=csv, parquet=table)
            _made_from_file(self.output).write_text(json.dumps({"fingerprint": made_from}))
        shown = printable_frame(frame)
        if self.document:
            plain = self.tables(shown, terminal=False).items()
            section = self.section or self.stage
            renew(self.document, {f"{section}: {name}": text for name, text in plain})
        said = notes(sample_tables(opened, frame)) if self.over_datasets else []
        report = "\n\n".join([*self.tables(shown, terminal=None).values(), *said])
        return Outcome(self.stage, skipped, f"{csv} and .parquet", report)

    def measure(self, store: FeatureStore, settings: dict[str, Any]) -> DataFrame:
        """The tidy frame. settings: all fields but those that say where it goes."""
        raise NotImplementedError

    def tables(self, frame: DataFrame, *, terminal: bool | None) -> Mapping[str, str]:
        """What is shown of the frame, by name."""
        raise NotImplementedError

    def files(self) -> Sequence[Path]:
        """What is read beside the store."""
        return ()

    def _made_from(self, store: FeatureStore) -> str:
        settings = self.model_dump(mode="json", exclude={"document", "section"})
        files = [_content(path) for path in self.files()]
        return fingerprint({"settings": settings, "files": files, "store": digest(store)})


class ZeroshotStage(Analysis):
    """`clipsyn zeroshot`."""

    over_datasets = False
    stage: Literal["zeroshot"]
    pooled: bool = False

    def measure(self, store: FeatureStore, settings: dict[str, Any]) -> DataFrame:
        from clipsyn.analyses.accuracy.measure import zeroshot

        return zeroshot(store, **settings)

    def tables(self, frame: DataFrame, *, terminal: bool | None) -> Mapping[str, str]:
        from clipsyn.analyses.accuracy.tables import accuracy_table

        return {"accuracy": accuracy_table(frame, terminal=terminal)}


class OracleStage(Analysis):
    """`clipsyn oracle`."""

    over_datasets = False
    stage: Literal["oracle"]
    pooled: bool = False
    weights: bool = False

    def measure(self, store: FeatureStore, settings: dict[str, Any]) -> DataFrame:
        from clipsyn.analyses.oracle.measure import oracle

        return oracle(store, **settings)

    def tables(self, frame: DataFrame, *, terminal: bool | None) -> Mapping[str, str]:
        from clipsyn.analyses.oracle.tables import tables

        return tables(frame, terminal=terminal)


class WithResults(Analysis):
    """An analysis that can take in the results of an evaluate stage."""

    results: Path | None = None
    head: str = "zero-shot"
    shots: int | Literal["full"] | None = None

    @field_serializer("shots")
    def _as_asked_for(self, shots: int | str | None) -> str | None:
        """As on the command line, where it is a text."""
        return None if shots is None else str(shots)

    def files(self) -> Sequence[Path]:
        return [self.results] if self.results else []


class DiversityStage(WithResults):
    """`clipsyn diversity`."""

    stage: Literal["diversity"]
    pooled: bool = False

    def measure(self, store: FeatureStore, settings: dict[str, Any]) -> DataFrame:
        from clipsyn.analyses.diversity.measure import diversity

        return diversity(store, **settings)

    def tables(self, frame: DataFrame, *, terminal: bool | None) -> Mapping[str, str]:
        from clipsyn.analyses.diversity.tables import tables

        return tables(frame, terminal=terminal)


class RepresentationStage(Analysis):
    """`clipsyn representation`."""

    stage: Literal["representation"]
    perturbations: Sequence[str] | None = ("clean",)
    samples: int = Field(2000, ge=2, le=MOST)
    neighbours: int = Field(10, ge=1, le=MOST)
    support: str | None = None  # train, where there is one
    seed: int = Field(0, ge=0, le=MOST)

    def measure(self, store: FeatureStore, settings: dict[str, Any]) -> DataFrame:
        from clipsyn.analyses.representation.measure import representation

        return representation(store, **settings)

    def tables(self, frame: DataFrame, *, terminal: bool | None) -> Mapping[str, str]:
        from clipsyn.analyses.representation.tables import tables

        return tables(frame, terminal=terminal)


class RobustnessStage(WithResults):
    """`clipsyn robustness`."""

    stage: Literal["robustness"]
    reference: str | None = None

    def measure(self, store: FeatureStore, settings: dict[str, Any]) -> DataFrame:
        from clipsyn.analyses.robustness.measure import robustness

        return robustness(store, **settings)

    def tables(self, frame: DataFrame, *, terminal: bool | None) -> Mapping[str, str]:
        from clipsyn.analyses.robustness.tables import tables

        return tables(frame, terminal=terminal)


_Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CascadeStage(Analysis):
    """`clipsyn cascade`."""

    stage: Literal["cascade"]
    perturbations: Sequence[str] | None = ("clean",)
    ensembles: Sequence[str] = ("log-avg",)
    order: Literal["cost", "greedy", "given"] = "cost"
    costs: Mapping[str, _Cost] = {}  # GFLOPs an image of backbones that nobody knows
    within: float = Field(0.01, ge=0, allow_inf_nan=False)
    support: str = "train"
    shots: int | None = Field(None, ge=1, le=MOST)
    seed: int = Field(0, ge=0, le=MOST)

    def measure(self, store: FeatureStore, settings: dict[str, Any]) -> DataFrame:
        from clipsyn.analyses.cascade.measure import cascade

        return cascade(store, **settings)

    def tables(self, frame: DataFrame, *, terminal: bool | None) -> Mapping[str, str]:
        from clipsyn.analyses.cascade.tables import tables

        return tables(frame, terminal=terminal)


def digest(store: FeatureStore) -> str:
    """Changes whenever anything in the store that a table could depend on does."""
    from clipsyn.store.inventory import find_groups, group_digest

    groups = {str(group.path): group_digest(store, group) for group in find_groups(store, {})}
    return fingerprint({"clipsyn": __version__, "groups": groups})


def _content(path: Path) -> str:
    """Digest of a file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}; an evaluate stage before this one makes it"
        ) from None


def _read(table: Path) -> DataFrame | None:
    """None for a file that is not there, or is damaged."""
    import polars as pl

    try:
        return pl.read_parquet(table, glob=False)
    except (OSError, pl.exceptions.PolarsError):
        return None


def _made_from_file(output: Path) -> Path:
    return output.with_name(output.name + _MADE_FROM)


def _was_made_from(output: Path, expected: str) -> bool:
    try:
        recorded: Any = parse_json(_made_from_file(output).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(recorded, dict) and recorded.get("fingerprint") == expected

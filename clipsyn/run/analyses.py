"""Stages that measure a store: each writes its numbers to files and shows their tables."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from clipsyn import __version__
from clipsyn.analyses import ANALYSES
from clipsyn.analyses.spec import Analysis
from clipsyn.errors import UsageError
from clipsyn.names import fingerprint
from clipsyn.run.declared import DeclaredStage, stage_model
from clipsyn.run.plan import Made, Planned, planned_analysis
from clipsyn.run.stages import Outcome
from clipsyn.settings import PATH
from clipsyn.store.features import FeatureStore
from clipsyn.text import parse_json

if TYPE_CHECKING:
    from polars import DataFrame


class AnalysisStage(DeclaredStage):
    """What the stages of analyses have in common.

    Skipped where OUTPUT.csv and OUTPUT.parquet are there, made with the same settings from the
    same store and files by the same version of clipsyn.
    """

    analysis: ClassVar[Analysis]

    section: str | None = None  # with which the marks in the document begin, if not with the stage

    def planned(self, _store: Path, _made: Made) -> Planned:
        files = [self.beside(".csv"), self.beside(".parquet"), *sorted(filter(None, self._written))]
        return planned_analysis(self.stage, self.settings(), *files)

    def run(self, store: Path) -> Outcome:
        from clipsyn.show.formats import renew, written
        from clipsyn.show.frames import make_folder_of, printable_frame, write

        opened, settings = FeatureStore.open(store), self.settings()
        csv, table, origin = map(self.beside, (".csv", ".parquet", ".made-from.json"))
        made_from = self._made_from(opened)
        files = [csv, *filter(None, self._written)]
        is_current = all(map(Path.exists, files)) and _was_made_from(origin, made_from)
        make_folder_of(table)
        frame = _read(table) if is_current else None
        skipped = frame is not None
        if frame is None:
            frame = self.analysis.measure(opened, settings)
            write(frame, csv=csv, parquet=table)
            self.analysis.write_files(opened, settings)
            origin.write_text(json.dumps({"fingerprint": made_from}))
        shown = self.analysis.tables(printable_frame(frame), settings)
        if self.document:
            section = self.section or self.stage
            renew(self.document, {f"{section}: {name}": it for name, it in shown.items()})
        said = self.analysis.notes(opened, frame, settings)
        report = "\n\n".join([*filter(None, [written(shown, "text")]), *said])
        return Outcome(self.stage, skipped, f"{csv} and .parquet", report)

    def _made_from(self, store: FeatureStore) -> str:
        """Changes whenever anything that decides the numbers does."""
        from clipsyn.evaluation.results.frame import RESULT

        declared = self.analysis.declared
        decisive = {name for name, it in declared.items() if not it.display}
        settings = self.model_dump(mode="json", include={"stage", "output", *decisive})
        paths = (getattr(self, name) for name, it in declared.items() if it.kind is PATH)
        read = [content(path) for path in paths if path]
        made_from = {"settings": settings, "files": read, "store": digest(store)}
        return fingerprint(made_from | {"columns": [*RESULT]})

    @property
    def _written(self) -> set[Path | None]:
        declared = self.analysis.declared
        return {getattr(self, name) for name, it in declared.items() if it.writes}


def stage_of(analysis: Analysis) -> type[AnalysisStage]:
    """The stage of a recipe with a field for each setting of the analysis."""
    made = stage_model(analysis.name, analysis.settings, AnalysisStage)
    made.analysis = analysis
    return made


ANALYSIS_STAGES = {name: stage_of(ANALYSES.load(name)) for name in ANALYSES}


def digest(store: FeatureStore) -> str:
    """Changes whenever anything in the store that a table could depend on does."""
    from clipsyn.store.inventory import find_groups, group_digest

    groups = {str(group.path): group_digest(store, group) for group in find_groups(store, {})}
    return fingerprint({"clipsyn": __version__, "groups": groups})


def content(path: Path) -> str:
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

    from clipsyn.show.frames import read_parquet

    try:
        return read_parquet(table)
    except (OSError, pl.exceptions.PolarsError):
        return None


def _was_made_from(origin: Path, expected: str) -> bool:
    try:
        recorded: Any = parse_json(origin.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(recorded, dict) and recorded.get("fingerprint") == expected

"""Stages that read a store: analyses, which write numbers and show tables, and the page."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from clipsyn import __version__
from clipsyn.analyses import ANALYSES, Analysis
from clipsyn.errors import UsageError
from clipsyn.names import fingerprint
from clipsyn.report.settings import ReportSettings
from clipsyn.run.stages import (
    Jobs,
    Made,
    Outcome,
    Planned,
    Stage,
    WritingStage,
    stage_class,
    written,
)
from clipsyn.settings import OUTPUT, PATH, REQUIRED, setting
from clipsyn.store.features import FeatureStore
from clipsyn.text import parse_json

if TYPE_CHECKING:
    from polars import DataFrame

_HEAD = 4096  # bytes of a page, in which its note stands


class AnalysisStage(WritingStage):
    """What the stages of analyses have in common.

    Skipped where OUTPUT.csv and OUTPUT.parquet are there, made with the same settings from the
    same store and files by the same version of clipsyn.
    """

    analysis: ClassVar[Analysis]

    def planned(self, _store: Path, _made: Made) -> Planned:
        results = getattr(self, "results", None)
        reads = f"reads {results}, " if results else ""
        files = [self.beside(".csv"), self.beside(".parquet"), *sorted(self._files)]
        return Planned(self.stage, reads + ", ".join(map(written, files)))

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        from clipsyn.show.formats import written as as_text
        from clipsyn.show.frames import make_folder_of, printable_frame, write

        opened, settings = FeatureStore.open(store), self.settings()
        csv, table, origin = map(self.beside, (".csv", ".parquet", ".made-from.json"))
        made_from = self._made_from(opened)
        is_current = all(map(Path.exists, [csv, *self._files])) and _noted(origin) == made_from
        make_folder_of(table)
        frame = _read(table) if is_current else None
        skipped = frame is not None
        if frame is None:
            frame = self.analysis.measure(opened, settings)
            write(frame, csv=csv, parquet=table)
            self.analysis.write_files(opened, settings)
            origin.write_text(json.dumps({"fingerprint": made_from}))
        shown = self.analysis.tables(printable_frame(frame), settings)
        self.renew(shown, self.section or self.stage)
        said = self.analysis.notes(opened, frame, settings)
        report = "\n\n".join([*filter(None, [as_text(shown, "text")]), *said])
        return Outcome(self.stage, skipped, f"{csv} and .parquet", report)

    def _made_from(self, store: FeatureStore) -> str:
        """Changes whenever anything that decides the numbers does."""
        from clipsyn.evaluation.results.frame import RESULT

        asked = self.analysis.declared.items()
        read = [getattr(self, name) for name, it in asked if it.kind is PATH]
        decisive = [name for name, it in asked if not it.display]
        return _origin(store, self, ["output", *decisive], read, columns=[*RESULT])

    @property
    def _files(self) -> set[Path]:
        """Those that its settings name."""
        asked = {getattr(self, name) for name, it in self.analysis.declared.items() if it.writes}
        return {file for file in asked if file}


class ReportStage(Stage):
    """Skipped where the page was made with the same settings from the same store and files."""

    output: Path = setting(REQUIRED, OUTPUT, "The page to write.")

    def planned(self, _store: Path, _made: Made) -> Planned:
        results = self.settings().results
        reads = f"reads {results}, " if results else ""
        return Planned(self.stage, reads + written(self.output))

    def run(self, store: Path, jobs: Jobs | None = None) -> Outcome:
        from clipsyn.report.page import write_page
        from clipsyn.show.frames import make_folder_of

        opened, settings = FeatureStore.open(store), self.settings()
        read = [settings.results, settings.predictions, *map(Path, settings.measured.values())]
        made_from = _origin(opened, self, [*self._declared], read)
        skipped = _noted_on(self.output) == made_from
        if not skipped:
            make_folder_of(self.output)
            write_page(opened, settings, made_from)
        return Outcome("report", skipped, f"{self.output}, open it in a browser")


STAGES: dict[str, type[Stage]] = {"report": stage_class("report", ReportSettings, ReportStage)}
for _name in ANALYSES:
    _analysis = ANALYSES.load(_name)
    _class = stage_class(_name, _analysis.settings, AnalysisStage)
    _class.analysis = _analysis
    STAGES[_name] = _class


def _origin(
    store: FeatureStore, stage: Stage, names: list[str], read: list[Path | None], **more: Any
) -> str:
    """Changes whenever settings, the files that are read, the store or clipsyn do."""
    values = {name: getattr(stage, name) for name in names}
    asked = json.loads(json.dumps({"stage": stage.stage, **values}, default=str))
    files = [content(path) for path in read if path]
    return fingerprint({"settings": asked, "files": files, "store": digest(store), **more})


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


def _noted(origin: Path) -> str | None:
    """What the note beside a table says that it was made from."""
    try:
        recorded: Any = parse_json(origin.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return recorded.get("fingerprint") if isinstance(recorded, dict) else None


def _noted_on(page: Path) -> str | None:
    """What a page says that it was made from."""
    from clipsyn.report.page import MADE_FROM

    try:
        with page.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    found = re.search(f'name="{MADE_FROM}" content="([0-9a-f]+)"', head)
    return found[1] if found else None

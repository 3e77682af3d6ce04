"""The stage that writes a page about what the stages before it have made."""

from __future__ import annotations

import re
from pathlib import Path

from clipsyn.names import fingerprint
from clipsyn.report.page_settings import ReportSettings
from clipsyn.run.analyses import content, digest
from clipsyn.run.declared import SettingsStage, stage_model
from clipsyn.run.plan import Made, Planned, planned_analysis
from clipsyn.run.stages import Outcome
from clipsyn.store.features import FeatureStore

_HEAD = 4096  # bytes of a page, in which its note stands


class ReportStage(SettingsStage):
    """Skipped where the page was made with the same settings from the same store and files."""

    output: Path

    def planned(self, _store: Path, _made: Made) -> Planned:
        return planned_analysis(self.stage, self.settings(), self.output)

    def run(self, store: Path) -> Outcome:
        from clipsyn.report.page import write_page
        from clipsyn.show.frames import make_folder_of

        opened = FeatureStore.open(store)
        made_from = self._made_from(opened)
        skipped = _noted(self.output) == made_from
        if not skipped:
            make_folder_of(self.output)
            write_page(opened, self.settings(), made_from)
        return Outcome("report", skipped, f"{self.output}, open it in a browser")

    def _made_from(self, store: FeatureStore) -> str:
        """Changes whenever anything that the page shows does."""
        settings = self.settings()
        files = [settings.results, settings.predictions, *map(Path, settings.measured.values())]
        read = [content(path) for path in files if path]
        asked = self.model_dump(mode="json")
        return fingerprint({"settings": asked, "files": read, "store": digest(store)})


def _noted(page: Path) -> str | None:
    """What a page says that it was made from."""
    from clipsyn.report.page import MADE_FROM

    try:
        with page.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    found = re.search(f'name="{MADE_FROM}" content="([0-9a-f]+)"', head)
    return found[1] if found else None


REPORT_STAGES = {"report": stage_model("report", ReportSettings, ReportStage)}

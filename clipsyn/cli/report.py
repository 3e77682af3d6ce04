"""`clipsyn report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipsyn.cli.declared import settings_command
from clipsyn.cli.output import say
from clipsyn.report.page_settings import ReportSettings


def _report(store: Path, **values: Any) -> None:
    from clipsyn.report.page import write_page
    from clipsyn.store.features import FeatureStore

    settings = ReportSettings(**values)
    page = write_page(FeatureStore.open(store), settings)
    say(f"{page}: {page.stat().st_size / 1e3:,.0f} kB, open it in a browser")


report = settings_command(
    "report",
    ReportSettings,
    _report,
    short="Write a page to read about a store.",
    about="""\
Write one HTML page about STORE, for a reader who has five minutes.

The answer comes first: which backbones, which combination, what it gains over the backbone that is
best on the support, at what cost, and how sure that is. Then figures, tables that can be sorted,
images that only one backbone gets right, caveats, and where the weights come from. The page opens
from a file, without a network.

Clean images are what the answer is about, where the store has any; --perturb names others. A store
that is not complete, or holds imported predictions alone, gets what can be said of it.""",
    examples=(
        "clipsyn report store -o report.html",
        "clipsyn report store --results results.parquet --images photos -o report.html",
        "clipsyn report store -d 'emoji-*' --measured cascade=cascade.parquet -o report.html",
    ),
)

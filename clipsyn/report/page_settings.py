"""Settings of the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clipsyn.analyses import ANALYSES
from clipsyn.evaluation import selection
from clipsyn.evaluation.selection import Selection
from clipsyn.registry import unknown_name
from clipsyn.settings import FILES, OUTPUT, PATH, REQUIRED, TEXT, setting


class ReportSettings(Selection):
    """What `clipsyn report` is asked for."""

    output: Path = setting(
        REQUIRED, OUTPUT, "The page to write.", letter="-o", metavar="FILE.html", endings=(".html",)
    )
    title: str | None = setting(
        None, TEXT, "What stands above the page.", instead_of_none="what was run"
    )
    pooled: bool = selection.pooled()
    results: Path | None = selection.results(
        "Results of `clipsyn evaluate -o`: which combination of backbones is best."
    )
    predictions: Path | None = setting(
        None,
        PATH,
        "Every method's answers, kept by `clipsyn evaluate`: which methods differ, and how surely.",
        instead_of_none="none",
    )
    measured: Mapping[str, str] = setting(
        {},
        FILES,
        "What the command of an analysis has written as Parquet, such as "
        "cascade=cascade.parquet; repeated or with commas.",
        metavar="ANALYSIS=FILE",
    )
    images: Path | None = setting(
        None,
        PATH,
        "Folder, tar or manifest of the images, or the folder of several datasets: show those "
        "that only one backbone gets right.",
        instead_of_none="none",
    )

    def _check(self) -> None:
        for name in self.measured:
            if name not in ANALYSES:
                raise unknown_name("analysis", name, ANALYSES)

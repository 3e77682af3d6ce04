"""The commands that measure a store, one for each registered analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.analyses.spec import Analysis
from clipsyn.cli.declared import settings_command
from clipsyn.cli.options import Report, report_options, say_written
from clipsyn.cli.output import say
from clipsyn.show.formats import BENCHMARK, FORMATS


def command_of(analysis: Analysis) -> click.Command:
    """`clipsyn NAME STORE`, with an option for each setting of the analysis."""

    def run(store: Path, *, report: Report, **values: Any) -> None:
        from clipsyn.store.features import FeatureStore

        opened, settings = FeatureStore.open(store), analysis.settings(**values)
        frame = analysis.measure(opened, settings)
        report.show(frame, lambda shown: analysis.tables(shown, settings))
        for note in analysis.notes(opened, frame, settings):
            say(note, err=True)
        for path, rows in analysis.write_files(opened, settings):
            say_written(rows, path)

    formats = (*FORMATS, BENCHMARK) if analysis.benchmark else FORMATS
    return settings_command(
        analysis.name,
        analysis.settings,
        report_options(run, formats=formats),
        short=analysis.short,
        about=analysis.about,
        examples=analysis.examples,
    )

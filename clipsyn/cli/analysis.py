"""The commands that measure a store, one for each registered analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.analyses.spec import Analysis
from clipsyn.cli.declared import settings_options
from clipsyn.cli.options import Command, Report, joined, report_options, say_written, store_argument
from clipsyn.cli.output import say


def command_of(analysis: Analysis) -> click.Command:
    """`clipsyn NAME STORE`, with an option for each setting of the analysis."""

    def run(store: Path, *, report: Report, **values: Any) -> None:
        from clipsyn.store.features import FeatureStore

        opened, settings = FeatureStore.open(store), analysis.settings.of(values)
        frame = analysis.measure(opened, settings)
        report.show(frame, lambda shown: joined(analysis.tables(shown, settings)))
        for note in analysis.notes(opened, frame, settings):
            say(note, err=True)
        for path, rows in analysis.write_files(opened, settings):
            say_written(rows, path)

    command: Command = report_options(run)
    for option in reversed(settings_options(analysis.settings)):
        command = option(command)
    examples = "\n".join(["\b", *analysis.examples])
    help = f"{analysis.about}\n\n{examples}"
    command = store_argument(command)
    return click.command(analysis.name, short_help=analysis.short, help=help)(command)

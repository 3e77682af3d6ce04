"""`clipsyn plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clipsyn.analyses.spec import Selection
from clipsyn.cli.declared import settings_options
from clipsyn.cli.options import Destination, say_written, with_options
from clipsyn.cli.output import say, say_rows
from clipsyn.report import FIGURES


def _list(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked:
        say_rows(
            [
                {"figure": name, "of": figure.source, "what it shows": figure.short}
                for name in FIGURES
                for figure in [FIGURES.load(name)]
            ]
        )
        context.exit()


def _plot(name: str, source: Path, output: Path, **selection: Any) -> None:
    from clipsyn import frames
    from clipsyn.report.plot import frame_of
    from clipsyn.show.style import format_of, save

    format_of(output)
    figure = FIGURES.load(name)
    data = figure.data(frame_of(figure, source, **vars(Selection(**selection))))
    save(figure(data).figure, output)
    beside = output.with_suffix(".csv")
    frames.write(data, csv=beside)
    say(f"{output}: {figure.caption}", err=True)
    say_written(len(data), beside)


plot = click.command(
    "plot",
    short_help="Draw a figure of a store or of results.",
    help="""\
Draw the figure NAME of SOURCE, a store or the Parquet file of a command's --parquet or -o.

The ending of the output names the format: .svg, .pdf or .png. Beside it a CSV file has the numbers
that are drawn. `clipsyn plot --list` says what there is and whose numbers each figure shows; an
analysis of a store has its defaults, so for other settings draw the file that its command wrote.

\b
clipsyn plot --list
clipsyn plot accuracy-matrix store -p clean -o accuracy.pdf
clipsyn plot few-shot results.parquet -d emoji-food -o food.svg""",
)(
    with_options(
        _plot,
        [
            click.argument("name"),
            click.argument("source", type=click.Path(path_type=Path), envvar="CLIPSYN_STORE"),
            click.option(
                "-o", "--output", type=Destination(), required=True, help="The file to write."
            ),
            *settings_options(Selection),
            click.option(
                "--list",
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_list,
                help="Say which figures there are.",
            ),
        ],
    )
)

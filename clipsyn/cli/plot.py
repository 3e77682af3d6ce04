"""`clipsyn plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.declared import settings_options
from clipsyn.cli.options import Destination, StorePath, say_written, with_options
from clipsyn.cli.output import say, say_rows
from clipsyn.errors import UsageError
from clipsyn.report import FIGURES
from clipsyn.report.settings import Drawn

if TYPE_CHECKING:
    from clipsyn.show.figure import Figure


def _line(figure: Figure) -> dict[str, str]:
    return {"figure": figure.name, "of": figure.source, "what it shows": figure.short}


def _plot(
    name: str | None,
    sources: tuple[Path, ...],
    output: Path | None,
    *,
    listed: bool,
    **selection: Any,
) -> None:
    if listed:
        say_rows([_line(FIGURES.load(figure)) for figure in FIGURES])
    elif not (name and sources and output):
        raise UsageError(
            "say which figure, of what and where to: `clipsyn plot NAME STORE -o figure.pdf`; "
            "`clipsyn plot --list` says which figures there are"
        )
    else:
        _draw(name, sources, output, Drawn(**selection))


def _draw(name: str, sources: tuple[Path, ...], output: Path, drawn: Drawn) -> None:
    import matplotlib  # noqa: F401 (an extra, asked for before anything is measured)

    from clipsyn.report.plot import frame_of
    from clipsyn.show import frames
    from clipsyn.show.figure import format_of, save

    format_of(output)
    figure = FIGURES.load(name)
    data = figure.data(frame_of(figure, sources, drawn))
    save(figure(data).figure, output)
    beside = output.with_name(f"{output.name}.csv")
    frames.write(data, csv=beside)
    say(f"{output}: {figure.caption}", err=True)
    say_written(len(data), beside)


plot = click.command(
    "plot",
    short_help="Draw a figure of a store or of results.",
    help="""\
Draw the figure NAME of SOURCE, a store or the Parquet file of a command's --parquet or -o.

The ending of the output says the format: .svg, .pdf or .png. A CSV file beside it, figure.svg.csv
for figure.svg, has the numbers that are drawn. Of several SOURCEs the numbers stand in one figure.

Without filters all that is in a file is drawn, and of a store what its analysis takes. For other
settings of the analysis, draw the file that its command wrote. --list says which figures there are,
and which command each shows the numbers of.

\b
clipsyn plot --list
clipsyn plot accuracy-matrix store -p clean -o accuracy.pdf
clipsyn plot gains results.parquet store -p clean -o gains.svg""",
)(
    with_options(
        _plot,
        [
            click.argument("name", metavar="NAME", required=False),
            click.argument(
                "sources",
                metavar="SOURCE...",
                nargs=-1,
                type=StorePath(),
                envvar="CLIPSYN_STORE",
            ),
            click.option("-o", "--output", type=Destination(), help="The file to write."),
            *settings_options(Drawn),
            click.option("--list", "listed", is_flag=True, help="Say which figures there are."),
        ],
    )
)

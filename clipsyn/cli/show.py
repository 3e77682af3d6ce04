"""`clipsyn report` and `plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.declared import settings_command, settings_options
from clipsyn.cli.options import Destination, StorePath, with_options
from clipsyn.cli.output import say, say_rows, say_written
from clipsyn.errors import UsageError
from clipsyn.report import FIGURES
from clipsyn.report.settings import Drawn, ReportSettings

if TYPE_CHECKING:
    from clipsyn.show.figure import Figure


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
    about="""\
Write one HTML page about STORE, for a reader who has five minutes.

The answer comes first: the method that the support chooses, what it gains over the best single
backbone and over zero-shot, and at what cost; then what needs no labels; then the limit. Then
figures, tables that can be sorted, images to look at, caveats, and where the weights come from. The
page opens from a file, without a network.

Clean images are what the answer is about, where the store has any; --perturb names others. A store
that is not complete, or holds imported predictions alone, gets what can be said of it.""",
    examples=(
        "clipsyn report store -o report.html",
        "clipsyn report store --results results.parquet --images photos -o report.html",
        "clipsyn report store -d 'emoji-*' --measured cascade=cascade.parquet -o report.html",
    ),
)


def _line(figure: Figure) -> dict[str, str]:
    return {"figure": figure.name, "of": figure.source, "what it shows": figure.short}


def _plot(
    name: str | None,
    sources: tuple[Path, ...],
    output: Path | None,
    heading: bool,
    **selection: Any,
) -> None:
    if name is None and output is None:
        say_rows([_line(FIGURES.load(figure)) for figure in FIGURES])
    elif not (name and sources and output):
        raise UsageError(
            "say which figure, of what and where to: `clipsyn plot NAME STORE -o figure.pdf`; "
            "`clipsyn plot` says which figures there are"
        )
    else:
        _draw(name, sources, output, Drawn(**selection), heading=heading)


def _draw(
    name: str, sources: tuple[Path, ...], output: Path, drawn: Drawn, *, heading: bool
) -> None:
    import matplotlib  # noqa: F401 (an extra, asked for before anything is measured)

    from clipsyn.report.plot import frame_of
    from clipsyn.show import frames
    from clipsyn.show.figure import save

    figure = FIGURES.load(name)
    data = figure.data(frame_of(figure, sources, drawn))
    save(figure(data, heading=heading).figure, output)
    beside, text = (output.with_name(f"{output.name}.{end}") for end in ("csv", "txt"))
    frames.write(data, csv=beside)
    with frames.written_whole(text) as file:
        file.write(f"{figure.text(data)}\n".encode())
    say(f"{output}: {figure.text(data)}", err=True)
    say_written(len(data), beside)


plot = click.command(
    "plot",
    help="""\
Draw the figure NAME of SOURCE, a store or the Parquet file that a command wrote by -o.

The ending of the output says the format: .svg, .pdf or .png. Beside figure.svg stand
figure.svg.csv, the numbers that are drawn, and figure.svg.txt, the caption. Of several SOURCEs the
numbers stand in one figure.

Without filters all that is in a file is drawn, and of a store what its analysis takes. For other
settings of the analysis, draw the file that its command wrote. Without a NAME the figures
are listed, with the command whose numbers each shows.

\b
clipsyn plot
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
            click.option(
                "-o",
                "--output",
                type=Destination(".svg", ".pdf", ".png"),
                help="The file to write.",
            ),
            click.option("--heading", is_flag=True, help="Say above the figure what it is of."),
            *settings_options(Drawn),
        ],
    )
)

"""Options that several commands share: the store, lists of names, and where numbers go."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.output import format_of, format_option, say, say_document, say_tables
from clipsyn.names import Location, is_url, listed
from clipsyn.settings import refuse_overwriting
from clipsyn.show.formats import BENCHMARK, FORMATS
from clipsyn.text import counted

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.show.table import Tables

Command = Callable[..., Any]
AGES = {"m": 60, "h": 3_600, "d": 86_400}  # seconds, by the letter of a unit


class StorePath(click.Path):
    """A path, or the URL of a published store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if isinstance(value, str) and is_url(value):
            return Location.of(value)
        return Path(os.fsdecode(super().convert(value, param, ctx)))


class Source(click.types.StringParamType):
    """A name, or a file that is read."""


store_argument = click.argument("store", type=StorePath(), envvar="CLIPSYN_STORE")


class Destination(click.Path):
    """A place to write to; one that cannot be is refused before the work starts.

    is_made: whether the command makes the folder, or is to write one.
    """

    name = "file"

    def __init__(self, *, is_made: bool = False) -> None:
        super().__init__()
        self.is_made = is_made

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if self.is_made:
            from clipsyn.settings import check_outside

            check_outside(path)
        else:
            from clipsyn.show.frames import check_place

            check_place(path)
        return path


def overwriting_nothing(command: Command) -> Command:
    """The command, which runs when no file that it writes is one that it reads, or another."""

    @wraps(command)
    def checked(*values: Any, **named: Any) -> Any:
        context = click.get_current_context()
        given = {it: context.params[it.name or ""] for it in context.command.params}
        files = {it: path for it, path in given.items() if isinstance(it.type, click.Path | Source)}
        written = {flag_of(it): files.pop(it) for it in given if isinstance(it.type, Destination)}
        # several sources stand for the files in their folders, too
        sources = (path for it, several in given.items() if it.nargs == -1 for path in several)
        folders = {path.resolve() for path in sources}
        inside = [it for it in written.values() if it and folders & {*it.resolve().parents}]
        refuse_overwriting(written, [*files.values(), *inside])
        return command(*values, **named)

    return checked


def flag_of(parameter: click.Parameter) -> str:
    """The long spelling of an option; what help calls an argument."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name


def names_of(
    _context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The names of an option that is repeated or has commas; None without any."""
    return listed(texts, flag_of(parameter)) or None


def list_option(*names: str, **settings: Any) -> Callable[[Command], Command]:
    """An option that is repeated or has commas: the command gets a tuple, or None without it."""
    return click.option(*names, multiple=True, callback=names_of, **settings)


def cell_filters(
    help: str = "Names or patterns, repeated or with commas, as all filters.",
    *,
    prompts: bool = False,
) -> Callable[[Command], Command]:
    """Options that choose cells: the command gets each under the name of its dimension.

    help: of the first. prompts: whether prompt sets can be chosen, too.
    """
    options = [
        list_option("-d", "--dataset", help=help),
        list_option("-s", "--split", help="For instance train."),
        list_option("-p", "--perturb", "perturbation", help="clean, or for instance 'jpeg-*'."),
        list_option("-b", "--backbones", "backbone", help="For instance ViT-B-32/openai."),
    ]
    if prompts:
        about = "Class embeddings and logits of these prompt sets alone."
        options.append(list_option("--prompts", help=about))
    return partial(with_options, options=options)


def dry_run_option(done: str) -> Callable[[Command], Command]:
    """--dry-run; done: what is done without it, such as copied."""
    about = f"Say what would be {done}, and stop."
    return click.option("--dry-run", is_flag=True, help=about)


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def older_than_option(about: str, default: str) -> Callable[[Command], Command]:
    """--older-than, as seconds."""
    return click.option(
        "--older-than",
        callback=_seconds,
        default=default,
        show_default=True,
        metavar="AGE",
        help=f"{about}: 30m, 12h, 7d. 0 is whatever its age.",
    )


def _seconds(context: click.Context, parameter: click.Parameter, age: str) -> int:
    """Of minutes, hours or days."""
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", age)
    if match is None and age != "0":
        raise click.BadParameter(f"'{age}' is no age: write 30m, 12h, 7d or 0", context, parameter)
    return int(match[1]) * AGES[match[2]] if match else 0


@dataclass(frozen=True)
class Report:
    """How a command reports its numbers."""

    format: str  # of `clipsyn.show.formats`, or json
    csv: Path | None
    parquet: Path | None

    def show(self, frame: DataFrame, tables: Callable[[DataFrame], Mapping[str, Tables]]) -> None:
        """Write `frame` to the files that are wanted, and print it or its `tables`.

        tables: makes tables by name of the frame, with names that may be printed.
        """
        from clipsyn.show import frames

        frames.write(frame, csv=self.csv, parquet=self.parquet)
        if self.format == "json":
            say_document(frames.to_json(frame))
        elif self.format == BENCHMARK:
            from clipsyn.evaluation.results.benchmark import benchmark_csv

            say_document(benchmark_csv(frame))
        else:
            say_tables(tables(frames.printable_frame(frame)), self.format)
        say_written(len(frame), self.csv, self.parquet)


def report_options(command: Command, *, formats: Sequence[str] = FORMATS) -> Command:
    """--format, --json, --csv and --parquet: the command gets a `Report` called `report`.

    formats: none where the command has another option of that name.
    """

    @wraps(command)
    def with_report(
        *, as_json: bool, csv: Path | None, parquet: Path | None, **parameters: Any
    ) -> Any:
        asked = parameters.pop("format") if formats else FORMATS[0]
        return command(report=Report(format_of(as_json, asked), csv, parquet), **parameters)

    file = Destination()
    options = (
        *([format_option(formats)] if formats else []),
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."),
        click.option("--csv", type=file, help="Also write the numbers to this file."),
        click.option("--parquet", type=file, help="The same as Parquet."),
    )
    return with_options(with_report, options)


def say_written(rows: int, *paths: Path | None) -> None:
    for path in paths:
        if path:
            say(f"{counted(rows, 'row')} written to {path}", err=True)


def with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):  # so that --help has them in this order
        command = option(command)
    return command

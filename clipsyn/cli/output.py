"""Output of commands, in which no control character reaches the terminal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from clipsyn.errors import UsageError
from clipsyn.show.formats import FORMATS
from clipsyn.text import printable, printable_lines

if TYPE_CHECKING:
    from clipsyn.show.table import Tables

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def format_option(formats: Sequence[str] = FORMATS) -> Callable[[Callable[..., Any]], Any]:
    """--format: the command gets it as `format`, and gives it to `format_of`."""
    return click.option(
        "--format",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        metavar="NAME",
        help=f"How tables are printed: {', '.join(formats)}.",
    )


def format_of(as_json: bool, format: str) -> str:
    """The format of tables, or "json"; raises UsageError where both are asked for."""
    if as_json and format != FORMATS[0]:
        raise UsageError(f"--json prints no tables, in no format: leave out --format {format}")
    return "json" if as_json else format


def say(text: str, *, err: bool = False, **style: Any) -> None:
    """Write one line to standard output or error; `style` as `click.style` has it."""
    _echo(click.style(printable(text), **style), err)


def say_over(text: str) -> None:
    """Write one line to a terminal in place of the one before, cut to its width."""
    columns = shutil.get_terminal_size().columns
    _echo(f"\r\x1b[K{printable(text)[: columns - 1]}", err=False, nl=False)


def say_lines(text: str, *, err: bool = False) -> None:
    """Write tables and paragraphs as wide as the terminal; their names are printable already."""
    from clipsyn.show.text import paragraphs, width_of  # not for every start

    _echo(paragraphs(printable_lines(text), width_of(terminal=None)), err)


def say_rows(rows: Sequence[Mapping[str, Any]], **how: Any) -> None:
    """Write rows as a table; `how` as `clipsyn.show.tables.show` has it."""
    from clipsyn.show.tables import show

    say_lines(show(rows, **how))


def say_tables(shown: Mapping[str, Tables], format: str) -> None:
    """Write tables by name in one of `FORMATS`."""
    from clipsyn.show.formats import written

    text = written(shown, format)
    if format == FORMATS[0]:
        say_lines(text)
    else:
        say_document(text)


def say_json(value: Any) -> None:
    say_document(json.dumps(value, indent=2, ensure_ascii=False))


def say_document(text: str) -> None:
    """Write lines that programs may read: they are not wrapped to the terminal."""
    _echo(printable_lines(text), err=False)


def _echo(text: str, err: bool, nl: bool = True) -> None:
    try:
        click.echo(text, err=err, nl=nl)
    except OSError as error:
        error.filename = error.filename or f"standard {'error' if err else 'output'}"
        raise

"""Output of commands, in which no control character reaches the terminal."""

from __future__ import annotations

import json
from typing import Any

import click

from clipsyn.printable import printable, printable_lines


def say(text: str, *, err: bool = False, **style: Any) -> None:
    """Write one line to standard output or error; `style` as `click.style` has it."""
    _echo(click.style(printable(text), **style), err)


def say_lines(text: str, *, err: bool = False) -> None:
    """Write tables and paragraphs as wide as the terminal; their names are printable already."""
    from clipsyn.show.layout import paragraphs, width_of  # not for every start

    _echo(paragraphs(printable_lines(text), width_of(terminal=None)), err)


def say_json(value: Any) -> None:
    say_document(json.dumps(value, indent=2, ensure_ascii=False))


def say_document(text: str) -> None:
    """Write lines that programs may read: they are not wrapped to the terminal."""
    _echo(printable_lines(text), err=False)


def _echo(text: str, err: bool) -> None:
    try:
        click.echo(text, err=err)
    except OSError as error:
        error.filename = error.filename or f"standard {'error' if err else 'output'}"
        raise

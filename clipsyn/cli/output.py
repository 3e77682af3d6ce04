"""Output of commands: files by their ending, and text in which no control character is left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.text import counted, printable, printable_lines

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.show.table import Tables

STDOUT = Path("-")
JSON = (".json", str(STDOUT))
NUMBERS = (".csv", ".parquet", *JSON)
TABLES = {".md": "markdown", ".tex": "latex"}
BENCHMARK = ".clip-benchmark.csv"  # the columns of CLIP_benchmark's results


@dataclass(frozen=True)
class Output:
    """The files that a command was given by -o; `STDOUT` stands for JSON instead of tables."""

    files: tuple[Path, ...]

    def show(
        self,
        numbers: Any,
        tables: Callable[[Any], Mapping[str, Tables]],
    ) -> None:
        """Write rows, or the tables that show them, to each file; print the tables, or JSON.

        numbers: a frame, or a dictionary a row. tables: makes tables by name of them, or of the
        same frame with names that may be printed.
        """
        files = [file for file in self.files if file != STDOUT]
        has_tables = STDOUT not in self.files or any(it.suffix.lower() in TABLES for it in files)
        shown = tables(_printable(numbers)) if has_tables else {}
        for file in files:  # first: who reads what is printed may close the pipe
            _write(file, numbers, shown)
        if STDOUT in self.files:
            say_document(_json(numbers))
        else:
            say_tables(shown)
        for file in files:
            say_written(len(numbers), file)

    def json(self, value: Any) -> bool:
        """Write a value as JSON to each file; whether that is all that is to be printed."""
        for file in self.files:
            if file == STDOUT:
                say_document(_json(value))
            else:
                _write_text(file, _json(value))
        return STDOUT in self.files


def _write(file: Path, numbers: Any, shown: Mapping[str, Tables]) -> None:
    from clipsyn.show import frames

    name, ending = file.name.lower(), file.suffix.lower()
    if ending in TABLES:
        from clipsyn.show.formats import written

        _write_text(file, written(shown, TABLES[ending]))
    elif ending == ".json":
        _write_text(file, _json(numbers))
    elif name.endswith(BENCHMARK):
        from clipsyn.evaluation.results.benchmark import benchmark_csv

        _write_text(file, benchmark_csv(numbers))
    else:
        frames.write(_frame(numbers), **{ending.removeprefix("."): file})


def _write_text(file: Path, text: str) -> None:
    from clipsyn.show.frames import written_whole

    with written_whole(file) as opened:
        opened.write(f"{printable_lines(text).rstrip()}\n".encode())


def _frame(numbers: Any) -> DataFrame:
    import polars as pl

    if isinstance(numbers, pl.DataFrame):
        return numbers
    return pl.DataFrame(numbers, infer_schema_length=None).drop(pl.selectors.struct())


def _printable(numbers: Any) -> Any:
    if isinstance(numbers, list):
        return numbers
    from clipsyn.show.frames import printable_frame

    return printable_frame(numbers)


def _json(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, indent=2, ensure_ascii=False)
    from clipsyn.show.frames import to_json

    return to_json(value)


def say_written(rows: int, file: Path) -> None:
    say(f"{counted(rows, 'row')} written to {file}", err=True)


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


def say_tables(shown: Mapping[str, Tables]) -> None:
    """Write tables by name."""
    from clipsyn.show.formats import written

    say_lines(written(shown, "text"))


def say_json(value: Any) -> None:
    say_document(_json(value))


def say_document(text: str) -> None:
    """Write lines that programs may read: they are not wrapped to the terminal."""
    _echo(printable_lines(text), err=False)


def _echo(text: str, err: bool, nl: bool = True) -> None:
    try:
        click.echo(text, err=err, nl=nl)
    except OSError as error:
        error.filename = error.filename or f"standard {'error' if err else 'output'}"
        raise

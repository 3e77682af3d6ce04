"""What commands say: files by their ending, printable text, and the sentence that ends a command.

The library's messages name arguments of Python; what goes to standard error names flags instead.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from clipsyn.errors import ClipsynError, Interrupted, UsageError
from clipsyn.text import counted, printable, printable_lines

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.show.table import Tables

STDOUT = Path("-")
NUMBERS = (".csv", ".parquet", ".json")
TABLES = {".md": "markdown", ".tex": "latex"}
BENCHMARK = ".clip-benchmark.csv"  # the columns of CLIP_benchmark's results


@dataclass(frozen=True)
class Output:
    """The files that a command was given by -o; `STDOUT` stands for JSON instead of tables."""

    files: tuple[Path, ...]

    def show(self, numbers: Any, tables: Callable[[Any], Mapping[str, Tables]]) -> None:
        """Write rows, or the tables that show them, to each file; print the tables, or JSON.

        numbers: a frame, or a dictionary a row. tables: makes tables by name of them, or of the
        same frame with names that may be printed.
        """
        files = [file for file in self.files if file != STDOUT]
        has_tables = STDOUT not in self.files or any(it.suffix.lower() in TABLES for it in files)
        shown: Mapping[str, Tables] = {}
        if has_tables and isinstance(numbers, list):  # without polars
            shown = tables(numbers)
        elif has_tables:
            from clipsyn.show.frames import printable_frame

            shown = tables(printable_frame(numbers))
        for file in files:  # first: who reads what is printed may close the pipe
            _write(file, numbers, shown)
        if STDOUT in self.files:
            say_document(as_json(numbers))
        else:
            say_tables(shown)
        for file in files:
            say_written(len(numbers), file)

    def without(self, ending: str) -> tuple[Path | None, Output]:
        """The file of that ending, which is written in another way, and the other files."""
        apart = [file for file in self.files if file.suffix.lower() == ending]
        if len(apart) > 1:
            raise UsageError(f"there is one file {ending}: give --output one name of that ending")
        others = tuple(file for file in self.files if file not in apart)
        return next(iter(apart), None), Output(others)

    def json(self, value: Any) -> bool:
        """Write a value as JSON to each file; whether that is all that is to be printed."""
        for file in self.files:
            if file == STDOUT:
                say_document(as_json(value))
            else:
                _write_text(file, as_json(value))
        return STDOUT in self.files


def _write(file: Path, numbers: Any, shown: Mapping[str, Tables]) -> None:
    from clipsyn.show import frames

    ending = file.suffix.lower()
    if ending in TABLES:
        from clipsyn.show.formats import written

        _write_text(file, written(shown, TABLES[ending]))
    elif ending == ".json":
        _write_text(file, as_json(numbers))
    elif file.name.lower().endswith(BENCHMARK):
        from clipsyn.evaluation.published import benchmark_columns

        frames.write(benchmark_columns(_frame(numbers)), csv=file)
    else:
        frames.write(_frame(numbers), **{ending.removeprefix("."): file})


def _write_text(file: Path, text: str) -> None:
    from clipsyn.show.files import written_whole

    with written_whole(file) as opened:
        opened.write(f"{printable_lines(text).rstrip()}\n".encode())


def _frame(numbers: Any) -> DataFrame:
    import polars as pl

    if isinstance(numbers, pl.DataFrame):
        return numbers
    return pl.DataFrame(numbers, infer_schema_length=None).drop(pl.selectors.struct())


def as_json(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, indent=2, ensure_ascii=False)
    from clipsyn.show.frames import to_json

    return to_json(value)


def say_written(rows: int, file: Path) -> None:
    say(f"{counted(rows, 'row')} written to {file}", err=True)


# not within a command line, a quoted name or an ensemble's parameters
_ARGUMENT = re.compile(r"`[^`]*`|(?<![\w:='/-])(?P<name>[a-z_]+)=(?P<value>…|[\w-]+)")
_flags: dict[str, str] = {}  # of the command that runs, by the names of Python's arguments


def speak_of(command: click.Command | None) -> None:
    """From now on say the flags of this command.

    Where it takes one dataset, Python may take several: `datasets` stands for it too.
    """
    options = [it for it in command.params if isinstance(it, click.Option)] if command else []
    flags = {option.name or "": max(option.opts, key=len) for option in options}
    _flags.clear()
    _flags.update({f"{name}s": flag for name, flag in flags.items()} | flags)


def with_flags(message: str, flags: Mapping[str, str] = _flags) -> str:
    """A message with flags instead of ``backbones=…``, ``shots=4`` and ``replace=True``."""

    def flag(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if name not in flags:
            return match[0]
        return flags[name] if value in ("…", "True") else f"{flags[name]} {value}"

    return _ARGUMENT.sub(flag, message)


def say(text: str, *, err: bool = False, **style: Any) -> None:
    """Write one line to standard output or error; `style` as `click.style` has it."""
    _echo(click.style(printable(with_flags(text) if err else text), **style), err)


def say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        say(f"note: {note}", fg="yellow", err=True)


def say_lines(text: str) -> None:
    """Write tables and paragraphs as wide as the terminal; their names are printable already."""
    from clipsyn.show.formats import paragraphs, width_of  # not for every start

    _echo(paragraphs(printable_lines(text), width_of(terminal=None)), err=False)


def say_rows(rows: Sequence[Mapping[str, Any]], **how: Any) -> None:
    """Write rows as a table; `how` as `clipsyn.show.tables.show` has it."""
    from clipsyn.show.tables import show

    say_lines(show(rows, **how))


def say_tables(shown: Mapping[str, Tables]) -> None:
    """Write tables by name."""
    from clipsyn.show.formats import written

    say_lines(written(shown, "text"))


def say_document(text: str) -> None:
    """Write lines that programs may read: they are not wrapped to the terminal."""
    _echo(printable_lines(text), err=False)


def _echo(text: str, err: bool) -> None:
    try:
        click.echo(text, err=err)
    except OSError as error:
        error.filename = error.filename or f"standard {'error' if err else 'output'}"
        raise


_EXTRAS = {  # what installs a package that the base install lacks
    **dict.fromkeys(("torch", "torchvision", "open_clip", "PIL", "timm"), "extract"),
    **dict.fromkeys(("matplotlib", "jinja2"), "report"),
    "obstore": "remote",
    "submitit": "slurm",
    "transformers": "hf",
}
_RESUMED = ("extract", "run", "push", "pull")  # commands that go on from what is done
_ADVICE = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "give yourself the right to it"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there and run the same command again"),
    errno.EMFILE: "allow more open files, `ulimit -n 4096`",
}
_NO_PATH = ("embedded null", "Could not parse path")  # Python's words, and obstore's
_MEMORY = (  # what libraries say of too little memory, where they raise no MemoryError
    "failed to map segment",
    "cannot allocate memory",
    "can't start new thread",
    "can't spawn worker thread",
    "out of memory",  # CUDA's
)


@contextmanager
def sentences(context: click.Context) -> Iterator[None]:
    """End the process with one sentence for an error that the user or an administrator can mend."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = printable(error.message)  # it stands on a line of its own
        raise
    except ClipsynError as error:
        _fail(error)
    except KeyboardInterrupt:
        again = "; what is finished is kept, run the same command again"
        is_resumed = context.invoked_subcommand in _RESUMED
        _fail(Interrupted(f"interrupted{again if is_resumed else ''}"))
    except (click.Abort, click.exceptions.Exit, SystemExit):
        raise
    except BaseException as error:  # Rust's panics are no Exception
        if (known := _of_machine(error)) is None:
            raise
        _fail(ClipsynError(known))


def _of_machine(error: BaseException) -> str | None:
    """A sentence for what the operating system refused; None for a bug of clipsyn."""
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").split(".")[0]
        needs = f"this needs {name}: run `pip install 'clipsyn[{_EXTRAS.get(name)}]'` first"
        return needs if name in _EXTRAS else None
    if isinstance(error, MemoryError) or any(said in str(error).lower() for said in _MEMORY):
        return (
            "there is not enough memory: allow more (`ulimit -v`, or what your cluster's job asks "
            "for), or ask for less at once, as with --dataset and --backbones"
        )
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, UnicodeEncodeError):
        return (
            f"'{error.object[error.start : error.end]}' cannot be written as {error.encoding}: "
            "take it out of the name, or set PYTHONUTF8=1 if it is for the terminal"
        )
    if isinstance(error, ValueError) and any(said in str(error) for said in _NO_PATH):
        return "a name has a character in it that no path can have, such as NUL: take it out"
    return None


def _of_system(error: OSError) -> str | None:
    if error.errno == errno.EPIPE:  # the reader has closed the pipe: click ends in silence
        return None
    paths = (error.filename, error.filename2)
    names = [os.fsdecode(path) for path in paths if isinstance(path, str | bytes)]
    where = " and ".join(names) or "the operating system refused"
    advice = _ADVICE.get(error.errno or 0, "check the paths that the command was given")
    return f"{where}: {error.strerror or error}; {advice}"


def _fail(error: ClipsynError) -> NoReturn:
    message = " ".join([str(error), *getattr(error, "__notes__", [])])
    with suppress(OSError):  # standard error may be what cannot be written to
        click.secho("Error: ", fg="red", err=True, nl=False)
        say(message, err=True)
    _close_broken()
    sys.exit(error.exit_code)


def _close_broken() -> None:
    """Close streams that cannot be written to: Python would complain of them when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

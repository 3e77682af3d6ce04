"""Options that several commands share: the store, lists of names, and where numbers go."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from clipsyn.cli.output import JSON, NUMBERS, STDOUT, TABLES, Output
from clipsyn.errors import UsageError
from clipsyn.names import Location, is_url, listed
from clipsyn.settings import refuse_overwriting

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

    endings: that names of files may have; any where there are none, a folder's. makes_folder:
    whether the command makes what lies above it, where its name has this ending.
    """

    name = "file"

    def __init__(self, *endings: str, makes_folder: str | None = None) -> None:
        super().__init__()
        self.endings, self.makes_folder = endings, makes_folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path == STDOUT and str(STDOUT) in self.endings:
            return path
        if self.endings and not path.name.lower().endswith(tuple(files_of(self.endings))):
            flag = flag_of(param) if param else self.name
            raise UsageError(f"{flag} {path}: give a name that ends in {said_of(self.endings)}")
        if self.makes_folder is not None and path.name.endswith(self.makes_folder):
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
        written = [
            (flag_of(it), path)
            for it in given
            if isinstance(it.type, Destination)
            for path in _paths(files.pop(it))
        ]
        # several sources stand for the files in their folders, too
        sources = (path for it, several in given.items() if it.nargs == -1 for path in several)
        folders = {Path(path).resolve() for path in sources}
        inside = [it for _, it in written if folders & {*it.resolve().parents}]
        refuse_overwriting(written, [*files.values(), *inside])
        return command(*values, **named)

    return checked


def _paths(value: Any) -> Sequence[Path]:
    """Those that an option has: none, one or several."""
    if isinstance(value, Output):
        return [path for path in value.files if path != STDOUT]
    return [value] if value else []


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


def output_option(
    *more: str,
    endings: Sequence[str] = (*NUMBERS, *TABLES),
    grows: str = "",
    about: str = "",
) -> Callable[[Command], Command]:
    """-o FILE, repeated: the command gets an `Output` called `output`.

    endings, more: that names of files may have. grows: which of them is added to. about: more help.
    """
    endings = (*endings, *more)
    return click.option(
        "-o",
        "--output",
        type=Destination(*endings, makes_folder=grows or None),
        metavar="FILE",
        multiple=True,
        callback=lambda _context, _parameter, files: Output(files),
        help=f"Also write to a file: {said_of(endings)}{about}. Repeated.",
    )


def files_of(endings: Sequence[str]) -> list[str]:
    return [ending for ending in endings if ending != str(STDOUT)]


def said_of(endings: Sequence[str]) -> str:
    """ ".csv or .json, or - for JSON on standard output"."""
    *first, last = files_of(endings)
    said = f"{', '.join(first)} or {last}" if first else last
    return f"{said}, or - for JSON on standard output" if str(STDOUT) in endings else said


json_option = output_option(endings=JSON)


def with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):  # so that --help has them in this order
        command = option(command)
    return command

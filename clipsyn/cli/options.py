"""Options and arguments, made of declared settings or shared by several commands."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from clipsyn.cli.output import JSON, NUMBERS, STDOUT, TABLES, Output
from clipsyn.errors import UsageError
from clipsyn.names import Location, is_url, listed
from clipsyn.settings import (
    FILES,
    FLAG,
    GROWING,
    NUMBER,
    PATH,
    REQUIRED,
    SOURCE,
    TEXTS,
    WHOLE,
    WRITTEN,
    Setting,
    Settings,
    check_outside,
    declared,
    defaults,
    refuse_overwriting,
)


class StorePath(click.Path):
    """A path, or the URL of a published store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if isinstance(value, str) and is_url(value):
            return Location.of(value)
        return Path(os.fsdecode(super().convert(value, param, ctx)))


class Source(click.types.StringParamType):
    """A name, or a file that is read."""


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
            check_outside(path)
        else:
            from clipsyn.show.frames import check_place

            check_place(path)
        return path


class Command(click.Command):
    """Runs when no file that it writes is one that it reads, or another that it writes."""

    def invoke(self, ctx: click.Context) -> Any:
        given = {it: ctx.params[it.name or ""] for it in self.params}
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
        return super().invoke(ctx)


def _paths(value: Any) -> Sequence[Path]:
    """Those that an option has: none, one or several."""
    if isinstance(value, Output):
        return [path for path in value.files if path != STDOUT]
    return [value] if value else []


def command(
    name: str, params: Sequence[click.Parameter], help: str | None = None
) -> Callable[[Callable[..., Any]], Command]:
    """The function becomes a command, whose help is its docstring unless given."""
    about = {} if help is None else {"help": help}
    return click.command(name, cls=Command, params=[*params], **about)


def flag_of(parameter: click.Parameter) -> str:
    """The long spelling of an option; what help calls an argument."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name


def _listed(
    _context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The names of an option that is repeated or has commas; None without any."""
    return listed(texts, flag_of(parameter)) or None


option = click.Option
flag = partial(click.Option, is_flag=True)
STORE = click.Argument(["store"], type=StorePath(), envvar="CLIPSYN_STORE")
YES = flag(["-y", "--yes"], help="Do not ask.")
REPEATED = "Names or patterns, repeated or with commas, as all filters."


def cell_filters(first: str = REPEATED, *, prompts: bool = False) -> list[click.Parameter]:
    """Options that choose cells: the command gets each under the name of its dimension.

    first: the help of the first. prompts: whether prompt sets can be chosen, too.
    """
    filters = {
        ("-d", "--dataset"): first,
        ("-s", "--split"): "For instance train.",
        ("-p", "--perturb", "perturbation"): "clean, or for instance 'jpeg-*'.",
        ("-b", "--backbones", "backbone"): "For instance ViT-B-32/openai.",
        ("--prompts",): "Class embeddings and logits of these prompt sets alone.",
    }
    every = [option(it, multiple=True, callback=_listed, help=filters[it]) for it in filters]
    return [*every] if prompts else [*every[:-1]]


def output_option(
    *more: str, endings: Sequence[str] = (*NUMBERS, *TABLES), grows: str = "", about: str = ""
) -> click.Option:
    """-o FILE, repeated: the command gets an `Output` called `output`.

    endings, more: that names of files may have. grows: which of them is added to. about: more help.
    """
    endings = (*endings, *more)
    return option(
        ["-o", "--output"],
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


def options_of(settings: type[Settings], without: Sequence[str] = ()) -> list[click.Parameter]:
    """An option for each setting, in order: the command gets each value under its name."""
    return [_option(name, it) for name, it in declared(settings).items() if name not in without]


def _option(name: str, it: Setting) -> click.Option:
    own, is_required = _flag(name, it), it.default is REQUIRED
    default = None if is_required else it.default
    decls = [*filter(None, [it.letter]), own, name]
    about: dict[str, Any] = {"help": it.help, "default": default, "required": is_required}
    if it.metavar:
        about["metavar"] = it.metavar
    if it.variable:
        about["envvar"] = it.variable
    if it.kind is FLAG:
        if default:
            decls[-2] += f"/--no-{own.removeprefix('--')}"
        return option(decls, is_flag=True, show_default=bool(default), **about)
    if default is None and not is_required and it.kind not in (PATH, *WRITTEN):
        about["help"] += f"  [default: {it.instead_of_none}]"
    if it.kind.item is None:
        return option(decls, type=_type(it), show_default=default is not None, **about)
    about["default"] = (",".join(map(str, default)),) if default else ()
    kind = Source() if it.kind is FILES else str
    read = partial(_list, it)
    return option(
        decls, multiple=True, type=kind, callback=read, show_default=bool(default), **about
    )


def _flag(name: str, it: Setting) -> str:
    return it.flag or f"--{name.replace('_', '-')}"


def _type(it: Setting) -> Any:
    if it.choices:
        return click.Choice(it.choices)
    if it.kind in WRITTEN:
        return Destination(*it.endings, makes_folder="" if it.kind is GROWING else None)
    if it.kind is PATH:
        return click.Path(path_type=Path)
    bounds = [bound if math.isfinite(bound) else None for bound in (it.least, it.most)]
    if it.kind is WHOLE:
        return click.IntRange(*(None if it is None else int(it) for it in bounds))  # type: ignore[arg-type]
    if it.kind is NUMBER:
        return click.FloatRange(bounds[0], bounds[1])
    return Source() if it.kind is SOURCE else str


def _list(
    it: Setting, context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> Any:
    """What an option that is repeated or has commas gives; its default without any name."""
    names = texts if it.kind is TEXTS else _listed(context, parameter, texts)
    if not names:
        return it.default
    said = f"{flag_of(parameter)} {','.join(names)}"
    assert it.kind.item
    try:
        items = [it.kind.item(name) for name in names]
    except ValueError as error:
        raise UsageError(f"{said}: write {it.metavar or it.kind.words}") from error
    if not isinstance(items[0], tuple):
        return tuple(items)
    if len(pairs := dict(items)) < len(items):
        raise UsageError(f"{said} gives a name twice: give it once")
    return pairs


def words_of(settings: Settings) -> list[str]:
    """The words of a command line that give these settings; raises UsageError if none do."""
    usual, words = defaults(type(settings)), list[str]()
    for name, it in declared(type(settings)).items():
        value = getattr(settings, name)
        if value != usual[name]:
            words += _words(it, _flag(name, it), value)
    return words


def _words(it: Setting, flag: str, value: Any) -> list[str]:
    if it.kind is FLAG:
        return [flag if value else f"--no-{flag.removeprefix('--')}"]
    if it.kind.item is None and value is not None:
        return [f"{flag}={value}"]  # one word, though the value may begin with a hyphen
    if value is None and it.instead_of_none == "all":
        value = ("*",)
    if not value:
        raise UsageError(f"{flag} cannot be {value!r} for jobs: name what is wanted")
    texts = value if not isinstance(value, dict) else [f"{key}={it}" for key, it in value.items()]
    return [f"{flag}={text}" for text in texts]

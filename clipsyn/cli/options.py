"""Options and arguments, made of declared settings or shared by several commands."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from clipsyn.cli.output import NUMBERS, STDOUT, TABLES, Output
from clipsyn.errors import UsageError
from clipsyn.names import Location, is_url, listed
from clipsyn.settings import (
    FILES,
    FLAG,
    NUMBER,
    OUTPUT,
    PATH,
    REQUIRED,
    SOURCE,
    TEXTS,
    WHOLE,
    Setting,
    Settings,
    check_outside,
    declared,
    defaults,
    option_of,
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
    """A file to write, whose name has one of the endings, or without any a folder.

    The folder of a file is made; a place that cannot be written to is refused before the work
    starts. grows: the ending of results that are added to, a folder that checks its place itself.
    or_stdout: whether - stands for standard output.
    """

    name = "file"

    def __init__(self, *endings: str, grows: str = "", or_stdout: bool = False) -> None:
        super().__init__()
        self.endings, self.grows, self.or_stdout = endings, grows, or_stdout

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path == STDOUT and self.or_stdout:
            return path
        if self.endings and not path.name.lower().endswith(self.endings):
            flag = flag_of(param) if param else self.name
            raise UsageError(f"{flag} {path}: give a name that ends in {', '.join(self.endings)}")
        if not self.endings or (self.grows and path.suffix == self.grows):
            check_outside(path)
            return path
        from clipsyn.show.files import check_place

        check_place(path)
        return path


class Command(click.Command):
    """Runs when no file that it writes is one that it reads, or another that it writes."""

    def invoke(self, ctx: click.Context) -> Any:
        written: list[tuple[str, Path]] = []
        read: list[str | Path] = []
        folders: set[Path] = set()  # whose files are read, too
        for it in self.params:
            paths = _paths(ctx.params[it.name or ""])
            if isinstance(it.type, Destination):
                written += [(flag_of(it), Path(path)) for path in paths if path != STDOUT]
            elif isinstance(it.type, click.Path | Source):
                read += paths
                folders |= {Path(path).resolve() for path in paths} if it.nargs == -1 else set()
        read += [path for _, path in written if folders & {*path.resolve().parents}]
        refuse_overwriting(written, read)
        return super().invoke(ctx)


def _paths(value: Any) -> Sequence[str | Path]:
    """Those that an option has: none, one or several."""
    if isinstance(value, Output):
        return value.files
    if isinstance(value, dict):
        return [*value.values()]
    return value if isinstance(value, tuple) else [value] if value else []


def command(
    name: str, *params: click.Parameter | type[Settings], **about: str
) -> Callable[[Callable[..., Any]], Command]:
    """The function becomes a command, whose help is its docstring unless `about` has another.

    params: a class of settings stands for an option for each of them.
    """
    each = ([it] if isinstance(it, click.Parameter) else options_of(it) for it in params)
    return click.command(name, cls=Command, params=[it for some in each for it in some], **about)


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
_LETTERS = {  # of settings, whatever the command
    "--dataset": "-d",
    "--split": "-s",
    "--perturb": "-p",
    "--backbone": "-b",
    "--backbones": "-b",
    "--output": "-o",
    "--most": "-n",
}


def cell_filters() -> list[click.Parameter]:
    """Options that choose cells: the command gets each under the name of its dimension."""
    filters = {
        ("-d", "--dataset"): "Names or patterns, repeated or with commas, as all filters.",
        ("-s", "--split"): "For instance train.",
        ("-p", "--perturb", "perturbation"): "clean, or for instance 'jpeg-*'.",
        ("-b", "--backbones", "backbone"): "For instance ViT-B-32/openai.",
    }
    return [option(it, multiple=True, callback=_listed, help=filters[it]) for it in filters]


def output_option(
    *, endings: Sequence[str] = (*NUMBERS, *TABLES), grows: str = "", about: str = ""
) -> click.Option:
    """-o FILE, repeated: the command gets an `Output` called `output`.

    endings: that names of files may have. grows: see `Destination`. about: more help.
    """
    return option(
        ["-o", "--output"],
        type=Destination(*endings, grows=grows, or_stdout=True),
        metavar="FILE",
        multiple=True,
        callback=lambda _context, _parameter, files: Output(files),
        help=f"Also write to a file: {', '.join(endings)}; - is JSON on standard output{about}. "
        "Repeated.",
    )


json_option = output_option(endings=(".json",))


def options_of(settings: type[Settings], without: Sequence[str] = ()) -> list[click.Parameter]:
    """An option for each setting, in order: the command gets each value under its name."""
    return [_option(name, it) for name, it in declared(settings).items() if name not in without]


def _option(name: str, it: Setting) -> click.Option:
    own, is_required = option_of(name), it.default is REQUIRED
    default = None if is_required else it.default
    decls = [*filter(None, [_LETTERS.get(own)]), own, name]
    about: dict[str, Any] = {"help": it.help, "default": default, "required": is_required}
    if it.metavar:
        about["metavar"] = it.metavar
    if it.variable:
        about["envvar"] = it.variable
    if it.kind is FLAG:
        if default:
            decls[-2] += f"/--no-{own.removeprefix('--')}"
        return option(decls, is_flag=True, show_default=bool(default), **about)
    if default is None and not is_required and it.kind not in (PATH, OUTPUT):
        about["help"] += f"  [default: {it.instead_of_none}]"
    if it.kind.item is None:
        return option(decls, type=_type(it), show_default=default is not None, **about)
    about["default"] = (",".join(map(str, default)),) if default else ()
    kind = Source() if it.kind is FILES else str
    read = partial(_list, it)
    return option(
        decls, multiple=True, type=kind, callback=read, show_default=bool(default), **about
    )


def _type(it: Setting) -> Any:
    if it.choices:
        return click.Choice(it.choices)
    if it.kind is OUTPUT:
        return Destination(*it.endings)
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
            words += _words(it, option_of(name), value)
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

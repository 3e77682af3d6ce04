"""Options of the command line, made of declared settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from clipsyn.analyses import Analysis
from clipsyn.cli.options import (
    Command,
    Destination,
    Source,
    flag_of,
    names_of,
    output_option,
    store_argument,
    with_options,
)
from clipsyn.cli.output import BENCHMARK, Output, say, say_written
from clipsyn.errors import UsageError
from clipsyn.settings import (
    COSTS,
    CURVE,
    FILES,
    FLAG,
    FULL,
    GROWING,
    NAMES,
    NUMBER,
    NUMBERS,
    PAIRS,
    PATH,
    REQUIRED,
    SHOTS,
    SOURCE,
    TEXTS,
    WHOLE,
    WRITTEN,
    Setting,
    Settings,
    Shots,
    declared,
    defaults,
)


def settings_options(
    settings: type[Settings], without: Sequence[str] = ()
) -> list[Callable[[Command], Command]]:
    """An option for each setting, in order: the command gets each value under its name."""
    every = declared(settings).items()
    return [_option(name, it, it.default) for name, it in every if name not in without]


def settings_command(
    name: str,
    settings: type[Settings],
    run: Command,
    *,
    about: str,
    examples: Sequence[str],
    arguments: Sequence[Callable[[Command], Command]] = (),
    without: Sequence[str] = (),
    more: Sequence[Callable[[Command], Command]] = (),
) -> click.Command:
    """`clipsyn NAME STORE`, with an option for each setting.

    run: gets `store`, and the value of each setting by name. arguments: after STORE. without:
    settings that have no option of their own. more: options that are no settings.
    """
    options: list[Callable[[Command], Command]]
    options = [store_argument, *arguments, *settings_options(settings, without), *more]
    help = "\n".join([f"{about}\n\n\b", *examples])
    return click.command(name, help=help)(with_options(run, options))


def command_of(analysis: Analysis) -> click.Command:
    """`clipsyn NAME STORE`, with an option for each setting of the analysis."""

    def run(store: Path, *, output: Output, **values: Any) -> None:
        from clipsyn.store.features import FeatureStore

        opened, settings = FeatureStore.open(store), analysis.settings(**values)
        frame = analysis.measure(opened, settings)
        output.show(frame, lambda shown: analysis.tables(shown, settings))
        for note in analysis.notes(opened, frame, settings):
            say(note, err=True)
        for path, rows in analysis.write_files(opened, settings):
            say_written(rows, path)

    return settings_command(
        analysis.name,
        analysis.settings,
        run,
        about=analysis.about,
        examples=analysis.examples,
        more=[output_option(*([BENCHMARK] if analysis.benchmark else []))],
    )


class ShotsType(click.ParamType):  # type: ignore[type-arg]
    """A number of images a class, or "full"."""

    name = "text"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Shots:
        try:
            return _shots(value)
        except ValueError as error:
            flag = flag_of(param) if param else self.name
            raise UsageError(f"{flag} {value}: write a number from 1 on, or {FULL}") from error


def _shots(value: Any) -> Shots:
    if value == FULL:
        return "full"
    if not (str(value).isdecimal() and int(value)):
        raise ValueError(value)
    return int(value)


def _option(name: str, it: Setting, default: Any) -> Callable[[Command], Command]:
    own = _flag(name, it)
    decls = [*filter(None, [it.letter]), own, name]
    about: dict[str, Any] = {"help": it.help}
    if it.metavar:
        about["metavar"] = it.metavar
    if it.variable:
        about["envvar"] = it.variable
    if it.kind is FLAG:
        if default:
            decls[-2] += f"/--no-{own.removeprefix('--')}"
            about["show_default"] = True
        return click.option(*decls, is_flag=True, default=default, **about)
    if default is REQUIRED:
        default, about["required"] = None, True
    elif default is None and it.kind not in _PATHS:
        about["help"] += f"  [default: {it.instead_of_none}]"
    if it.kind in _LISTS:
        return click.option(
            *decls,
            multiple=True,
            type=Source() if it.kind is FILES else str,
            default=(",".join(map(str, default)),) if default else (),
            show_default=bool(default),
            callback=lambda *given: default if (read := _list(it, *given)) is None else read,
            **about,
        )
    return click.option(
        *decls, type=_type(it), default=default, show_default=default is not None, **about
    )


def _flag(name: str, it: Setting) -> str:
    return it.flag or f"--{name.replace('_', '-')}"


def _type(it: Setting) -> Any:
    if it.choices:
        return click.Choice(it.choices)
    if it.kind in WRITTEN:
        return Destination(*it.endings, makes_folder="" if it.kind is GROWING else None)
    if it.kind in _TYPES:
        return _TYPES[it.kind]
    bounds = [bound if math.isfinite(bound) else None for bound in (it.least, it.most)]
    if it.kind is WHOLE:
        return click.IntRange(*(None if it is None else int(it) for it in bounds))  # type: ignore[arg-type]
    return click.FloatRange(bounds[0], bounds[1]) if it.kind is NUMBER else str


def _list(
    it: Setting, context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> Any:
    """What an option that is repeated or has commas gives; None without any name."""
    names = texts if it.kind is TEXTS else names_of(context, parameter, texts)
    if not names:
        return None
    try:
        read = _LISTS[it.kind](names)
    except ValueError as error:
        form = it.metavar or _FORMS[it.kind]
        raise UsageError(f"{flag_of(parameter)} {','.join(names)}: write {form}") from error
    if len(read) < len(names):
        raise UsageError(f"{flag_of(parameter)} {','.join(names)} gives a name twice: give it once")
    return read


def _pairs(names: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in names:
        here, _, there = (part.strip() for part in text.partition("="))
        if not (here and there):
            raise ValueError(text)
        pairs[here] = there
    return pairs


def _costs(names: tuple[str, ...]) -> dict[str, float]:
    costs = {}
    for text in names:
        name, _, number = text.rpartition("=")
        if not name:
            raise ValueError(text)
        costs[name] = float(number)
    return costs


_LISTS: dict[Any, Callable[[tuple[str, ...]], Any]] = {
    NAMES: tuple,
    TEXTS: tuple,
    PAIRS: _pairs,
    FILES: _pairs,
    NUMBERS: lambda names: tuple(map(float, names)),
    CURVE: lambda names: tuple(map(_shots, names)),
    COSTS: _costs,
}
_TYPES: dict[Any, Any] = {
    PATH: click.Path(path_type=Path),
    SOURCE: Source(),
    SHOTS: ShotsType(),
}
_PATHS = (PATH, *WRITTEN)
_FORMS = {NUMBERS: "0.5,0.9", CURVE: f"numbers from 1 on, or {FULL}, such as 1,2,4,{FULL}"}


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
    if value is None and it.instead_of_none == "all":
        value = ("*",)
    if it.kind not in _LISTS and value is not None:
        return [f"{flag}={value}"]  # one word, though the value may begin with a hyphen
    texts = _texts(value or ())
    if not texts:
        raise UsageError(f"{flag} cannot be {value!r} for jobs: name what is wanted")
    return [f"{flag}={text}" for text in texts]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{name}={it}" for name, it in value.items()]
    return [str(it) for it in value]

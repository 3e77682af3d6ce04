"""Options of the command line, made of declared settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from clipsyn.cli.complete import complete
from clipsyn.cli.options import Command, DeclaredOption, Destination, names_of
from clipsyn.errors import UsageError
from clipsyn.settings import (
    COSTS,
    FLAG,
    FULL,
    NAMES,
    NUMBER,
    NUMBERS,
    PATH,
    SHOTS,
    TEXT,
    WHOLE,
    Setting,
    Settings,
    declared,
    defaults,
)


def settings_options(settings: type[Settings]) -> list[Callable[[Command], Command]]:
    """An option for each setting, in order: the command gets each value under its name."""
    values = defaults(settings)
    return [_option(name, it, values[name]) for name, it in declared(settings).items()]


class _ShotsType(click.ParamType):  # type: ignore[type-arg]
    name = "text"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if value == FULL or isinstance(value, int):
            return value  # type: ignore[no-any-return]
        try:
            return int(value)
        except ValueError:
            self.fail(f"'{value}' is neither a number of images a class nor {FULL}", param, ctx)


def _option(name: str, it: Setting, default: Any) -> Callable[[Command], Command]:
    own = f"--{name.replace('_', '-')}"
    shown = [*filter(None, [it.letter]), it.flag or own]
    decls = [*shown, *([own] if it.flag else []), name]
    about: dict[str, Any] = {"help": it.help, "cls": DeclaredOption, "shown": shown}
    about["offered"] = it.choices
    if it.metavar:
        about["metavar"] = it.metavar
    if it.kind is FLAG:
        return click.option(*decls, is_flag=True, default=default, **about)
    if default is None and it.kind is not PATH:
        about["help"] += f"  [default: {it.instead_of_none}]"
    if it.kind in _LISTS:
        return click.option(
            *decls,
            multiple=True,
            default=(",".join(map(str, default)),) if default else (),
            show_default=bool(default),
            callback=_LISTS[it.kind],
            shell_complete=complete,
            **about,
        )
    if it.kind is TEXT and not it.choices:
        about["shell_complete"] = complete
    return click.option(
        *decls, type=_type(it), default=default, show_default=default is not None, **about
    )


def _type(it: Setting) -> Any:
    if it.choices:
        return click.Choice(it.choices)
    if it.kind is PATH:
        return Destination() if it.writes else click.Path(path_type=Path)
    if it.kind is SHOTS:
        return _ShotsType()
    bounds = [bound if math.isfinite(bound) else None for bound in (it.least, it.most)]
    if it.kind is WHOLE:
        return click.IntRange(*(None if it is None else int(it) for it in bounds))  # type: ignore[arg-type]
    return click.FloatRange(bounds[0], bounds[1]) if it.kind is NUMBER else str


def _numbers(
    context: click.Context, parameter: click.Parameter, texts: tuple[Any, ...]
) -> tuple[float, ...] | None:
    names = names_of(context, parameter, tuple(map(str, texts)))
    try:
        return None if names is None else tuple(map(float, names))
    except ValueError as error:
        raise click.BadParameter(f"{error}; write 0.5,0.9", context, parameter) from error


def _costs(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, float]:
    found = {}
    for text in names_of(context, parameter, texts) or ():
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"{parameter.opts[0]} {text}: write {parameter.metavar}")
    return found


_LISTS: dict[Any, Callable[..., Any]] = {NAMES: names_of, NUMBERS: _numbers, COSTS: _costs}

"""Settings, declared once: the attributes of a class, each with its help, range and unit.

Each becomes an option on the command line, a field of a recipe's stage, an argument in Python
that is checked, and a row of a table in the documentation. All of them have its name, default and
unit.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter, Signature, cleandoc, signature
from numbers import Integral, Real
from pathlib import Path
from textwrap import fill
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from clipsyn.errors import UsageError
from clipsyn.names import MARKER, MOST, ROUTER
from clipsyn.registry import unknown_name

SINGLE = "single"  # a backbone on its own, where an ensemble is named
UNFITTED = "0"  # shots of what has learned from no image
FULL = "full"  # the whole support split, where a number of shots is asked for
Shots = int | Literal["full"]


class Kind(NamedTuple):
    """What a setting takes; `read` gives the value as it is kept, or raises ValueError.

    item: reads one of several that a command line lists; None where it takes one value.
    """

    words: str
    read: Callable[[Any], Any]
    python: str  # the type, as a type checker is told it
    item: Callable[[str], Any] | None = None


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError
        return value

    return read


_text = _exactly(str)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or abs(int(value)) >> 63:
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _tuple_of(read: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def several(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str | Mapping) or not isinstance(value, Collection):
            raise ValueError
        return tuple(map(read, value))

    return several


def _dict_of(read: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    mapping = _exactly(Mapping)
    return lambda value: {_text(name): read(other) for name, other in mapping(value).items()}


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else _tuple_of(_text)(value)


def _path(value: Any) -> Path:
    try:
        return Path(value)
    except TypeError:
        raise ValueError from None


def _shots(value: Any) -> Shots:
    """A command line's text may be a number, too."""
    if value == FULL:
        return "full"
    return _whole(int(value) if isinstance(value, str) and value.isdecimal() else value)


def _pair(text: str, name_ends: Callable[[str, str], tuple[str, str, str]] = str.partition) -> Any:
    name, _, value = (part.strip() for part in name_ends(text, "="))
    if not (name and value):
        raise ValueError
    return name, value


def _cost(text: str) -> tuple[str, float]:
    name, number = _pair(text, str.rpartition)  # a name may have =
    return name, float(number)


_Function = TypeVar("_Function", bound=Callable[..., Any])
_PATH, _SHOTS = "str | PathLike[str]", f'int | Literal["{FULL}"]'
FLAG = Kind("true or false", _exactly(bool), "bool")
WHOLE = Kind("a whole number", _whole, "int")
NUMBER = Kind("a number", _number, "float")
TEXT = Kind("a text", _text, "str")
NAMES = Kind("names, or patterns with *", _names, "str | Collection[str]", str)
TEXTS = NAMES._replace(words="texts")  # which the command line leaves as they are
NUMBERS = Kind("numbers", _tuple_of(_number), "Collection[float]", float)
COSTS = Kind("numbers by name", _dict_of(_number), "Mapping[str, float]", _cost)
PAIRS = Kind("texts by name", _dict_of(_text), "Mapping[str, str]", _pair)
PATH = Kind("a path", _path, _PATH)
PATHS = Kind("paths", _tuple_of(_path), f"Collection[{_PATH}]")
SOURCE = Kind("a name or a path", _text, "str")
FILES = PAIRS._replace(words="paths by name")
OUTPUT = Kind("a path of a file to write", _path, _PATH)
SHOTS = Kind("full or a number of images a class", _shots, _SHOTS)
CURVE = Kind(
    "full or numbers of images a class",
    lambda value: tuple(dict.fromkeys(_tuple_of(_shots)(value))),
    f"Collection[{_SHOTS}]",
    _shots,
)


@dataclass(eq=False, repr=False)
class Constraint:
    """The values that a setting, or a parameter of an estimator, may have.

    least, most: bounds that are allowed themselves; above: a bound that is not.
    instead_of_none: in words, what is taken where the value is None. None is refused if this is
    empty.
    """

    kind: Kind
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    choices: tuple[str, ...] = ()
    instead_of_none: str = ""

    _in_messages: ClassVar[str] = "{}"

    def accepted(self, name: str, value: Any) -> Any:
        """The value as it is kept; raises UsageError for a value that is not allowed."""
        if value is None and self.instead_of_none:
            return None
        try:
            read = self.kind.read(value)
        except (ValueError, OverflowError):
            raise self._refusal(name, self.kind.words, f"{value!r:.80}") from None
        for one in read if isinstance(read, tuple) else (read,):
            if self.choices and one not in self.choices:
                raise unknown_name(name, one, self.choices)
        for number in _numbers_in(read):
            if not (self.least <= number <= self.most and number > self.above):
                raise self._refusal(name, f"{self.kind.words} {self.range}", f"{number:,.12g}")
        return read

    @property
    def range(self) -> str:
        """ "from 1 to 9", "of at least 1", "above 0", "above 0 and at most 1", or nothing."""
        bounded = math.isfinite(self.most) and self.most != MOST
        if math.isfinite(self.above):
            return f"above {self.above:,.12g}" + (
                f" and at most {self.most:,.12g}" if bounded else ""
            )
        if math.isfinite(self.least) and bounded:
            return f"from {self.least:,.12g} to {self.most:,.12g}"
        return f"of at least {self.least:,.12g}" if math.isfinite(self.least) else ""

    def _refusal(self, name: str, wanted: str, given: str) -> UsageError:
        return UsageError(f"{self._in_messages.format(name)} is {wanted}, not {given}")


@dataclass(eq=False, repr=False)
class Setting(Constraint):
    """The name, help and constraint of a setting.

    endings: which the name of a file to write may have; any without them.
    variable: the environment variable that gives the value where the option is not given.
    about: the setting without which this one says nothing.
    """

    default: Any = None
    help: str = ""
    metavar: str = ""
    endings: tuple[str, ...] = ()
    variable: str = ""
    about: str = ""

    _in_messages: ClassVar[str] = "{}=…"  # an argument of Python: the command line shows its flag

    @property
    def python(self) -> str:
        """Its type, as a type checker is told it."""
        one_of = f"Literal[{', '.join(map(repr, self.choices))}]"
        kind = one_of if self.choices and self.kind is TEXT else self.kind.python
        return f"{kind} | None" if self.instead_of_none else kind

    @property
    def shown_default(self) -> str:
        if self.default is None:
            return self.instead_of_none
        if self.default is REQUIRED:
            return "needed"
        if isinstance(self.default, tuple):
            return f"`[{', '.join(map(str, self.default))}]`" if self.default else "none"
        return f"`{json.dumps(self.default)}`".replace('"', "") if self.default != {} else "none"


def _numbers_in(value: Any) -> Iterable[float]:
    several = [*value.values()] if isinstance(value, Mapping) else value
    values = several if isinstance(several, tuple | list) else [several]
    return [it for it in values if isinstance(it, int | float) and not isinstance(it, bool)]


def images_of(shots: Shots | None) -> int | None:
    """The number of images of each class; None for the whole support split."""
    return shots if isinstance(shots, int) else None


def check_outside(path: Path) -> None:
    """Raise UsageError for a place inside a store or a router, which are written as a whole."""
    for folder in path.resolve().parents:
        if any((folder / name).exists() for name in (MARKER, ROUTER)):
            raise UsageError(f"{path} lies in {folder}, a store or router: choose another place")


def refuse_overwriting(written: Iterable[tuple[str, Path]], read: Iterable[str | Path]) -> None:
    """Raise UsageError for a file to write that is among those that are read, or is named twice.

    written: the option or argument, and its file. read: paths, or texts that may be one.
    """
    seen = [("what is read", Path(it)) for it in read if os.path.exists(it)]  # noqa: PTH110 (no text is an error)
    for option, path in written:
        if path.exists() and not (path.is_file() or path.is_dir()):
            continue  # a device takes everything
        for earlier, other in seen:
            is_there = path.exists() and other.exists()
            if path.resolve() == other.resolve() or (is_there and path.samefile(other)):
                raise UsageError(f"{option} and {earlier} are one file, {path}: name another")
        seen.append((option, path))


REQUIRED: Any = object()  # for a setting that has no default


def setting(default: Any, kind: Kind, help: str, **about: Any) -> Any:
    """Declares a setting in a subclass of `Settings`; `about` are fields of `Setting`."""
    if default is None:
        about.setdefault("instead_of_none", "none")
    return Setting(kind, default=default, help=help, **about)


_FLAGS = {
    "datasets": "--dataset",
    "splits": "--split",
    **dict.fromkeys(("perturbation", "perturbations"), "--perturb"),
    "accuracies": "--accuracy",
    "costs": "--cost",
    "within_points": "--within",
}


def option_of(name: str) -> str:
    """The option for a setting of that name, which on the command line may be repeated."""
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


class Settings:
    """Base of a class of settings. All values are checked when an object is made.

    No dataclass, which takes a millisecond a class, each time that a command starts.
    """

    _declared: ClassVar[Mapping[str, Setting]] = {}

    def __init_subclass__(cls) -> None:
        own = {name: it for name, it in vars(cls).items() if isinstance(it, Setting)}
        cls._declared = {**cls._declared, **own}

    def __init__(self, *values: Any, **named: Any) -> None:
        """Values in the order of the settings, or by name.

        Raises UsageError for a name that is no setting, and for a value that is not allowed.
        """
        if len(values) > len(self._declared):
            raise TypeError(f"{type(self).__name__} has only {len(self._declared)} settings")
        given = {**dict(zip(self._declared, values, strict=False)), **named}
        for name in given:
            if name not in self._declared:
                raise unknown_name("setting", name, self._declared)
        for name, it in self._declared.items():
            value = given.get(name, it.default)
            if value is REQUIRED:
                raise UsageError(f"{name}=… is missing")
            vars(self)[name] = it.accepted(name, value)
        for name, it in self._declared.items():
            if vars(self).get(it.about, it) is None and vars(self)[name] != it.default:
                raise UsageError(f"{name}=… is about {it.about}=…: give this one, too")
        self._check()

    def _check(self) -> None:
        """Raise UsageError for values that do not go together."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: make another")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        usual = defaults(type(self))
        changed = (f"{name}={it!r}" for name, it in vars(self).items() if it != usual[name])
        return f"{type(self).__name__}({', '.join(changed)})"

    def replaced(self, **changes: Any) -> Self:
        """The same settings but for `changes`."""
        return type(self)(**{**vars(self), **changes})


def declared(settings: type[Settings]) -> Mapping[str, Setting]:
    """The `Setting` of each name, in order."""
    return settings._declared


def defaults(settings: type[Settings]) -> dict[str, Any]:
    """The default of each setting, by name; `REQUIRED` where there is none."""
    return {name: it.default for name, it in settings._declared.items()}


def explained(settings: type[Settings]) -> dict[str, str]:
    """What the help of each setting says, without what is said of the command line alone."""
    every = declared(settings)
    flags = {flag: name for name in every for flag in (option_of(name), f"--{name}")}
    told = {}
    for name, it in every.items():
        said = re.sub("[;,:] (repeated or with commas|see above)", "", it.help)
        said = re.sub(r"--[a-z-]+", lambda flag: f"`{flags.get(flag[0], flag[0])}`", said)
        told[name] = ": ".join(filter(None, [", ".join(f"`{one}`" for one in it.choices), said]))
    return told


def signature_of(function: Callable[..., Any], settings: type[Settings]) -> Signature:
    """The signature of a function of **settings, with each setting by its name."""
    theirs = signature(function)
    own = [it for it in theirs.parameters.values() if it.kind is not it.VAR_KEYWORD]
    named = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if it.default is REQUIRED else it.default,
            annotation=it.python,
        )
        for name, it in declared(settings).items()
        if name not in theirs.parameters
    ]
    return theirs.replace(parameters=[*own, *named])


def help_of(text: str, settings: type[Settings]) -> str:
    """A docstring with a list of settings and their defaults below."""
    every = declared(settings)
    told = explained(settings).items()
    lines = (f"- `{name}`: {said} [{every[name].shown_default}]" for name, said in told)
    listed = (fill(line, 96, subsequent_indent="  ", break_long_words=False) for line in lines)
    return "\n".join([f"{cleandoc(text)}\n\nSettings, with their defaults:\n", *listed])


def takes(settings: type[Settings]) -> Callable[[_Function], _Function]:
    """Of a function of **settings: `help`, completion and the stub list them."""

    def told(function: _Function) -> _Function:
        vars(function)["__signature__"] = signature_of(function, settings)
        function.__doc__ = help_of(function.__doc__ or "", settings)
        return function

    return told

"""Things by name: ours, and those that other packages offer as entry points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from clipsyn.errors import PluginError, UnknownName
from clipsyn.text import few, one_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownName:
    """The error for a name that is not known, with the nearest ones that are."""
    import difflib  # not for every start

    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=0.5)
    if matches := [k for k in known if k.lower() in near]:
        advice = f"did you mean {', '.join(matches)}?"
    else:
        advice = f"known: {few(known, 12)}." if known else "none is known."
    return UnknownName(f"unknown {kind} '{name}': {advice}{' ' + hint if hint else ''}")


def plugin(group: str, name: str) -> Any:
    """What another package offers by the entry point `name` of ``clipsyn.GROUP``, or None.

    It is imported, so this is only for a name that the user gave. Raises PluginError.
    """
    for entry in _entries(group, name):
        try:
            return entry.load()
        except Exception as error:
            raise PluginError(
                f"'{name}' of the package {_package(entry)} does not work ({one_line(error)}): "
                "mend or uninstall that package"
            ) from error
    return None


def _entries(group: str, name: str) -> EntryPoints:
    from importlib.metadata import entry_points  # 14 ms, which no command needs to start

    return entry_points(group=f"clipsyn.{group}", name=name)


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module


class Registry:
    """Maps a name to ``"module:attribute"``, resolved on first use.

    The error for an unknown name gives near matches. A target given as a pair with one of the
    `groups` is listed in that group by help and documentation. Names that other packages offer can
    be loaded too; iteration leaves them out, so that "all" does not depend on what is installed.
    """

    def __init__(
        self, kind: str, targets: Mapping[str, str | tuple[str, str]], groups: Iterable[str] = ()
    ) -> None:
        self.kind = kind
        self._targets: dict[str, str] = {}
        self._others: dict[str, Any] = {}  # of other packages, once they were asked for
        self.groups: dict[str, list[str]] = {group: [] for group in groups}  # names of each
        for name, target in targets.items():
            self._targets[name] = target if isinstance(target, str) else target[0]
            if not isinstance(target, str):
                self.groups[target[1]].append(name)

    def load(self, name: str, *, plugins: bool = True) -> Any:
        """The object that `name` stands for; raises UnknownName with near matches.

        plugins: whether it may be another package's that was not asked for yet: True for a name
        that the user gave, False for one that stands in a file. Raises PluginError for such a one.
        """
        if name in self._targets:
            return resolve_name(self._targets[name])
        if plugins and name not in self._others and (offered := plugin(f"{self.kind}s", name)):
            self._others[name] = offered
        if name in self._others:
            return self._others[name]
        raise unknown_name(self.kind, name, self._targets)

    def package(self, name: str) -> str:
        """Name and version of the other package that offers `name`; empty for our own."""
        if name in self._targets:
            return ""
        return next(map(_package, _entries(f"{self.kind}s", name)), "")

    def name_of(self, thing: type) -> str:
        """The name that a class is registered under, found without importing any other."""
        target = f"{thing.__module__}:{thing.__qualname__}"
        ours = [name for name, registered in self._targets.items() if registered == target]
        theirs = [name for name, offered in self._others.items() if offered is thing]
        if names := ours or theirs:
            return names[0]
        raise UnknownName(f"{target} is not registered as {self.kind}: register it under a name")

    def homes(self) -> dict[str, str]:
        """The module of each thing, by what it is called there; nothing is imported."""
        pairs = (target.split(":") for target in self._targets.values())
        return {attribute: module for module, attribute in pairs}

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

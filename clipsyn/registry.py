"""Things by name: ours, and those that installed packages declare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from clipsyn.errors import ClipsynError, PluginError, UnknownName
from clipsyn.text import few

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints


def near_matches(name: str, known: Iterable[str], alike: float = 0.5) -> list[str]:
    """Up to three of the `known` names at least as similar as `alike`, 0 to 1, ignoring case."""
    import difflib  # not for every start

    known = list(known)
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=alike)
    return [k for k in known if k.lower() in near]


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownName:
    """The error for a name that is not known, with the nearest ones that are."""
    known = sorted(known)
    matches = near_matches(name, known)
    if matches:
        advice = f"did you mean {', '.join(matches)}?"
    else:
        advice = f"known: {few(known, 12)}." if known else "none is known."
    return UnknownName(f"unknown {kind} '{name}': {advice}{' ' + hint if hint else ''}")


class Registry:
    """Maps a name to ``"module:attribute"``, resolved on first use.

    The error for an unknown name gives near matches. A target given as a pair with one of the
    `groups` is listed in that group by help and documentation.

    Names that other packages offer (`plugins`) can be loaded too. Iteration leaves them out, so
    that "all" does not depend on what else is installed.
    """

    def __init__(
        self,
        kind: str,
        targets: Mapping[str, str | tuple[str, str]] | None = None,
        plugins: Plugins | None = None,
        groups: Iterable[str] = (),
    ) -> None:
        self.kind = kind
        self._plugins = plugins
        self._targets: dict[str, str] = {}
        self.groups: dict[str, list[str]] = {group: [] for group in groups}  # names of each
        for name, target in (targets or {}).items():
            self._targets[name] = target if isinstance(target, str) else target[0]
            if not isinstance(target, str):
                self.groups[target[1]].append(name)

    def load(self, name: str) -> Any:
        """The object that `name` stands for.

        Raises UnknownName with near matches, PluginError for what another package offers under
        this name and cannot be used.
        """
        if name in self._targets:
            return resolve_name(self._targets[name])
        offered = self.offered()
        if self._plugins and name in offered:
            return self._plugins.load(name)
        raise unknown_name(self.kind, name, [*self._targets, *offered])

    def offered(self) -> list[str]:
        """Names that other packages offer, those that do not work among them."""
        return self._plugins.names() if self._plugins else []

    def create(self, name: str) -> Any:
        """An instance of the class that `name` stands for, with default parameters."""
        made = self.load(name)
        if self._plugins is None or name in self._targets:
            return made()
        with self._plugins.blamed(name):
            return made()

    def package(self, name: str) -> str:
        """Name and version of the other package that offers `name`; empty for our own."""
        return self._plugins.package(name) if self._plugins and name not in self._targets else ""

    def name_of(self, thing: type) -> str:
        """The name that a class is registered under, found without importing any other."""
        target = f"{thing.__module__}:{thing.__qualname__}"
        for name, registered in self._targets.items():
            if registered == target:
                return name
        if self._plugins and (name_there := self._plugins.name_of(thing)):
            return name_there
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


class Plugins:
    """The entry points of one group; the name of an entry point is the name that users write."""

    def __init__(self, kind: str, group: str, base: str) -> None:
        """kind: what users call one of them, ``ensemble``. group: ``clipsyn.methods.ensembles``.

        base: ``module:class`` of what they are, subclasses or instances.
        """
        self.kind = kind
        self._group = group
        self._base = base

    def names(self) -> list[str]:
        """All names on offer, also of broken packages: nothing is imported."""
        return sorted(self._entries().names)

    def package(self, name: str) -> str:
        """Name and version of the package that offers `name`; empty if none does."""
        offering = list(self._entries().select(name=name))
        if len(offering) > 1:
            packages = " and ".join(sorted(map(_package, offering)))
            raise PluginError(
                f"{self.kind} '{name}' is offered by {packages}: uninstall all but one"
            )
        return _package(offering[0]) if offering else ""

    def load(self, name: str) -> Any:
        """The object of the entry point `name`, imported; raises PluginError."""
        base = resolve_name(self._base)
        with self.blamed(name):
            (entry,) = self._entries().select(name=name)
            loaded = entry.load()
            if isinstance(loaded, type) and issubclass(loaded, base):
                if entry.value != (home := _home(loaded)):  # routers find their class by it
                    raise TypeError(f"the entry point says {entry.value}, the class is {home}")
            elif not isinstance(loaded, base):
                raise TypeError(f"{entry.value} is no {self._base.replace(':', '.')}")
        return loaded

    @contextmanager
    def blamed(self, name: str) -> Iterator[None]:
        """Raise PluginError, naming the package that offers `name`, for an exception inside.

        Clipsyn's own errors pass: they are about what the user gave.
        """
        package = self.package(name)
        try:
            yield
        except ClipsynError:
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(
                f"{self.kind} '{name}' of the package {package} does not work ({what}): mend or "
                "uninstall that package"
            ) from error

    def name_of(self, thing: type) -> str | None:
        """The name that a class is offered under; nothing is imported."""
        home = _home(thing)
        return next((entry.name for entry in self._entries() if entry.value == home), None)

    def _entries(self) -> EntryPoints:
        from importlib.metadata import entry_points  # 14 ms, which no command needs to start

        return entry_points(group=self._group)


def _home(thing: type) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module

"""What other packages add to clipsyn by entry points, found and loaded by name.

Names are read from the metadata of installed packages, and only when a user asks for a name that is
not clipsyn's own, or for a list. Code is imported only for a name that the user wrote, never for a
name in a store or a router.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from clipsyn.errors import ClipsynError, PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints


class Plugins:
    """The entry points of one group; the name of an entry point is the name that users write."""

    def __init__(self, kind: str, group: str, base: str) -> None:
        """kind: what users call one of them, ``ensemble``. group: ``clipsyn.ensembles``.

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

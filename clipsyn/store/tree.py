"""What readers ask of the place where a store lies: folders, and the groups in them.

A store on a file system is read where it is. `clipsyn.remote` has the other implementation, which
brings groups of a published store into a cache when they are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from clipsyn.store import arrays, files
from clipsyn.store.layout import Listed

FileStamp = tuple[int, int]


class IndexEntry(Protocol):
    """What an index says of one group."""

    @property
    def place(self) -> tuple[str, ...]:
        """Its kind and names."""

    @property
    def bytes(self) -> int:
        """Of its files."""

    @property
    def fingerprint(self) -> str:
        """Of its identity."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a table of cells shows of it."""


class Tree(Protocol):
    """Paths are those of the store: what lies at a URL is read from elsewhere."""

    lanes: int  # how many threads a reader of many chunks does best with

    def expect(self, paths: Iterable[Path]) -> None:
        """Groups at these folders, and below them, will be looked at."""

    def marker(self, store: Path) -> dict[str, Any]:
        """What `clipsyn.json` says."""

    def exists(self, path: Path) -> bool:
        """Whether a folder, of a group or above groups, is there."""

    def folders(self, path: Path) -> list[str]:
        """Names of the folders in one, sorted; none where there is no folder."""

    def size(self, path: Path) -> int:
        """Bytes of all files under a folder."""

    def seen(self, path: Path) -> FileStamp | None:
        """A value that changes when the group is replaced; None where there is no metadata."""

    def facts(self, path: Path) -> Mapping[str, Any] | None:
        """What a table of cells shows of a group, where that is known without reading it."""

    def listed(self) -> Collection[IndexEntry] | None:
        """All groups, where there is an index of them."""

    def attributes(self, path: Path) -> Mapping[str, Any]:
        """Of a group; raises DamagedStore where there is none."""

    def read(self, path: Path, array: str, rows: range | None, listed: Listed) -> NDArray[Any]:
        """As `arrays.read`, of an array of a group."""

    def damage(self, path: Path, array: str, listed: Listed) -> list[str]:
        """As `arrays.damage`, of an array of a group."""


class _OnDisk:
    """A store on a file system."""

    lanes = 4  # of which each copies what it has read into its place; see store.arrays
    exists = staticmethod(files.exists)
    folders = staticmethod(files.folders)
    size = staticmethod(files.size)
    attributes = staticmethod(arrays.read_attributes)

    def expect(self, paths: Iterable[Path]) -> None:
        """They are there."""

    def marker(self, store: Path) -> dict[str, Any]:
        from clipsyn.store.marker import read_marker  # which writes too, and so needs groups

        return read_marker(store)

    def seen(self, path: Path) -> FileStamp | None:
        return files.file_at(path / arrays.METADATA)

    def facts(self, path: Path) -> None:
        """Nothing is known before a group is read."""

    def listed(self) -> None:
        """There is no index."""

    def read(self, path: Path, array: str, rows: range | None, listed: Listed) -> NDArray[Any]:
        return arrays.read(path / array, rows, listed)

    def damage(self, path: Path, array: str, listed: Listed) -> list[str]:
        return arrays.damage(path / array, listed)


ON_DISK: Tree = _OnDisk()

"""Groups of a store as readers see them, and the tree of folders in which they lie.

Every reader gets groups and their arrays here. So it never gets a group that was moved,
attributes that were altered, or a chunk that belongs to another group.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipsyn.catalog.backbones import is_shipped
from clipsyn.errors import DamagedStore, StaleCell, UnsupportedFormat
from clipsyn.names import MARKER, fingerprint
from clipsyn.store import arrays, files
from clipsyn.store.arrays import Layout
from clipsyn.store.given import Made

ELSEWHERE = "shown under another condition"  # why most rows of a condition have no value
FileStamp = tuple[int, int]
_SEEN = ("kind", "fingerprint", "arrays", "class_names", "metric", "licence", "logit_scale")


class Tree:
    """What readers ask of the place where a store lies: this one is a folder on a file system.

    `clipsyn.remote.published` has the other, which brings groups of a published store into a cache
    when they are read. Paths are those of the store: what lies at a URL is read from elsewhere.
    """

    lanes = 4  # how many threads a reader of many chunks does best with
    groups = 1  # of how many groups at a time all is read

    def expect(self, paths: Iterable[Path], *, columns: bool = False) -> None:
        """Groups at these folders, and below them, will be looked at, and with `columns` arrays
        that have one axis be read.
        """

    def marker(self, store: Path) -> dict[str, Any]:
        """What `clipsyn.json` says: format version, id of the store, rows of a chunk.

        That there is none passes as OSError; raises UnsupportedFormat if it cannot be read or is
        newer.
        """
        try:
            marker: dict[str, Any] = json.loads(files.read_file(store / MARKER))
            files.check_marker(str(store), marker)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnsupportedFormat(f"{store / MARKER} cannot be read: {error}") from error
        return marker

    def exists(self, path: Path) -> bool:
        """Whether a folder, of a group or above groups, is there."""
        return files.exists(path)

    def folders(self, path: Path) -> list[str]:
        """Names of the folders in one, sorted; none where there is no folder."""
        return files.folders(path)

    def look_in(self, paths: Iterable[Path]) -> None:
        """Groups of datasets will be listed, which have these folders."""

    def size(self, path: Path) -> int:
        """Bytes of all files under a folder."""
        return files.size(path)

    def seen(self, path: Path) -> FileStamp | None:
        """A value that changes when the group is replaced; None where there is no metadata."""
        return files.file_at(path / files.METADATA)

    def facts(self, path: Path) -> Mapping[str, Any] | None:
        """What a table of cells shows of a group, where that is known without reading it."""
        return None

    def attributes(self, path: Path) -> Mapping[str, Any]:
        """Of a group; raises DamagedStore where there is none."""
        return arrays.read_attributes(path)

    def read(self, path: Path, array: str, rows: range | None, listed: Layout) -> NDArray[Any]:
        """As `arrays.read`, of an array of a group."""
        return arrays.read(path / array, listed, rows)

    def copy(self, path: Path, folder: Path, names: Sequence[str]) -> None:
        """Copy files of a group into a folder."""
        for name in names:
            shutil.copyfile(path / name, folder / name)

    def damage(self, path: Path, listed: Mapping[str, Layout]) -> list[str]:
        """As `arrays.damage`, of the arrays of a group."""
        return [it for name, array in listed.items() for it in arrays.damage(path / name, array)]


ON_DISK = Tree()


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with a digest over them, by which a reader sees that they are complete."""
    return {**attributes, "digest": _digest(attributes)}


def _digest(attributes: Mapping[str, Any]) -> str:
    """A digest over all attributes but the identity, which has the fingerprint."""
    covered = {name: attributes[name] for name in attributes.keys() - {"identity", "digest"}}
    return fingerprint(covered)


def replaced_meanwhile(store: Path, what: str) -> StaleCell:
    """The error for a group that another command replaces while it is being read."""
    return StaleCell(
        f"{what} in {store} was replaced while it was read: run the same command again"
    )


@dataclass(frozen=True)
class Group:
    """One published group with complete attributes that belongs where it is.

    Making one raises DamagedStore for attributes that were altered, or belong elsewhere.
    """

    store: Path
    path: Path
    attributes: Mapping[str, Any]  # shared: read only
    seen: FileStamp | None  # which file they were read from
    tree: Tree = ON_DISK

    def __post_init__(self) -> None:
        try:
            wrong = self._altered() or self._inconsistent()
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            wrong = f"its attributes cannot be ({error})"
        if wrong:
            raise DamagedStore(f"{self.path / files.METADATA} is damaged: {wrong}")
        kind, *names = self["place"]
        belongs = (kind, *map(files.folder_name, names))
        if belongs != files.below(self.store, self.path):
            raise DamagedStore(
                f"{self.name} in {self.store} is what belongs in {Path(*belongs)}: move it back "
                f"there, or remove it with `clipsyn rm` and make it again"
            )

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    @property
    def name(self) -> str:
        return str(self.path.relative_to(self.store))

    @property
    def kind(self) -> str:
        """Of the folder that it lies in."""
        return files.below(self.store, self.path)[0]

    @property
    def imported(self) -> bool:
        """Whether it was made elsewhere."""
        return bool(self["identity"].get("source") == files.IMPORTED)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Library versions, device, date and costs, as they were recorded."""
        return self.attributes.get("provenance") or {}

    @property
    def source(self) -> str | None:
        """Where the weights of its encoder were loaded from, if that was recorded.

        Of shipped ones it is the name: their folder is another one on each machine.
        """
        *_, name = self["place"]
        if is_shipped(name):
            return str(name)
        return (self.provenance.get("encoder") or {}).get("source")

    @cached_property
    def arrays(self) -> Mapping[str, Layout]:
        """Its arrays, as it lists them."""
        return {name: Layout.parse(listed) for name, listed in self["arrays"].items()}

    @property
    def files(self) -> list[str]:
        """The files that readers need, by their path in it."""
        listed = {name: (files.METADATA, *it.files()) for name, it in self.arrays.items()}
        return [files.METADATA, *(f"{name}/{file}" for name in listed for file in listed[name])]

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """The length of each dimension."""
        return {
            dim: length
            for spec in files.arrays_of(self.kind, self["identity"])
            if spec.name in self.arrays
            for dim, length in zip(spec.dims, self.arrays[spec.name].shape, strict=True)
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What a table of cells shows of it; an index has them, so that it need not be opened.

        Of the rows that an import leaves empty, those of other conditions count as no images.
        """
        if self.kind == "samples":
            return {"images": self.sizes["sample"], "classes": len(self["class_names"])}
        answers = self.kind in files.ANSWERS and not self.imported
        if self.kind in ("captions", "classes", "texts") or answers:
            count = {"captions": self.sizes["caption"]} if "caption" in self.sizes else {}
            return {**count, **({"imported": "embeddings"} if self.imported else {})}
        invalid = dict(self.attributes.get("invalid") or {})
        images = self.sizes["sample"] - invalid.pop(ELSEWHERE, 0)
        bad = sum(invalid.values()) + len(self.attributes.get("errors") or {})
        width = {"embed": self.sizes["embed"]} if self.kind == "features" else {}
        held = {"imported": files.HELD[self.kind]} if self.imported else {}
        backbone = self["identity"].get("backbone")  # of imports the name
        is_bare = isinstance(backbone, dict) and backbone.get("text", "") is None
        bare = {"textless": 1} if is_bare else {}
        return {"images": images, "bad": bad, **width, **held, **bare}

    @property
    def content(self) -> str:
        """A digest of what readers see of it, wherever and whenever the same numbers were made.

        Dates, devices, versions and the names of imported files are no part of it.
        """
        return fingerprint({name: self[name] for name in _SEEN if name in self.attributes})

    def check_of(self, field: str, source: Group, line: str) -> None:
        """Raise StaleCell, which advises a command, unless both are of the same in that field."""
        if self["identity"][field] != source["identity"][field]:
            raise StaleCell(
                f"{self.name} in {self.store} is of other {field} than {source.name}: run `{line}`",
                (field,),
            )

    def read(self, array: str, rows: range | None = None) -> NDArray[Any]:
        """An array, or some rows of it.

        Raises DamagedStore if they are not those that were published, StaleCell if another command
        has replaced the group since it was opened.
        """
        try:
            values = self.tree.read(self.path, array, rows, self.arrays[array])
        except DamagedStore:
            if self.tree.seen(self.path) != self.seen:
                raise replaced_meanwhile(self.store, self.name) from None
            raise
        return values

    def rows(self, array: str) -> Made:
        """An array that is read some rows at a time, where these are asked for."""
        listed = self.arrays[array]

        def read(rows: slice) -> NDArray[Any]:
            return self.read(array, range(rows.start, rows.stop))

        return Made(listed.shape, listed.numpy, read, listed.rows)

    def _altered(self) -> str | None:
        """In words, which attributes were altered; None if none was."""
        if fingerprint(self["identity"]) != self["fingerprint"]:
            return "its identity does not match its fingerprint"
        if _digest(self.attributes) != self["digest"]:
            return "its attributes do not match their digest"
        return None

    def _inconsistent(self) -> str | None:
        """In words, which arrays are not of the type and the dimensions that its kind has."""
        if self["kind"] != self.kind:
            return f"its kind is {self['kind']}, in a folder of {self.kind}"
        specs = {spec.name: spec for spec in files.arrays_of(self.kind, self["identity"])}
        if {files.LOOK, *self.arrays} != {files.LOOK, *specs}:
            return f"it lists other arrays than {', '.join(specs)}"
        for name, there in self.arrays.items():
            spec = specs[name]
            expected = tuple(self.sizes[dim] for dim in spec.dims)
            if (there.shape, there.dtype) != (expected, spec.dtype):
                return f"array {name} is {there.dtype} {there.shape}, not {spec.dtype} {expected}"
        return None

"""Webdataset tars in CLIP_benchmark's layout, read in place.

    ROOT/classnames.txt  zeroshot_classification_templates.txt
    ROOT/<split>/nshards.txt  0.tar  1.tar  …      members KEY.jpg|jpeg|png|webp and KEY.cls

The tars are indexed once from their headers; an image is then one positional read.
"""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.catalog.texts import find_class_names, read_lines
from clipsyn.errors import DatasetError
from clipsyn.images.sources import (
    UNLABELLED,
    EncodedSource,
    class_indices,
    numbered,
    open_regular,
    read_at,
)
from clipsyn.text import foreign

IMAGE_KINDS = frozenset(("webp", "png", "jpg", "jpeg"))
_MOST_HEADER = 1 << 20  # bytes of a name or of attributes, which is read whole
_MOST_LABEL = 100


class Member(NamedTuple):
    """Where an image lies: bytes `offset` to `offset + size` of a tar."""

    shard: Path
    key: str
    offset: int
    size: int
    label: int


@dataclass(frozen=True, eq=False)
class WebdatasetSource(EncodedSource):
    members: tuple[Member, ...] = field(default=(), kw_only=True)

    def read(self, index: int) -> bytes:
        member = self.members[index]
        return read_at(member.shard, member.offset, member.size)


def is_webdataset(path: Path, split: str) -> bool:
    """Whether a folder holds tars of this split, or of any."""
    if not path.is_dir():
        return False
    return any(path.glob("*/nshards.txt")) or any(map(_holds_tars, (path / split, path)))


def _holds_tars(folder: Path) -> bool:
    """Whether a folder holds tars; an archive beside folders of images does not count."""
    if not any(folder.glob("*.tar")):
        return False
    return (folder / "nshards.txt").is_file() or not any(x.is_dir() for x in folder.iterdir())


def open_webdataset(
    path: Path, name: str, split: str, _root: Path | None = None
) -> WebdatasetSource:
    """Index the tars of ``PATH/<split>/`` (or of PATH itself if the tars lie there).

    Order is by shard, then by position in the tar. Ids are the keys, or ``<shard>/<key>`` where
    a key is used in several shards. Raises DatasetError for a missing split, a number of tars
    other than nshards.txt says, a damaged or cut tar, images without label beside ones with.
    """
    folder = _split_folder(path, split)
    templates = path / "zeroshot_classification_templates.txt"
    members = [member for shard in _shards(folder) for member in _index(shard)]
    keys = Counter(member.key for member in members)
    unique = len(keys) == len(members)
    labels = class_indices(f"webdataset '{folder}'", [member.label for member in members])
    _check_labelled(folder, members)
    class_names, notes = _class_names(path, name, labels)
    return WebdatasetSource(
        name,
        split,
        ids=tuple(m.key if unique else f"{m.shard.stem}/{m.key}" for m in members),
        labels=labels,
        class_names=class_names,
        templates=read_lines(templates) if templates.is_file() else (),
        notes=notes,
        members=tuple(members),
        is_divided=folder != path,
    )


def open_tar(tar: Path, name: str, split: str) -> WebdatasetSource:
    """The images of one tar, whatever its folders; ids are the members' names without endings.

    Raises DatasetError for a tar without images, or one that is damaged or cut.
    """
    members = tuple(_index(tar))
    return WebdatasetSource(
        name,
        split,
        ids=tuple(member.key for member in members),
        labels=np.full(len(members), UNLABELLED, np.int32),
        members=members,
    )


def _split_folder(path: Path, split: str) -> Path:
    for folder in (path / split, path):
        if _holds_tars(folder):
            return folder
    known = sorted({tar.parent.name for tar in path.glob("*/*.tar")})
    raise DatasetError(
        f"webdataset '{path}' has no split '{split}'; it has {', '.join(known) or 'no tars'}"
    )


def _shards(folder: Path) -> list[Path]:
    """The tars in numeric order, as many as nshards.txt says."""
    shards = sorted(folder.glob("*.tar"), key=_shard_order)
    counted = folder / "nshards.txt"
    if counted.is_file():
        text = " ".join(read_lines(counted))
        if text.lstrip("0") != str(len(shards)).lstrip("0"):
            raise DatasetError(
                f"'{counted}' says '{text[:20]}', but there are {len(shards)} tars: some are "
                "missing, or the copy was interrupted"
            )
    return shards


def _shard_order(shard: Path) -> tuple[int, str]:
    return (int(shard.stem) if shard.stem.isdecimal() else -1, shard.name)


def _index(shard: Path) -> list[Member]:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    for key, kind, entry in _entries(shard):
        if kind not in IMAGE_KINDS and kind != "cls":
            continue
        if key in (labels if kind == "cls" else images):
            what = "labels" if kind == "cls" else "images"
            raise DatasetError(f"tar '{shard}': two {what} have the id '{key}'")
        if kind == "cls":
            labels[key] = _label(shard, key, entry)
        else:
            images[key] = (entry.offset_data, entry.size)
    if lonely := [key for key in labels if key not in images]:
        raise DatasetError(
            f"tar '{shard}': {len(labels)} labels for {len(images)} images; "
            f"'{lonely[0]}.cls' has no image"
        )
    return [
        Member(shard, key, offset, size, labels.get(key, UNLABELLED))
        for key, (offset, size) in images.items()
    ]


class _Headers(io.BufferedReader):
    """A tar whose headers are read, which `tarfile` does in one piece however long they are."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"a header has more than {_MOST_HEADER:,} bytes")
        return super().read(size)


def _entries(shard: Path) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """(key, kind, header) of each file, in order; checks that the tar is whole."""
    with (
        foreign(partial(_damaged, shard)),
        _Headers(io.FileIO(open_regular(shard))) as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        end = 0
        while entry := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # it keeps them all
            if tar.offset <= end or entry.issparse():
                raise tarfile.ReadError(f"'{entry.name}' is sparse or has no valid size")
            end = tar.offset
            if entry.isfile():
                folder, _, base = entry.name.removeprefix("./").rpartition("/")
                stem, _, kind = base.partition(".")
                yield f"{folder}/{stem}" if folder else stem, kind.lower(), entry
        # A tar ends in two empty blocks; without one it was cut between two members,
        # which the headers alone cannot tell from an end.
        if shard.stat().st_size < end + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("its end is missing")


def _damaged(shard: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"tar '{shard}' is damaged or cut short ({reason}): copy or download it again"
    )


def _label(shard: Path, key: str, entry: tarfile.TarInfo) -> int:
    with foreign(partial(_damaged, shard)):
        data = read_at(shard, entry.offset_data, min(entry.size, _MOST_LABEL + 1))
    text = data.decode("ascii", "replace").strip()
    try:
        return int(text[: _MOST_LABEL if len(data) <= _MOST_LABEL else 0])
    except ValueError as error:
        raise DatasetError(
            f"tar '{shard}': '{key}.cls' holds '{text[:20]}' instead of a class index"
        ) from error


def _check_labelled(folder: Path, members: list[Member]) -> None:
    bare = [member for member in members if member.label == UNLABELLED]
    if bare and len(bare) < len(members):
        raise DatasetError(
            f"'{folder}': {len(members)} images but {len(members) - len(bare)} labels; "
            f"'{bare[0].key}' in '{bare[0].shard.name}' has no .cls"
        )


def _class_names(
    path: Path, name: str, labels: NDArray[np.int32]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names, source = find_class_names([path / "classnames"], name)
    if source is None and (labels != UNLABELLED).any():
        note = f"{name}: no classnames.txt in '{path}', so the classes are called 0, 1, …"
        return numbered(labels), (note,)
    return names, ()

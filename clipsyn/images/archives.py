"""Image sets that are archives, read in place: webdataset tars and Parquet files of Hugging Face.

    ROOT/classnames.txt  zeroshot_classification_templates.txt
    ROOT/<split>/nshards.txt  0.tar  1.tar  …      members KEY.jpg|jpeg|png|webp and KEY.cls,
                                                   or KEY.txt, a caption a line, or KEY.json

as CLIP_benchmark has them, indexed once from their headers, so that an image is one read; and

    ROOT/[data/]<split>-00000-of-00002.parquet, ROOT/<split>.parquet or ROOT/<split>/0000.parquet

read without the library: a row has a struct of encoded bytes and path, and perhaps captions.
Nothing is downloaded, and no code of a set is run.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.catalog.datasets import find_class_names, read_lines
from clipsyn.errors import DatasetError
from clipsyn.images.source import (
    ImageSource,
    class_indices,
    no_split,
    numbered,
    open_regular,
    read_at,
    row_ids,
    whole_labels,
)
from clipsyn.methods.pool import NO_LABEL
from clipsyn.show.frames import scan_parquet
from clipsyn.text import foreign, parse_json

_MOST_TEXT = 1 << 20  # bytes
_KINDS = ("image", "cls", "txt", "json")  # of members
_MOST_HEADER = 1 << 20  # bytes of a name or of attributes, which is read whole
IMAGE_KINDS = frozenset(("webp", "png", "jpg", "jpeg"))


class Member(NamedTuple):
    """Where an image lies: bytes `offset` to `offset + size` of a tar; its label and captions."""

    shard: Path
    key: str
    offset: int
    size: int
    label: int
    captions: Sequence[str]


def is_webdataset(path: Path, split: str) -> bool:
    """Whether a folder holds tars of this split, or of any; or a file is one."""
    if not path.is_dir():
        return path.suffix == ".tar" and path.is_file()
    return any(path.glob("*/nshards.txt")) or any(map(_holds_tars, (path / split, path)))


def _holds_tars(folder: Path) -> bool:
    """Whether a folder holds tars; an archive beside folders of images does not count."""
    if not any(folder.glob("*.tar")):
        return False
    return (folder / "nshards.txt").is_file() or not any(x.is_dir() for x in folder.iterdir())


def open_webdataset(path: Path, name: str, split: str, _root: Path | None = None) -> ImageSource:
    """Index the tars of ``PATH/<split>/``, of PATH itself if the tars lie there, or one tar.

    Order is by shard, then by position in the tar. Ids are the keys, or ``<shard>/<key>`` where
    a key is used in several shards. Raises DatasetError for a missing split, a number of tars
    other than nshards.txt says, a damaged or cut tar, images without label beside ones with.
    """
    folder = path.parent if path.is_file() else _split_folder(path, split)
    templates = path / "zeroshot_classification_templates.txt"
    shards = [path] if path.is_file() else _shards(folder)
    members = [member for shard in shards for member in _index(shard)]
    bare = [member for member in members if member.label == NO_LABEL]
    if bare and len(bare) < len(members):
        raise DatasetError(
            f"'{folder}': {len(members)} images but {len(members) - len(bare)} labels; "
            f"'{bare[0].key}' in '{bare[0].shard.name}' has no .cls"
        )
    captions = [member.captions for member in members]
    unique = len({member.key for member in members}) == len(members)
    labels = class_indices(f"webdataset '{folder}'", [member.label for member in members])
    names, _ = find_class_names(path / "classnames")
    return ImageSource(
        name,
        split,
        ids=tuple(m.key if unique else f"{m.shard.stem}/{m.key}" for m in members),
        labels=labels,
        class_names=names or numbered(labels),
        templates=read_lines(templates) if templates.is_file() else (),
        captions=captions if any(captions) else (),
        is_divided=folder != path,
        place=lambda row: (members[row].shard, members[row].offset, members[row].size),
    )


def _split_folder(path: Path, split: str) -> Path:
    for folder in (path / split, path):
        if _holds_tars(folder):
            return folder
    raise no_split(path, split, {tar.parent.name for tar in path.glob("*/*.tar")})


def _shards(folder: Path) -> list[Path]:
    """The tars in numeric order, as many as nshards.txt says."""
    stems = {tar: tar.stem for tar in folder.glob("*.tar")}
    shards = sorted(
        stems, key=lambda tar: (int(stems[tar]) if stems[tar].isdecimal() else -1, tar.name)
    )
    counted = folder / "nshards.txt"
    if counted.is_file():
        text = " ".join(read_lines(counted))
        if text.lstrip("0") != str(len(shards)).lstrip("0"):
            raise DatasetError(
                f"'{counted}' says '{text[:20]}', but there are {len(shards)} tars: copy the others"
            )
    return shards


def _index(shard: Path) -> list[Member]:
    found: dict[str, dict[str, tuple[int, int]]] = {kind: {} for kind in _KINDS}
    for key, kind, entry in _entries(shard):
        which = found.get("image" if kind in IMAGE_KINDS else kind, {})
        if key in which:
            what = {"cls": "labels", "txt": "texts", "json": "descriptions"}.get(kind, "images")
            raise DatasetError(f"tar '{shard}': two {what} have the id '{key}'")
        which[key] = entry.offset_data, entry.size
    images = found["image"]
    for kind, which in found.items():
        if lonely := [key for key in which if key not in images]:
            raise DatasetError(
                f"tar '{shard}': {len(which)} .{kind} for {len(images)} images; "
                f"'{lonely[0]}.{kind}' has no image"
            )
    return [Member(shard, key, *images[key], *_told(shard, key, found)) for key in images]


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


def _damaged(path: Path, reason: str) -> DatasetError:
    return DatasetError(f"'{path}' is damaged or cut short ({reason}): copy or download it again")


def _told(
    shard: Path, key: str, found: Mapping[str, Mapping[str, tuple[int, int]]]
) -> tuple[int, Sequence[str]]:
    """What lies beside an image: its label; and the lines of its text, or the JSON's `caption`."""

    def text(kind: str) -> str:
        offset, size = found[kind].get(key, (0, 0))
        if not size:
            return ""
        with foreign(lambda why: DatasetError(f"tar '{shard}': '{key}.{kind}': {why}")):
            if size > _MOST_TEXT:
                raise ValueError(f"it has {size:,} bytes")
            return read_at(shard, offset, size).decode().strip()

    label = text("cls") if key in found["cls"] else str(NO_LABEL)
    told = f"tar '{shard}': '{key}.cls' holds '{label[:20]}' instead of a class index"
    with foreign(lambda _: DatasetError(told)):
        number = int(label)
    if key in found["txt"] or key not in found["json"]:
        return number, [line.strip() for line in text("txt").splitlines() if line.strip()]
    with foreign(lambda why: DatasetError(f"tar '{shard}': '{key}.json': {why}")):
        content = parse_json(text("json"))
        own = (content.get("caption") if isinstance(content, dict) else None) or ()
        return number, [line.strip() for line in ([own] if isinstance(own, str) else own)]


_IMAGES = ("image", "img", "jpg", "png", "webp")
_LABELS = ("label", "labels", "fine_label", "target", "cls")
_CAPTION = re.compile(r"captions?(_\d+)?")  # columns of texts, or of lists of these
_AT_ONCE = 256  # rows of a table: images are asked for in order, by several threads
_KEPT_GROUPS = 4
_SHARD = re.compile(r"(?P<split>.+?)(?:-\d{5}-of-\d{5}(?:-[0-9a-f]+)?)?")


@dataclass(frozen=True, eq=False)
class HuggingFaceSource(ImageSource):
    """Images in rows of files; the rows that were read last stay in memory."""

    files: tuple[Path, ...] = field(kw_only=True)
    ends: NDArray[np.int64] = field(kw_only=True)  # of each file's rows among all
    column: str = field(kw_only=True)
    _lock: Lock = field(default_factory=Lock, init=False)
    _kept: OrderedDict[tuple[Path, int], pl.Series] = field(default_factory=OrderedDict, init=False)

    def read(self, index: int) -> bytes:
        at = int(np.searchsorted(self.ends, index, side="right"))
        file, first = self.files[at], int(self.ends[at - 1]) if at else 0
        try:
            cell = self._cell(file, index - first)
        except pl.exceptions.PolarsError as error:
            raise OSError(f"its file is damaged: {error}") from error
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is None:
            raise OSError("the row has no image")
        return bytes(content)

    def _cell(self, file: Path, row: int) -> Any:
        start = row - row % _AT_ONCE
        with self._lock:
            key = file, start
            if key not in self._kept:
                while len(self._kept) >= _KEPT_GROUPS:
                    self._kept.popitem(last=False)
                rows = pl.scan_parquet(file, glob=False).select(self.column)
                self._kept[key] = rows.slice(start, _AT_ONCE).collect()[self.column]
            return self._kept[key][row - start]


def is_huggingface(path: Path) -> bool:
    """Whether a folder, or a file, is an image set of `datasets`."""
    if path.is_file():
        return path.suffix == ".parquet" and _image_column(_schema(path)) is not None
    tables = next(iter(_parquet(path).values()), [])
    return bool(tables) and _image_column(_schema(tables[0])) is not None


def open_huggingface(
    path: Path, name: str, split: str, _root: Path | None = None
) -> HuggingFaceSource:
    """The images of a split; of a file all.

    Order is that of the files. Ids are the images' paths if each is there once, else row numbers.
    Class names are those of `classnames.txt` beside the files, else of the set's own features.
    Raises DatasetError for a split that is not there and for files that cannot be read.
    """
    tables = {split: [path]} if path.is_file() else _parquet(path)
    if split not in tables:
        raise no_split(path, split, tables)
    files = tables[split]
    schema = _schema(files[0])
    column = _image_column(schema)
    if column is None:
        raise DatasetError(
            f"'{files[0]}' has no column of images (a struct of bytes and path); its columns are "
            f"{', '.join(schema)}"
        )
    label = next((name for name in _LABELS if name in schema), None)
    names, _ = find_class_names((path if path.is_dir() else path.parent) / "classnames")
    captions = _captions(files[0], schema)
    frames = [_small_columns(file, schema[column], column, label, captions) for file in files]
    with foreign(partial(_damaged, files[0].parent)):
        frame = pl.concat(frames)
    labels = _row_labels(files[0], frame["label"])
    paths = frame["path"]
    has_paths = not paths.null_count() and paths.n_unique() == len(paths)
    return HuggingFaceSource(
        name,
        split,
        ids=tuple(paths) if has_paths else row_ids(len(frame)),
        labels=labels,
        class_names=names or _own_names(files[0], label) or numbered(labels),
        captions=frame["captions"].to_list() if captions else (),
        is_divided=path.is_dir(),
        files=tuple(files),
        ends=np.cumsum([len(rows) for rows in frames]),
        column=column,
    )


def _parquet(path: Path) -> dict[str, list[Path]]:
    """Parquet files by split: their names, or their folders', say which."""
    found: dict[str, list[Path]] = {}
    for folder in (path, path / "data"):
        for file in sorted(folder.glob("*.parquet")):
            if match := _SHARD.fullmatch(file.stem):
                found.setdefault(match["split"], []).append(file)
    for file in sorted(path.glob("*/*.parquet")):
        if file.parent.name != "data":
            found.setdefault(file.parent.name, []).append(file)
    return found


def _own_names(path: Path, label: str | None) -> tuple[str, ...]:
    """The class names that the library writes beside the schema."""
    with foreign(partial(_damaged, path)):
        text = pl.read_parquet_metadata(path).get("huggingface") or "{}"
        feature = parse_json(text).get("info", {}).get("features", {}).get(label) or {}
        return tuple(map(str, feature.get("names") or ()))


def _schema(path: Path) -> Mapping[str, Any]:
    with foreign(partial(_damaged, path)):
        return scan_parquet(path).collect_schema()


def _image_column(schema: Mapping[str, Any]) -> str | None:
    """The column with images: a struct with bytes, or bytes that are called so."""
    for name in (*(name for name in _IMAGES if name in schema), *schema):
        if _fields(schema[name]).get("bytes") == pl.Binary:
            return name
        if name in _IMAGES and schema[name] == pl.Binary:
            return name
    return None


def _fields(dtype: pl.DataType) -> dict[str, Any]:
    """The fields of a struct."""
    return {it.name: it.dtype for it in dtype.fields} if isinstance(dtype, pl.Struct) else {}


def _small_columns(
    file: Path, image: pl.DataType, column: str, label: str | None, captions: list[pl.Expr]
) -> pl.DataFrame:
    """The label, the path and the captions of each image."""
    has_path = _fields(image).get("path") == pl.String
    path = pl.col(column).struct.field("path") if has_path else pl.lit(None, pl.String)
    labels = pl.col(label) if label else pl.lit(NO_LABEL, pl.Int64)
    with foreign(partial(_damaged, file)):
        rows = scan_parquet(file).with_row_index("row")
        return rows.select("row", labels.alias("label"), path.alias("path"), *captions).collect()


def _captions(file: Path, schema: Mapping[str, Any]) -> list[pl.Expr]:
    """A column `captions` of all texts of each image, where there is any column of them."""
    names = [name for name in schema if _CAPTION.fullmatch(name)]
    for name in names:
        if schema[name] not in (pl.String, pl.List(pl.String)):
            raise DatasetError(
                f"'{file}': the column {name} is {schema[name]}: captions are texts or lists of "
                "texts; cast it, or give it another name"
            )
    lists = [pl.concat_list(name).fill_null([]) for name in names]
    texts = [pl.concat_list(lists).list.drop_nulls()] if lists else []
    return [it.list.eval(pl.element().str.strip_chars()).alias("captions") for it in texts]


def _row_labels(file: Path, labels: pl.Series) -> NDArray[np.int32]:
    if not labels.dtype.is_integer():
        raise DatasetError(
            f"'{file}': labels are {labels.dtype}, no class indices: cast them to ClassLabel first"
        )
    return whole_labels(f"'{file}'", labels)

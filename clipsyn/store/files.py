"""How a store lies on a disk: its kinds of groups, their folders and arrays, its files.

`docs/store.md` is the same in prose. Shapes and chunks follow from named dimensions: `sample`
and `caption` arrays are cut into chunks of `chunk_rows` rows by the full width, all others are one
chunk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from clipsyn.errors import DamagedStore, StoreError, UnsupportedFormat, UsageError
from clipsyn.names import MARKER, Address, Location, is_url
from clipsyn.settings import check_outside
from clipsyn.text import advised

METADATA = "zarr.json"  # of a group or an array
FORMAT_VERSION = "2.0"  # of a store: readers refuse another major version
IDENTITY_VERSION = "2.0"  # of identities: with another one, all cells are made again
MOST_CHUNK_ROWS = 1 << 20
IMPORTED = "imported"  # the `source` in the identity of what was made elsewhere
_LONGEST = 255  # bytes of a folder's name
_AMBIGUOUS_HYPHEN = re.compile(r"-(?=[-/])|(?<=[-/])-")

KINDS: dict[str, tuple[str, ...]] = {  # what the folders of each kind are called after
    "samples": ("dataset", "split"),  # which images
    "captions": ("dataset", "split"),  # which texts, of which images
    "classes": ("dataset", "prompts", "backbone"),  # class embeddings
    "texts": ("dataset", "split", "backbone"),  # embeddings of captions
    "features": ("dataset", "split", "perturbation", "backbone"),  # image embeddings
    "logits": ("dataset", "split", "perturbation", "backbone", "prompts"),
    "predictions": ("dataset", "split", "perturbation", "backbone", "prompts"),  # without logits
}
Place = tuple[str, ...]  # kind and names of a group
PROMPTS = "imported"  # stands for the prompt set of what was imported and is of no known one
ANSWERS = ("logits", "predictions")  # made from features and classes, or imported without these
CELLS = ("features", *ANSWERS)  # of images under a perturbation
ORDER = tuple(KINDS)  # of publishing: sources go first


def check_format(what: str, version: str, ours: str = FORMAT_VERSION) -> None:
    """Raise UnsupportedFormat for another major version; a newer minor one is read."""
    if version.partition(".")[0] != ours.partition(".")[0]:
        raise UnsupportedFormat(
            f"{what} has format {version[:40]}, this clipsyn reads {ours}: if it is older, make it "
            "again; if it is newer, `pip install --upgrade clipsyn`"
        )


def check_marker(what: str, marker: Mapping[str, Any]) -> None:
    """Raise ValueError for rows that no chunk has, UnsupportedFormat for another major version."""
    rows = marker["chunk_rows"]
    if type(rows) is not int or not 1 <= rows <= MOST_CHUNK_ROWS:
        raise ValueError(f"a chunk has no {str(rows)[:40]} rows")
    check_format(what, str(marker["format"]))


@dataclass(frozen=True)
class ArraySpec:
    name: str
    dims: tuple[str, ...]
    dtype: str  # Zarr's name: numpy's, or "string" for variable-length UTF-8
    fill: float | int | bool | str
    doc: str


NAN = float("nan")
LOOK = "look"  # the array that a table need not have: of imported images nobody knows it

_VALID = ArraySpec("valid", ("sample",), "bool", False, "whether there is a value")
_CONFIDENCE = ArraySpec("confidence", ("sample",), "float32", NAN, "NaN where not valid")
_PREDICTION = ArraySpec(
    "prediction", ("sample",), "uint16", 65535, "65534: none of the classes; 65535: not valid"
)
GROUPS: dict[str, tuple[ArraySpec, ...]] = {
    "samples": (
        ArraySpec("sample_id", ("sample",), "string", "", "unique within the split, for ever"),
        ArraySpec("label", ("sample",), "int32", -1, "class index, -1 where there is none"),
        ArraySpec("content_hash", ("sample", "byte"), "uint8", 0, "SHA-256 of the image as stored"),
        ArraySpec(LOOK, ("sample",), "uint64", 0, "64-bit difference hash; 0 where not known"),
    ),
    "captions": (
        ArraySpec("caption_id", ("caption",), "string", "", "unique within the split"),
        ArraySpec("text", ("caption",), "string", "", "never empty"),
        ArraySpec("image", ("caption",), "int32", -1, "row of the sample that it is of"),
    ),
    "classes": (
        ArraySpec("class_embedding", ("class", "embed"), "float32", NAN, "unit norm, of prompts"),
    ),
    "texts": (ArraySpec("text_embedding", ("caption", "embed"), "float16", NAN, "unit norm"),),
    "features": (
        ArraySpec("image_embedding", ("sample", "embed"), "float16", NAN, "NaN where not valid"),
        _VALID,
    ),
    "logits": (
        ArraySpec("logit", ("sample", "class"), "float32", NAN, "NaN where not valid"),
        _PREDICTION,
    ),
    "predictions": (_PREDICTION,),
}
HELD = {"features": "embeddings", "logits": "logits", "predictions": "predictions"}  # as users say


def arrays_of(kind: str, identity: Mapping[str, Any]) -> tuple[ArraySpec, ...]:
    """The arrays of a group. Imported logits and predictions have no features beside them."""
    if kind not in ("logits", "predictions") or identity.get("source") != IMPORTED:
        return GROUPS[kind]
    with_confidences = kind == "predictions" and identity.get("confidences") is True
    return (*GROUPS[kind], *((_CONFIDENCE,) if with_confidences else ()), _VALID)


@lru_cache(4096)
def folder_name(name: str) -> str:
    """A name as one path component: ``/`` becomes ``--``, other unusual characters ``%XX``.

    Hyphens that could be read as a ``/``, a leading dot, and the dot of ``zarr.json`` are escaped,
    too. Raises UsageError for a name that is too long for a file system.
    """
    quoted = _AMBIGUOUS_HYPHEN.sub("%2D", quote(name, safe="/@=+,", errors="surrogatepass"))
    if quoted.startswith(".") or quoted == METADATA:
        quoted = quoted.replace(".", "%2E", 1)
    folder = quoted.replace("/", "--")
    if len(folder) > _LONGEST:
        raise UsageError(
            f"'{name[:40]}…' is too long for a name: it makes {len(folder)} bytes in a path, and "
            f"file systems take {_LONGEST}; shorten it"
        )
    return folder


@lru_cache(4096)
def name_of_folder(folder: str) -> str:
    return unquote(folder.replace("--", "/"), errors="surrogatepass")


def place(store: Path, path: Path) -> list[str]:
    """Kind and names of the group in the folder at `path`."""
    kind, *folders = below(store, path)
    return [kind, *map(name_of_folder, folders)]


def below(store: Path, path: Path) -> tuple[str, ...]:
    """The parts of a path in the store's folder: quicker than `relative_to`, for thousands."""
    return path.parts[len(store.parts) :]


# Files and folders


PARTIAL = ".partial"
WIP = ".wip"  # the folder of what is being written
INDEX = "index.json.gz"  # of a published store: see `clipsyn.remote`
MOST_METADATA = 64 << 20  # bytes; those of 20,000 classes and 100,000 chunks have a few millions


def read_file(file: Path, most: int = MOST_METADATA) -> bytes:
    """The content of a file; raises DamagedStore for more than `most` bytes, a link or a device."""
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise DamagedStore(f"{file} is a link, a device, or a folder for a file: remove it")
    if status.st_size > most:
        raise DamagedStore(f"{file} has {status.st_size:,} bytes, more than any file of its kind")
    return file.read_bytes()


def file_at(path: Path) -> tuple[int, int] | None:
    """A value that changes when the file at `path` is replaced; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_ctime_ns  # inode numbers alone are used again


def exists(path: Path) -> bool:
    """A lacking permission is never taken for a missing file."""
    return file_at(path) is not None


def entries(path: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name; none where there is no folder."""
    try:
        with os.scandir(path) as scan:
            return sorted(scan, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def folders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted; no name in a store makes a hidden folder."""
    return [
        entry.name for entry in entries(path) if entry.is_dir() and not entry.name.startswith(".")
    ]


def size(path: Path | str) -> int:
    """Bytes of all files under a folder; files that vanish meanwhile are not counted."""
    total = 0
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as scan:
        for entry in scan:
            with suppress(FileNotFoundError):
                total += size(entry.path) if entry.is_dir() else entry.stat().st_size
    return total


def write_file(
    path: Path, *buffers: bytes | memoryview, scratch: Path | None = None, synced: bool = True
) -> None:
    """Write a file so that, after a crash, it is complete or missing.

    Until it is complete it lies in `scratch`, a folder of the same file system, or beside `path`.
    Not `synced`, it survives a power cut after `sync_all` only.
    """
    partial = (scratch or path.parent) / f"{path.name}.{secrets.token_hex(4)}{PARTIAL}"
    try:
        with partial.open("xb", buffering=0) as file:
            for buffer in buffers:
                left = memoryview(buffer)
                while left.nbytes:
                    left = left[file.write(left) :]
            if synced:
                os.fsync(file.fileno())
    except OSError as error:
        partial.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise
    partial.replace(path)
    if synced:
        sync(path.parent)


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait until no other process holds the folder, or only such as share it; then hold it.

    Nobody waits where there is no folder or no lock.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Make a file, or what was created in or renamed into a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Make all that was written to the file system of a folder survive a power cut, in one go.

    A system without syncfs(2) syncs every file system.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not hasattr(libc, "syncfs"):
            os.sync()
        elif libc.syncfs(descriptor):
            raise OSError(number := ctypes.get_errno(), os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def rename_unless_taken(folder: Path, target: Path) -> bool:
    """Rename a folder; False where another one, which is not empty, is at `target` already."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


# Where stores are


def is_vacant(path: Path) -> bool:
    """Whether a store can be made there: the folder is missing, or holds unfinished files alone.

    Raises StoreError for a URL, UsageError for a path within another store.
    """
    if isinstance(path, Location):
        raise written_at(path)
    check_outside(path)
    if not exists(path):
        return True
    return path.is_dir() and all(entry.name == WIP for entry in entries(path))


def is_store(path: Path) -> bool:
    return exists(path / MARKER)


def place_of(path: Path | str) -> Path:
    """Where a store is: a Location if it is a published one, at a URL or in a folder."""
    location = None
    if isinstance(path, Location) or is_url(path):
        location = path if isinstance(path, Location) else Location.of(str(path))
        if location.parts[0] != "file:":
            return location
    folder = Address.parse(location.url).folder if location else Path(path)
    if exists(folder / INDEX):
        return location or Location.of(folder.resolve().as_uri())
    return folder


def is_published(path: Path | str) -> bool:
    """Whether the store there is read as a published one: it need not be there."""
    return isinstance(place_of(path), Location)


def written_at(location: Location) -> StoreError:
    """The error for writing to a published store."""
    return StoreError(
        f"{location} is only read: `{advised('pull', location, 'STORE')}` makes a store of your "
        "own, and `clipsyn push` publishes what you add to it"
    )

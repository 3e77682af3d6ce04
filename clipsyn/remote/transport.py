"""The bytes of a published store, over HTTP, in a bucket or in a folder; alone imports obstore.

Nothing that is said or raised here has a credential in it: of what obstore says of a failed request
URLs and the answers of servers are left out.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from clipsyn.errors import DamagedStore, StoreError, UsageError
from clipsyn.names import Address
from clipsyn.remote.credentials import http_headers, settings_of
from clipsyn.store import files

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_TRIES = 3  # of an answer that is cut off; obstore tries again what a server refuses for now
_RETRIES = 6  # of obstore
_PAUSE = 0.2  # seconds before the second try
_SILENCE = 30  # seconds without a byte, after which nobody waits for an answer
_LEAST_RATE = 1_000  # bytes a second, of an answer that has begun
_LOCK = 60  # seconds; an index is written in less
_COPIED = 1 << 20  # bytes at a time
_CLASSES = {
    "http": "HTTPStore",
    "https": "HTTPStore",
    "s3": "S3Store",
    "gs": "GCSStore",
    "az": "AzureStore",
}
_CLOUDS = ("AWS_", "AZURE_", "GOOGLE_")  # beginnings of variables


class Answer(NamedTuple):
    """The bytes of an object, and a mark that changes with them."""

    data: bytes
    etag: str | None


class Object(NamedTuple):
    """What a listing says of one object."""

    path: str
    bytes: int
    written: float  # seconds since 1970, by the clock of the server


class MissingObject(StoreError):
    """There is no object of that path."""


class Changed(StoreError):
    """The object is another than the writer has seen."""


class Denied(StoreError):
    """Whoever asks lacks the right, or has not said who they are."""


class Remote:
    """The root of one published store.

    Paths are relative, with ``/``. Reading raises MissingObject where there is nothing, StoreError
    where the server, the network or a lacking permission is in the way.
    """

    def __init__(self, url: str) -> None:
        address = Address.parse(url)
        self.shown = address.shown
        self._root = Folder(address.folder) if address.scheme == "file" else _Objects(address)

    def __repr__(self) -> str:
        return f"Remote({self.shown!r})"

    def get(self, path: str, known: str | None = None, most: int = files.MOST_METADATA) -> Answer:
        """The bytes of an object and its ETag; no bytes if `known` is its ETag still.

        Raises DamagedStore for an object of more than `most` bytes, before it is read; StoreError
        where nothing comes for half a minute, or next to nothing.
        """
        target = io.BytesIO()
        with self._said(path):
            etag = self._root.read(_checked(path), known, most, target)
        return Answer(b"" if known and etag == known else target.getvalue(), etag)

    def copy(self, path: str, target: BinaryIO, most: int) -> None:
        """Write the bytes of an object into a file, as they come; as `get` where it fails."""
        with self._said(path):
            self._root.read(_checked(path), None, most, target)

    def exists(self, path: str) -> bool:
        with self._said(path):
            return self._root.exists(_checked(path))

    def put(self, path: str, data: bytes) -> None:
        """Write an object, whole or not at all."""
        with self._said(path, "written"):
            self._root.put(_checked(path), data)

    def put_if(self, path: str, data: bytes, etag: str | None) -> str | None:
        """Write an object if its ETag is this one, or if there is none; returns the new ETag.

        Raises Changed where another writer was faster. Where a request was lost on its way back it
        may have been this one: look at what is there.
        """
        with self._said(path, "written"):
            return self._root.put_if(_checked(path), data, etag)

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects; those that are not there are passed over."""
        there = [_checked(path) for path in paths]
        with self._said("", "written"):
            self._root.delete(there)

    def list(self, prefix: str = "") -> Iterator[Object]:
        """All objects below a folder, in any order; not over HTTP."""
        with self._said(prefix, "listed"):
            yield from self._root.list(_checked(prefix) if prefix else "")

    @contextmanager
    def _said(self, path: str, done: str = "read") -> Iterator[None]:
        """Make one sentence of what may fail, with the URL and without a secret."""
        what = f"{self.shown}/{path}" if path else self.shown
        try:
            yield
        except MissingObject:
            raise MissingObject(f"there is no {what}") from None
        except Changed:
            raise Changed(
                f"{what} was changed by another writer: run the same command again"
            ) from None
        except Denied as error:
            raise Denied(f"{what} cannot be {done}: {error}") from None
        except _Unreadable as error:
            raise StoreError(f"{what} cannot be {done}: {error}") from None
        except OSError as error:
            raise StoreError(f"{what} cannot be used: {error.strerror or error}") from None


class _Unreadable(Exception):
    """Why a request failed."""


class _Cut(_Unreadable):
    """An answer that ended before its end."""


@contextmanager
def _failures(kind: type[_Unreadable] = _Unreadable) -> Iterator[None]:
    """Tell apart what obstore raises."""
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
            raise _Unreadable("there is no such bucket: check its name, or make it") from None
        raise MissingObject from None
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise Changed from None
    except exceptions.BaseError as error:
        refused = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
        if isinstance(error, refused) or re.search(r"status code: 40[13]\b", str(error)):  # a list
            raise Denied(
                "you may not: the credentials that the environment or the configuration has lack "
                "the right, or there are none"
            ) from None
        # the end of its first line, without what the server has sent, as of keys, and without URLs
        said = str(error).partition("\n")[0].partition("<")[0].rpartition(" - ")[2]
        raise kind(re.sub(r"\w+://\S+", "…", said).strip() or type(error).__name__) from None


class _Objects:
    """What obstore reads: an HTTP server, or a bucket."""

    def __init__(self, address: Address) -> None:
        self._address = address

    @cached_property
    def _store(self) -> ObjectStore:
        return self._connect(_SILENCE)

    @cached_property
    def _writer(self) -> ObjectStore:
        """The time in which a server is silent includes that of sending."""
        return self._connect(10 * _SILENCE)

    def _connect(self, silence: int) -> ObjectStore:
        headers = http_headers(self._address) if self._address.is_http else {}
        told = (item for item in os.environ.items() if item[0].startswith(_CLOUDS))
        return _connected(
            self._address,
            tuple(headers.items()),
            tuple(settings_of(self._address.scheme).items()),
            silence,
            frozenset(told),
        )

    def read(self, path: str, known: str | None, most: int, target: BinaryIO) -> str | None:
        """Write an object into `target`, unless its ETag is known; returns its ETag."""
        for attempt in range(1, _TRIES):
            with suppress(_Cut):
                return self._read(path, known, most, target)
            time.sleep(_PAUSE * attempt)
        return self._read(path, known, most, target)

    def _read(self, path: str, known: str | None, most: int, target: BinaryIO) -> str | None:
        from obstore.exceptions import NotModifiedError

        options: Any = {"if_none_match": known} if known else None
        with _failures():
            try:
                result = self._store.get(path, options=options)
            except NotModifiedError:
                if known is None:
                    raise _Unreadable("the server answers 304 to who knows nothing yet") from None
                return known
        if result.meta["size"] > most:
            raise DamagedStore(f"{self._address.shown}/{path} has more than {most:,} bytes")
        target.seek(0)
        target.truncate()
        since, come = time.monotonic(), 0
        with _failures(_Cut):
            for part in result.stream(min_chunk_size=1):  # what has come, however little
                come += target.write(part)
                if time.monotonic() - since > _SILENCE:
                    if come < _SILENCE * _LEAST_RATE:
                        raise _Unreadable("the server sends next to nothing: try again later")
                    since, come = time.monotonic(), 0
        return result.meta["e_tag"]

    def exists(self, path: str) -> bool:
        with suppress(MissingObject), _failures():
            self._store.head(path)
            return True
        return False

    @_failures()
    def put(self, path: str, data: bytes) -> None:
        self._writer.put(path, data, mode="overwrite")

    @_failures()
    def put_if(self, path: str, data: bytes, etag: str | None) -> str | None:
        mode: Any = "create" if etag is None else self._version(path, etag)
        return self._writer.put(path, data, mode=mode)["e_tag"]

    def _version(self, path: str, etag: str) -> dict[str, str | None]:
        """The version of an object that a write replaces; Google tells versions by other numbers.

        Raises Changed where the object has another ETag by now.
        """
        if self._address.scheme != "gs":
            return {"e_tag": etag}
        there = self._store.head(path)
        if there["e_tag"] != etag:
            raise Changed
        return {"e_tag": etag, "version": there["version"]}

    def delete(self, paths: Sequence[str]) -> None:
        together = [list(paths)] if self._address.scheme == "s3" and paths else paths
        for some in together:  # S3 takes many in one request
            with suppress(MissingObject), _failures():
                self._writer.delete(some)

    def list(self, prefix: str) -> Iterator[Object]:
        with _failures():
            for some in self._store.list(prefix or None, chunk_size=1000):
                for meta in some:
                    written = meta["last_modified"].timestamp()
                    yield Object(str(meta["path"]), meta["size"], written)


@lru_cache(8)  # making one takes 5 to 15 ms, and loses connections that are open
def _connected(
    address: Address,
    headers: tuple[tuple[str, str], ...],
    settings: tuple[tuple[str, Any], ...],
    silence: int,
    _environment: Collection[tuple[str, str]],  # which obstore reads
) -> ObjectStore:
    from obstore import store

    endpoint = str(dict(settings).get("endpoint", ""))
    plain = address.scheme == "http" or endpoint.startswith("http://")
    return getattr(store, _CLASSES[address.scheme]).from_url(  # type: ignore[no-any-return]
        address.url,
        client_options={
            "connect_timeout": "10s",
            "read_timeout": f"{silence}s",
            "timeout": "15m",
            "allow_http": plain,
            "default_headers": dict(headers),
        },
        retry_config={
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=silence),  # from the first request on
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=10),
                "base": 2,
            },
        },
        **dict(settings),
    )


def _checked(path: str) -> str:
    """`path`, if it is one below the root: others come from a damaged or hostile store."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\x00-\x1f\x7f\\]", path):
        raise UsageError(f"{path!r} is no path in a published store")
    return path


class Folder:
    """A folder that does what a bucket does; the ETag of a file is the SHA-256 of its content."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, known: str | None, most: int, target: BinaryIO) -> str:
        """Write a file into `target`; returns its ETag."""
        hasher, file = hashlib.sha256(), self._root / path
        try:
            with files.opened(file, most) as (descriptor, _):
                while part := os.read(descriptor, _COPIED):
                    hasher.update(part)
                    target.write(part)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingObject from None
        return hasher.hexdigest()

    def exists(self, path: str) -> bool:
        return (self._root / path).is_file()

    def put(self, path: str, data: bytes) -> None:
        file = self._root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_file(file, data, scratch=self._scratch())

    def put_if(self, path: str, data: bytes, etag: str | None) -> str:
        from filelock import FileLock, Timeout

        target, there = io.BytesIO(), None
        try:
            with FileLock(self._scratch() / f"{path.replace('/', '--')}.lock", timeout=_LOCK):
                with suppress(MissingObject):
                    there = self.read(path, None, files.MOST_METADATA, target)
                if there != etag:
                    raise Changed
                self.put(path, data)
        except Timeout:
            raise Changed from None
        return hashlib.sha256(data).hexdigest()

    def delete(self, paths: Sequence[str]) -> None:
        """Remove files, and folders in which nothing is left."""
        for path in paths:
            file = self._root / path
            file.unlink(missing_ok=True)
            with suppress(OSError):  # another file is there, or another process was faster
                for folder in file.relative_to(self._root).parents[:-1]:
                    (self._root / folder).rmdir()

    def list(self, prefix: str) -> Iterator[Object]:
        for folder, names, entries in os.walk(self._root / prefix):
            names[:] = sorted(name for name in names if name != files.WIP)
            for name in sorted(entries):
                file = Path(folder) / name
                with suppress(FileNotFoundError):  # removed meanwhile
                    status = file.lstat()
                    path = file.relative_to(self._root).as_posix()
                    yield Object(path, status.st_size, status.st_mtime)

    def _scratch(self) -> Path:
        scratch = self._root / files.WIP
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

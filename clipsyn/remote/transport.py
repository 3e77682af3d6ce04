"""The bytes of a published store, over HTTP, in a bucket or in a folder; alone imports obstore.

Nothing that is said or raised here has a credential in it: what obstore says of a failed request
has the whole URL, so it is not passed on.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

from clipsyn.errors import DamagedStore, StoreError, UsageError
from clipsyn.names import Address
from clipsyn.remote.credentials import http_headers, settings_of
from clipsyn.remote.folder import Answer, Changed, Denied, Folder, MissingObject, Object
from clipsyn.store.files import MOST_METADATA

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_TRIES = 3  # of a read, each with obstore's own retries
_RETRIES = 6  # of obstore, in one try, of requests that the server refuses for now
_PAUSE = 0.2  # seconds before the second try
_SILENCE = 30  # seconds without a byte, after which nobody waits for an answer
_LEAST_RATE = 1_000  # bytes a second, of an answer that has begun
_CLASSES = {"http": "HTTPStore", "https": "HTTPStore"} | {
    "s3": "S3Store",
    "gs": "GCSStore",
    "az": "AzureStore",
}
_CLOUDS = ("AWS_", "AZURE_", "GOOGLE_")  # beginnings of variables
_REASONS = (  # obstore has one class for all of these -> what went wrong
    (r"dns error|failed to lookup", "its host is not known: check the URL"),
    (r"connection refused", "nothing answers there: check the URL"),
    (r"certificate", "its certificate is not trusted"),
    (r"Account must be specified", "set AZURE_STORAGE_ACCOUNT_NAME"),
    (r"without LOCATION", "the bucket is in another region: set AWS_REGION"),
    (r"Content-Length", "the server does not say how many bytes it sends"),
    (r"timed ?out", "the server does not answer in time: try again later"),
)
_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,40})</Code>")  # the word of S3, Google and Azure for a refusal


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

    def get(self, path: str, known: str | None = None, most: int = MOST_METADATA) -> Answer:
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
        except _Unreadable as error:
            failed = Denied if isinstance(error, _Refused) else StoreError
            raise failed(f"{what} cannot be {done}: {error}") from None
        except OSError as error:
            raise StoreError(f"{what} cannot be used: {error.strerror or error}") from None


class _Unreadable(Exception):
    """Why a request failed."""


class _Refused(_Unreadable):
    """Whoever asks lacks the right."""


class _Cut(_Unreadable):
    """An answer that ended before its end."""


@contextmanager
def _failures() -> Iterator[None]:
    """Tell apart what obstore raises, without what it says, but for codes of clouds."""
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
            raise _Unreadable("there is no such bucket: check its name, or make it") from None
        raise MissingObject from None
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise Changed from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise _refused(str(error)) from None
    except exceptions.BaseError as error:
        raise _reason(str(error)) from None


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

    @_failures()
    def _read(self, path: str, known: str | None, most: int, target: BinaryIO) -> str | None:
        from obstore.exceptions import NotModifiedError

        options: Any = {"if_none_match": known} if known else None
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


def _reason(said: str) -> _Unreadable:
    if status := _STATUS.search(said):
        answer = f"the server answers {status[1]} {_code(said)}".rstrip()
        return _refused(said) if status[1] in ("401", "403") else _Unreadable(answer)
    for pattern, reason in _REASONS:
        if re.search(pattern, said, re.IGNORECASE):
            return _Unreadable(reason)
    return _Cut("the connection was cut: try again")


def _refused(said: str) -> _Refused:
    code = _code(said)
    return _Refused(
        f"you may not{f' (the server says {code})' if code else ''}: the credentials that the "
        "environment or the configuration has lack the right, or there are none"
    )


def _code(said: str) -> str:
    found = _CODE.search(said)
    return found[1] if found else ""


def _checked(path: str) -> str:
    """`path`, if it is one below the root: others come from a damaged or hostile store."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\x00-\x1f\x7f\\]", path):
        raise UsageError(f"{path!r} is no path in a published store")
    return path

"""URLs of published stores: told from paths, taken apart, shown without secrets."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from clipsyn.errors import UsageError

SCHEMES = ("file", "http", "https", "s3", "gs", "az")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # of one letter it is a drive of Windows


def is_url(text: str | os.PathLike[str]) -> bool:
    return _SCHEME.match(os.fspath(text)) is not None


@dataclass(frozen=True)
class Address:
    """A URL in parts. `shown` has neither user nor query, where passwords and tokens stand."""

    scheme: str
    url: str  # without the user
    shown: str
    user: str | None  # "name:password" of an http URL

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises UsageError for a scheme that is not known, or a URL without a place."""
        try:
            parts = urlsplit(text)
            host, _ = parts.netloc.rpartition("@")[2], parts.port
        except ValueError as error:
            raise UsageError(f"this is no URL: {error}") from None
        shown = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        if parts.scheme not in SCHEMES:
            raise UsageError(
                f"{shown}: a store is read from {', '.join(SCHEMES)}, not from '{parts.scheme}'"
            )
        if parts.scheme == "file" and host not in ("", "localhost"):
            raise UsageError(f"{shown}: a file URL has three slashes, as in file:///data/store")
        if not (host or parts.scheme == "file"):
            raise UsageError(f"{shown}: the URL names no host or bucket")
        url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), parts.query, ""))
        user = unquote(parts.netloc.rpartition("@")[0]) or None
        return cls(parts.scheme, url, shown, user)

    @property
    def is_http(self) -> bool:
        """Whether it is of a web server: one file after another is read, none listed or written."""
        return self.scheme in ("http", "https")

    @property
    def folder(self) -> Path:
        """Where a file URL points to."""
        return Path(unquote(urlsplit(self.url).path) or "/")


class Location(PosixPath):
    """The place of something in a store at a URL: a path for names, which is shown as a URL.

    There is nothing in the file system under it.
    """

    @classmethod
    def of(cls, url: str) -> Location:
        address = Address.parse(url)
        location = cls(f"{address.scheme}:", *address.shown.partition("://")[2].split("/"))
        vars(location)["whole"] = url
        return location

    @property
    def url(self) -> str:
        """The URL that `of` was given, with its secrets; of other paths what is shown."""
        return str(vars(self).get("whole", self))

    def __str__(self) -> str:
        scheme, colon, rest = super().__str__().partition(":/")
        return f"{scheme}://{'/' * (scheme == 'file')}{rest}" if colon else scheme

    @property
    def is_folder(self) -> bool:
        """Whether it is of a file URL."""
        return self.parts[0] == "file:"

    def __reduce__(self) -> tuple[Any, ...]:
        return Location.of, (self.url,)

    def __fspath__(self) -> str:
        return str(self)

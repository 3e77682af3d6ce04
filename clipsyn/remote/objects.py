"""What is read and written at a URL."""

from __future__ import annotations

from dataclasses import dataclass

from clipsyn.errors import StoreError


@dataclass(frozen=True)
class Answer:
    """The bytes of an object, and a mark that changes with them."""

    data: bytes
    etag: str | None


@dataclass(frozen=True)
class Object:
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

"""`clipsyn.json`, the file that makes a folder a feature store."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from clipsyn.errors import StoreError, UnsupportedFormat
from clipsyn.names import MARKER, Address, Location, is_url
from clipsyn.settings import check_outside
from clipsyn.store import files
from clipsyn.store.drafts import WIP, make_groups, scratch
from clipsyn.store.schema import FORMAT_VERSION, MOST_CHUNK_ROWS, check_format
from clipsyn.text import advised

_INDEX = "index.json.gz"  # of a published store: see `clipsyn.remote`


def is_vacant(path: Path) -> bool:
    """Whether a store can be made there: the folder is missing, or holds unfinished files alone.

    Raises StoreError for a URL, UsageError for a path within another store.
    """
    if isinstance(path, Location):
        raise written_at(path)
    check_outside(path)
    if not files.exists(path):
        return True
    return path.is_dir() and all(entry.name == WIP for entry in files.entries(path))


def is_store(path: Path) -> bool:
    return files.exists(path / MARKER)


def place_of(path: Path | str) -> Path:
    """Where a store is: a Location if it is a published one, at a URL or in a folder."""
    location = None
    if isinstance(path, Location) or is_url(path):
        location = path if isinstance(path, Location) else Location.of(str(path))
        if not location.is_folder:
            return location
    folder = Address.parse(location.url).folder if location else Path(path)
    if files.exists(folder / _INDEX):
        return location or Location.of(folder.resolve().as_uri())
    return folder


def is_published(path: Path | str) -> bool:
    """Whether the store there is read as a published one: it need not be there."""
    return isinstance(place_of(path), Location)


def written_at(location: Location) -> StoreError:
    """The error for writing to a published store."""
    return StoreError(
        f"{location} is only read: `{advised('pull', location, 'STORE')}` makes a store of your "
        f"own, and `{advised('push', 'STORE', location)}` publishes what you add to it"
    )


def read_marker(path: Path) -> dict[str, Any]:
    """The content of the marker: format version, id of the store, rows of a chunk.

    Raises StoreError if there is none, UnsupportedFormat if it cannot be read or is newer.
    """
    file = path / MARKER
    try:
        marker: dict[str, Any] = json.loads(files.read_file(file))
        version, rows = str(marker["format"]), marker["chunk_rows"]
        if type(rows) is not int or not 1 <= rows <= MOST_CHUNK_ROWS:
            raise ValueError(f"a chunk has no {str(rows)[:40]} rows")
    except (FileNotFoundError, NotADirectoryError):
        if is_store(path):  # made by another process between the two looks
            return read_marker(path)
        if not is_vacant(path):
            what = "holds something else than a feature store: give another path"
        else:
            what = f"is no feature store: make one with `{advised('extract', path, '…')}`"
        raise StoreError(f"{path} {what}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnsupportedFormat(f"{file} cannot be read: {error}") from error
    check_format(str(path), version)
    return marker


def write_marker(path: Path, chunk_rows: int) -> None:
    """Make an empty store."""
    marker = {
        "format": FORMAT_VERSION,
        "store_id": secrets.token_hex(16),
        "chunk_rows": chunk_rows,
    }
    with files.writing(path):
        path.mkdir(parents=True, exist_ok=True)
        content = json.dumps(marker, indent=2).encode()
        files.write_file(path / MARKER, content, scratch=scratch(path))
        make_groups(path, path)

"""Files and folders of a store; refusals of the operating system become one sentence.

A lacking permission is never taken for an empty folder or a missing file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipsyn.errors import DamagedStore, StoreError
from clipsyn.names import MARKER, Address, Location, is_url
from clipsyn.settings import check_outside
from clipsyn.text import advised

PARTIAL = ".partial"
WIP = ".wip"  # the folder of what is being written
_INDEX = "index.json.gz"  # of a published store: see `clipsyn.remote`
METADATA = "zarr.json"  # of a group or an array
_MODE = 0o666  # of a new file, less what the umask forbids: as everywhere
_COPIED = 1 << 20  # bytes at a time
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no pipe is waited for
_NOT_REGULAR = (errno.ELOOP, errno.ENXIO)  # of links and sockets that are opened so
MOST_METADATA = 64 << 20  # bytes; those of 20,000 classes and 100,000 chunks have a few millions
_LOCK_LOOKS, _LOCK_PAUSE = 3_000, 0.02  # seconds


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise StoreError where `path` cannot be read; that it is missing passes as OSError."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except PermissionError as error:
        raise StoreError(
            f"you may not read {error.filename or path}: ask its owner for the permission "
            "(`chmod -R a+rX` gives it)"
        ) from error
    except OSError as error:
        raise StoreError(f"{error.filename or path} cannot be read: {error.strerror}") from error


@contextmanager
def opened(file: Path, most: int | None = None) -> Iterator[tuple[int, int]]:
    """A descriptor and the size of a file of a store, which may come from a stranger.

    Raises DamagedStore for more than `most` bytes, and for what is no regular file: a link could
    lead to any file of this machine, a pipe or a device never ends. That there is none passes as
    OSError.
    """
    with reading(file):
        descriptor = _open(file)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _no_file(file)
        if most is not None and status.st_size > most:
            raise DamagedStore(
                f"{file} has {status.st_size:,} bytes, more than any file of its kind"
            )
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def _open(file: Path) -> int:
    try:
        return os.open(file, _READ)
    except OSError as error:
        if error.errno in _NOT_REGULAR:
            raise _no_file(file) from None
        raise


def _no_file(file: Path) -> DamagedStore:
    return DamagedStore(
        f"{file} is a link, a device, or a folder for a file, as no store has it: remove it, or "
        "put back what was there"
    )


def check_folder(path: Path) -> None:
    """Raise DamagedStore for a link in the place of a folder of a store."""
    if path.is_symlink():
        raise _no_file(path)


def check_folders(store: Path, path: Path) -> None:
    """Raise DamagedStore for links in the place of folders from a store down to `path`."""
    while path != store:
        check_folder(path)
        path = path.parent


def read_file(file: Path, most: int = MOST_METADATA) -> bytes:
    """The content of a file of a store (see `opened`); raises DamagedStore for more than `most`."""
    with (
        reading(file),
        opened(file, most) as (descriptor, size),
        open(descriptor, "rb", closefd=False) as stream,
    ):
        return stream.read(size)


def file_at(path: Path) -> tuple[int, int] | None:
    """A value that changes when the file at `path` is replaced; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        with reading(path):
            raise
    return status.st_ino, status.st_ctime_ns  # inode numbers alone are used again


def exists(path: Path) -> bool:
    return file_at(path) is not None


def entries(path: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name; none where there is no folder."""
    try:
        with reading(path), os.scandir(path) as scan:
            return sorted(scan, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def folders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted, and of links, which whoever opens them refuses.

    Hidden ones are left out: no name in a store makes a hidden folder.
    """
    check_folder(path)
    with reading(path):
        return [
            entry.name
            for entry in entries(path)
            if not entry.name.startswith(".") and (entry.is_dir() or entry.is_symlink())
        ]


def size(path: Path) -> int:
    """Bytes of all files under a folder; files that vanish meanwhile are not counted."""
    with reading(path):
        return _size(os.fspath(path))


def _size(folder: str) -> int:
    """Of texts, not paths: a list of thousands of cells asks for it."""
    total = 0
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as scan:
        for entry in scan:
            with suppress(FileNotFoundError):
                total += _size(entry.path) if entry.is_dir() else entry.stat().st_size
    return total


def write_file(path: Path, *buffers: bytes | memoryview, scratch: Path | None = None) -> None:
    """Write a file so that, after a crash, it is complete or missing.

    Until it is complete it lies in `scratch`, a folder of the same file system, or beside `path`.
    """
    partial = (scratch or path.parent) / f"{path.name}.{secrets.token_hex(4)}{PARTIAL}"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    try:
        for buffer in buffers:
            _write_all(descriptor, memoryview(buffer))
        os.fsync(descriptor)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    partial.replace(path)
    sync(path.parent)


def copy_file(file: Path, path: Path, most: int) -> None:
    """Copy a file of others, not yet synced; raises DamagedStore for more than `most` bytes."""
    with (
        opened(file, most) as (source, _),
        open(source, "rb", closefd=False) as of,
        path.open("xb") as to,
    ):
        shutil.copyfileobj(of, to, _COPIED)


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait until no other process holds the folder, or only such as share it; then hold it.

    Nobody waits for more than a minute, nor where there is no folder or no lock.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        _lock(descriptor, shared)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, shared: bool) -> None:
    how = fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    for _ in range(_LOCK_LOOKS):
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE)
        except OSError:  # there are none
            return
        else:
            return


def sync(path: Path) -> None:
    """Make a file, or what was created in or renamed into a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, buffer: memoryview) -> None:
    while buffer.nbytes:
        buffer = buffer[os.write(descriptor, buffer) :]


def rename_unless_taken(folder: Path, target: Path) -> bool:
    """Rename a folder; False where another one, which is not empty, is at `target` already."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


_DENIED = (
    "you may not write there: ask its owner for the permission (`chmod -R g+rwX` gives it to the "
    "group), or choose another folder"
)
_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: "the file system is read-only: copy the store or choose another folder",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
}


@contextmanager
def writing(store: Path) -> Iterator[None]:
    """Raise StoreError, in one sentence, where the operating system refuses to write."""
    try:
        yield
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        raise StoreError(
            f"cannot write to {store}: {_ADVICE[error.errno]}, then run the same command again; "
            "finished blocks are kept"
        ) from error


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
        if not location.is_folder:
            return location
    folder = Address.parse(location.url).folder if location else Path(path)
    if exists(folder / _INDEX):
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

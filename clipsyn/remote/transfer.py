"""Many files on their way: several at a time, compared with their manifest, counted."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from clipsyn.errors import DamagedStore
from clipsyn.remote.index import Stamp, stamp_of
from clipsyn.remote.transport import Remote
from clipsyn.show.progress import Progress
from clipsyn.store import files

FILES, GROUPS = 16, 8  # at a time
_MEGA = 1_000_000


@contextmanager
def lanes() -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    """Threads for groups, and those that all groups share for their files.

    They take up no more work once one of them, or who waits for them, has failed.
    """
    with ThreadPoolExecutor(FILES) as files, ThreadPoolExecutor(GROUPS) as groups:
        try:
            yield groups, files
        except BaseException:
            for threads in (groups, files):  # in this order, for groups wait for their files
                threads.shutdown(wait=False, cancel_futures=True)
            raise


def bring(remote: Remote, path: str, stamp: Stamp, file: Path, scratch: Path) -> None:
    """Bring an object into `file`, if it has the size and SHA-256 of `stamp`.

    It goes to the disk as it comes, so that no declared size takes memory. Raises DamagedStore.
    """
    emptied = None
    for _ in range(2):  # what was altered on its way may arrive the second time
        partial = scratch / f"{secrets.token_hex(8)}{files.PARTIAL}"
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as target:
                remote.copy(path, target, stamp[0])
            if is_there(partial, stamp):
                file.parent.mkdir(parents=True, exist_ok=True)
                partial.replace(file)
                return
        except (FileNotFoundError, FileExistsError) as error:  # the cache was emptied meanwhile
            emptied = error
        finally:
            partial.unlink(missing_ok=True)
    if emptied:
        raise emptied
    raise DamagedStore(f"{remote.shown}/{path} has other bytes than its manifest lists")


def is_there(file: Path, stamp: Stamp) -> bool:
    """Whether a file is the one of a manifest."""
    try:
        return file.stat().st_size == stamp[0] and stamp_of(file) == stamp
    except (FileNotFoundError, NotADirectoryError):
        return False


class Meter:
    """Counts the bytes of several threads as whole megabytes of one counter."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress = progress
        self._most, self._total = total, -(-total // _MEGA)
        self._counter = progress.add(name, self._total, unit="MB")
        self._done = 0
        self._lock = Lock()

    def advance(self, size: int) -> None:
        with self._lock:
            before = self._done // _MEGA
            self._done = min(self._done + size, self._most)  # some are looked at twice
            self._progress.advance(self._counter, self._done // _MEGA - before)

    def finish(self) -> None:
        """All has arrived; the last megabyte may have been a part of one."""
        self._progress.advance(self._counter, self._total - self._done // _MEGA)
        self._progress.finish(self._counter)

"""Many files on their way, several at a time, counted in megabytes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

from clipsyn.progress import Progress

FILES, GROUPS = 16, 8  # at a time
_MEGA = 1_000_000


@contextmanager
def lanes() -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    """Threads for groups, and those that all groups share for their files.

    They take up no more work once one of them, or who waits for them, has failed.
    """
    groups, files = ThreadPoolExecutor(GROUPS), ThreadPoolExecutor(FILES)
    try:
        yield groups, files
    except BaseException:
        files.shutdown(wait=False, cancel_futures=True)  # first: groups wait for their files
        groups.shutdown(cancel_futures=True)
        raise
    finally:
        groups.shutdown()
        files.shutdown()


class Meter:
    """Counts the bytes of several threads as whole megabytes of one counter."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress = progress
        self._most, self._total = total, -(-total // _MEGA)
        self._counter = progress.add(name, self._total, unit="MB")
        self._done = self._said = 0
        self._lock = Lock()

    def advance(self, size: int) -> None:
        with self._lock:
            self._done = min(self._done + size, self._most)  # some are looked at twice
            whole = self._done // _MEGA - self._said
            self._said += whole
            self._progress.advance(self._counter, whole)

    def finish(self) -> None:
        """All has arrived; the last megabyte may have been a part of one."""
        self._progress.advance(self._counter, self._total - self._said)
        self._progress.finish(self._counter)

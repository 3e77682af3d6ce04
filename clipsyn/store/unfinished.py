"""What lies under `.wip`: drafts of running and of dead jobs.

A running job writes into its drafts again and again. So what nobody has written to for a day is
taken for dead: that needs no lock, and it holds for jobs on other machines, whatever the file
system.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipsyn.errors import DamagedStore, StoreError
from clipsyn.store import arrays, files
from clipsyn.store.drafts import discard, is_draft, lying


@dataclass(frozen=True)
class Unfinished:
    """A draft as it is found on disk: where it will be, and how far it is."""

    folder: Path
    target: str
    done: int
    total: int


def unfinished(store: Path) -> list[Unfinished]:
    """Every draft in the store, sorted by target; not one that is finished while we look."""
    drafts = filter(None, map(look_at, lying(store)))
    return sorted(drafts, key=lambda draft: draft.target)


def look_at(folder: Path) -> Unfinished | None:
    """The draft in `folder`, if one is there before and after its files are read."""
    if not is_draft(folder):
        return None
    try:
        blocks = arrays.group_blocks(folder / "group")
        done = len(list((folder / "done").glob("[0-9]*")))
        draft = Unfinished(folder, files.read_file(folder / "target").decode(), done, blocks)
    except (FileNotFoundError, DamagedStore):
        if is_draft(folder):
            raise
        return None
    return draft if is_draft(folder) else None


def leftovers(store: Path) -> list[Path]:
    """What lies under `.wip` beside drafts; a running command may need it."""
    return [path for path in lying(store) if not is_draft(path)]


@dataclass(frozen=True)
class Leftover:
    """A draft, or a file or folder beside drafts, and when somebody has last written to it."""

    path: Path
    what: str
    written: float  # seconds since 1970
    bytes: int

    @property
    def age(self) -> float:
        """Seconds."""
        return time.time() - self.written


def left_over(store: Path) -> list[Leftover]:
    """All that lies under `.wip`, drafts first; what vanishes while we look is left out."""
    found = []
    for path in sorted(lying(store), key=lambda path: (not is_draft(path), path)):
        with suppress(FileNotFoundError):
            found.append(Leftover(path, _what(store, path), _written(path), _size(path)))
    return found


def _what(store: Path, path: Path) -> str:
    try:
        if draft := look_at(path):
            return f"{draft.target}, {draft.done} of {draft.total} blocks done"
    except StoreError:
        return f"{path.relative_to(store)}, a draft that is damaged"
    return f"{path.relative_to(store)}, of a command that was writing or removing a group"


def _written(path: Path) -> float:
    """When something below the path was last made, written to, renamed or removed.

    That is the time of the change of its status: a copy of an old file is new.
    """
    return max(path.lstat().st_ctime for path in (path, *_below(path)))


def _size(path: Path) -> int:
    return files.size(path) if path.is_dir() else path.lstat().st_size


def _below(path: Path) -> Iterator[Path]:
    for entry in files.entries(path) if path.is_dir() else ():
        yield Path(entry)
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry))


def collect(store: Path, found: Collection[Leftover]) -> int:
    """Remove them; returns how many. What somebody has written to since they were found stays."""
    count = 0
    with files.writing(store):
        for one in found:
            with suppress(FileNotFoundError):  # finished or removed by another command
                if _written(one.path) > one.written:
                    continue
                # a draft goes as a whole, lest a marker outlive its block
                discard(store, one.path) if one.path.is_dir() else one.path.unlink()
                count += 1
    return count

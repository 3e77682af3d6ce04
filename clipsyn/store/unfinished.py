"""Drafts as they are found on disk, and what else lies beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipsyn.errors import DamagedStore
from clipsyn.store import arrays, files
from clipsyn.store.drafts import is_draft, lying


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

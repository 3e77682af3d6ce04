"""How the work of all jobs on a store goes on, seen from its files alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clipsyn.store.features import FeatureStore
from clipsyn.store.marker import is_store
from clipsyn.store.unfinished import unfinished


@dataclass(frozen=True)
class Seen:
    """What one look has seen. done, blocks: of the groups that are or were being written."""

    cells: int  # finished
    groups: int  # being written, or left by a job that has ended
    done: int
    blocks: int
    rate: float  # blocks a second, since the first look

    @property
    def left(self) -> float | None:
        """Seconds until all blocks are done; None where the rate does not tell."""
        return (self.blocks - self.done) / self.rate if self.rate else None


@dataclass
class Watch:
    """Looks at a store again and again.

    A group that is published, or dropped, between two looks counts as done: `blocks` never shrinks.
    """

    store: Path
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)  # target -> done, total
    _first: tuple[float, int] | None = None  # when, and how many blocks were done then

    def look(self, now: float) -> Seen:
        """now: seconds on any clock."""
        drafts = {draft.target: (draft.done, draft.total) for draft in unfinished(self.store)}
        gone = {target: (total, total) for target, (_, total) in self._seen.items()}
        self._seen = gone | drafts
        done = sum(done for done, _ in self._seen.values())
        self._first = self._first or (now, done)
        start, before = self._first
        rate = max(0, done - before) / (now - start) if now > start else 0.0
        blocks = sum(total for _, total in self._seen.values())
        return Seen(self._cells(), len(drafts), done, blocks, rate)

    def _cells(self) -> int:
        return len(FeatureStore.open(self.store).keys()) if is_store(self.store) else 0

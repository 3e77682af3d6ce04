"""What is left to do, cut into blocks, and which of them this worker does.

Workers share no queue. Each claims a block before it begins (`clipsyn.store.claims`), passes over
those of others, and does what a lost worker has left.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from threading import Event, Thread

from clipsyn.extract import together
from clipsyn.extract.work import Cell, Split, Work

_RENEW = 15.0  # seconds between two signs of life


@dataclass(frozen=True, eq=False)
class Block:
    """One block of one split, for cells that lack it, of a few perturbations."""

    split: Split
    number: int
    cells: tuple[Cell, ...]

    @property
    def rows(self) -> range:
        return self.cells[0].draft.blocks.range(self.number)


def blocks(work: Work, shard: tuple[int, int] = (0, 1)) -> Iterator[Block]:
    """What is left to do, in a fixed order; one of so many workers (i, n) begins at its n-th."""
    first = sum(1 for _ in _every_block(work)) * shard[0] // shard[1]
    every = itertools.islice(_every_block(work), first, None)
    return lacking(itertools.chain(every, itertools.islice(_every_block(work), first)))


def lacking(every: Iterable[Block]) -> Iterator[Block]:
    """The blocks that cells lack when the first of these cells comes, each with such cells alone.

    Each draft is looked at once, not once a block.
    """
    for cells, some in itertools.groupby(every, key=attrgetter("cells")):
        pending = {cell: {*cell.draft.pending()} for cell in cells}
        for block in some:
            if left := tuple(cell for cell in cells if block.number in pending[cell]):
                yield replace(block, cells=left)


def _every_block(work: Work) -> Iterator[Block]:
    for split in work.splits:
        for some in together(cell.perturbation for cell in split.cells):
            cells = tuple(cell for cell in split.cells if cell.perturbation in some)
            for number in range(cells[0].draft.blocks.count):
                yield Block(split, number, cells)


class Claims:
    """The blocks that this worker has claimed and not finished; at the end others may do them."""

    def __init__(self) -> None:
        self._claimed: set[tuple[Cell, int]] = set()
        self._ended = Event()
        self._renewing = Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Claims:
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._renewing.join()
        for cell, number in self._claimed:
            cell.draft.release(number)

    def take(self, every: Iterable[Block], others: list[Block]) -> Iterator[Block]:
        """The blocks with the cells that are ours; those of other workers are added to `others`."""
        for block in every:
            ours = tuple(cell for cell in block.cells if cell.draft.claim(block.number))
            self._claimed.update((cell, block.number) for cell in ours)
            if ours:
                yield replace(block, cells=ours)
            if theirs := tuple(cell for cell in block.cells if cell not in ours):
                others.append(replace(block, cells=theirs))

    def _renew(self) -> None:
        """Show the other workers that this one is alive, however long a block takes."""
        while not self._ended.wait(_RENEW):
            for cell, number in [*self._claimed]:
                with suppress(OSError):  # it is gone where another worker has published the cell
                    cell.draft.renew(number)

    def finish(self, cell: Cell, number: int) -> None:
        self._claimed.discard((cell, number))

"""The rows of a cell that is being written: whole blocks on disk, the rest in memory."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import InputError, UsageError
from clipsyn.names import Identity
from clipsyn.store.arrays import hash_header, hash_rows
from clipsyn.store.drafts import Draft
from clipsyn.store.schema import HELD


class Rows:
    """Rows that are appended to a draft.

    A digest of all rows is a part of the cell's identity, so the draft gets its own at the end.
    """

    def __init__(self, draft: Draft) -> None:
        token = secrets.token_hex(10)
        self.draft = replace(draft, identity={**draft.identity, "writing": token}, id=token)
        self.count = self.invalid = 0
        self._largest, *small = sorted(spec.name for spec in draft.specs)
        self._waiting: list[Mapping[str, NDArray[Any]]] = []  # what the next block begins with
        self._kept: dict[str, list[NDArray[Any]]] = {name: [] for name in small}
        self._hasher = hashlib.sha256()  # of the largest array: the others have a few bytes a row

    @property
    def width(self) -> int | None:
        """Of the embeddings, if it holds some."""
        return self.draft.sizes.get("embed")

    def append(self, draft: Draft, values: Mapping[str, NDArray[Any]], name: str) -> None:
        """Take the next rows of every array; `draft` is of the cell that they are rows of."""
        self._check_alike(draft, name)
        count, total = len(values["valid"]), self.draft.sizes["sample"]
        if self.count + count > total:
            raise InputError(
                f"{name}: {self.count + count:,} rows, where there are {total:,} samples"
            )
        self.invalid += count - int(np.count_nonzero(values["valid"]))
        start = 0
        while start < count:
            block, end = self._next_block()
            taken = min(count - start, end - self.count)
            part = slice(start, start + taken)
            self._waiting.append({array: rows[part] for array, rows in values.items()})
            start, self.count = part.stop, self.count + taken
            if self.count == end:
                self._write(block)

    def _check_alike(self, draft: Draft, name: str) -> None:
        if draft.specs != self.draft.specs:
            given, before = _held(draft), _held(self.draft)
            raise UsageError(f"{name}: {given} after {before}: a cell holds one kind of rows")
        if draft.sizes != self.draft.sizes:
            raise InputError(
                f"{name}: embeddings of width {draft.sizes['embed']} after those of width "
                f"{self.width}: one backbone has one width"
            )

    def _next_block(self) -> tuple[int, int]:
        """The number of the block that is being filled, and the row after its last."""
        blocks = self.draft.blocks
        block = self.count // blocks.rows
        return block, blocks.range(block).stop

    def _write(self, block: int) -> None:
        parts, self._waiting = self._waiting, []
        values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        largest = values[self._largest]
        if block == 0:
            shape = (self.draft.sizes["sample"], *largest.shape[1:])
            hash_header(self._hasher, self._largest, largest.dtype, shape)
        hash_rows(self._hasher, largest)
        for name, kept in self._kept.items():
            kept.append(values[name])
        self.draft.write(block, values, {})

    def content_digest(self) -> str:
        """`clipsyn.store.arrays.content_digest` of all rows; once, when all are there."""
        for name, kept in self._kept.items():
            whole = np.concatenate(kept)
            hash_header(self._hasher, name, whole.dtype, whole.shape)
            hash_rows(self._hasher, whole)
        return self._hasher.hexdigest()

    def identify(self, identity: Identity) -> None:
        """Give the draft the identity that it will be published with."""
        self.draft = replace(self.draft, identity=identity)


def _held(draft: Draft) -> str:
    """What a cell holds, as messages say it."""
    if draft.kind != "predictions":
        return HELD[draft.kind]
    return f"predictions {'with' if draft.identity['confidences'] else 'without'} confidences"

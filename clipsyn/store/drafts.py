"""Groups being written: planned, filled block by block under `.wip`, checked, renamed into place.

    .wip/<id>/group/            the Zarr group to be
    .wip/<id>/done/<block>      one file a finished block, its content a JSON note
    .wip/<id>/claims/<block>    host and process of who is making a block, touched meanwhile
    .wip/<id>/target            where the group will be, and its number of blocks, in JSON
    .wip/<id>/kept/<name>       what a block will be made of, where that takes long
    .wip/<id>/*.partial         files being written, renamed into the group when they are whole
    .wip/new-*                  drafts being made, and copies of groups of other stores
    .wip/trash-*                replaced or removed groups, on their way out
    .wip/*.partial              other files being written

<id> follows from fingerprint and place, so that a resumed run or another worker finds the draft;
what one process writes at once is its `own`. Writers need no lock: equal identities give equal
bytes, files appear by rename, and of two renames of a group the system refuses the second.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, StaleCell, StoreError
from clipsyn.methods.numerics.blocks import products_of_one_thread, read_ahead
from clipsyn.methods.numerics.logits import predictions, zero_shot_logits
from clipsyn.names import Identity, differences, fingerprint
from clipsyn.store import arrays, claims, files
from clipsyn.store.arrays import Blocks, Layout, read_chunk
from clipsyn.store.files import LOOK, WIP, ArraySpec, arrays_of, place
from clipsyn.store.given import Rows
from clipsyn.store.groups import Group, sealed
from clipsyn.text import parse_json

_NEW, _TRASH = "new-", "trash-"
_WRITERS = 4  # threads: files are synced side by side
_PUBLISH_LOOKS = 20  # of 50 ms
_EMPTY_GROUP = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}).encode()

Note = dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """One group of the store that is, or will be, at `target`, made from `identity`."""

    store: Path
    target: Path
    kind: str  # of files.GROUPS
    identity: Identity
    sizes: Mapping[str, int]
    chunk_rows: int
    most_rows: int = 0  # of a chunk where one process writes all of them
    own: str = ""  # of one process, before all is known; it survives a power cut after `sync_all`
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self.identity))

    @cached_property
    def blocks(self) -> Blocks:
        specs = arrays_of(self.kind, self.identity)
        return Blocks.of(specs, self.sizes, self.chunk_rows, self.most_rows)

    @cached_property
    def arrays(self) -> dict[str, tuple[ArraySpec, Layout]]:
        """What its arrays will be, by name."""
        specs = arrays_of(self.kind, self.identity)
        return {spec.name: (spec, Layout.of(spec, self.sizes, self.blocks.rows)) for spec in specs}

    @property
    def _group(self) -> Path:
        return self._folder / "group"

    @property
    def _folder(self) -> Path:
        of = {"of": self.own or self.fingerprint, "at": str(self.target.relative_to(self.store))}
        if self.blocks.rows != self.blocks.unit:  # an older clipsyn's has other blocks
            of["rows"] = str(self.blocks.rows)
        return self.store / WIP / fingerprint(of)[:20]

    @property
    def _kept(self) -> Path:
        return self._folder / "kept"

    def changes(self) -> list[tuple[str, Any, Any]]:
        """(field, stored, asked for) where the group at `target` differs; [] if there is none."""
        if not files.exists(self.target):
            return []
        try:
            there = Group(self.store, self.target, arrays.read_attributes(self.target), None)
            return list(differences(there["identity"], self.identity))
        except DamagedStore as error:
            error.add_note("Add replace=True to make it again.")
            raise

    def is_published(self, there: Path | None = None) -> bool:
        with suppress(DamagedStore):  # missing, too
            found = arrays.read_attributes(there or self.target).get("fingerprint")
            return bool(found == self.fingerprint)
        return False

    def _is_published_soon(self) -> bool:
        """Whether another worker publishes it soon: replacing empties the target first."""
        for _ in range(_PUBLISH_LOOKS):
            if self.is_published():
                return True
            time.sleep(0.05)
        return False

    def pending(self) -> list[int]:
        """Blocks that no worker has finished, in order."""
        if self.is_published():
            return []
        if not is_draft(self._folder):
            return list(range(self.blocks.count))
        done = {path.name for path in (self._folder / "done").glob("*")}
        return [block for block in range(self.blocks.count) if str(block) not in done]

    def is_done(self, block: int) -> bool:
        marker = self._folder / "done" / str(block)
        return (marker.exists() and is_draft(self._folder)) or self.is_published()

    def claim(self, block: int) -> bool:
        """Claim a block for this process; False if it is done or another's."""
        ours = False
        if not self.is_done(block):
            with self._unless_published():
                self._open()
                ours = claims.take(self._claim(block))
        if ours and self.is_published():  # by another worker, just now
            self.drop()
            ours = False
        return ours

    def renew(self, block: int) -> None:
        """Show that the block which this process has claimed is being made."""
        os.utime(self._claim(block))

    def release(self, block: int) -> None:
        """Leave a block that this process has claimed to others."""
        self._claim(block).unlink(missing_ok=True)

    def _claim(self, block: int) -> Path:
        return self._folder / "claims" / str(block)

    def write(self, block: int, values: Mapping[str, NDArray[Any]], note: Note) -> None:
        """Write one block of every array, then mark it finished with `note`."""
        if self.is_published():
            return
        done, scratch, synced = self._folder / "done", self._folder, not self.own
        with self._unless_published():
            self._open()
            for name, rows in values.items():
                at, layout = self._group / name, self.arrays[name][1]
                arrays.write_block(at, layout, block, rows, scratch, synced=synced)
            content = json.dumps(note, ensure_ascii=False).encode()
            files.write_file(done / str(block), content, scratch=scratch, synced=synced)

    def drop(self) -> None:
        """Forget what was written and not published, if anything was."""
        with suppress(FileNotFoundError):
            discard(self.store, self._folder)

    def is_kept(self, name: str) -> bool:
        return files.exists(self._kept / name)

    def keep(self, name: str, values: NDArray[Any]) -> None:
        """Keep numbers that a block will be made of, until the group is published."""
        if self.is_published():
            return
        with self._unless_published():
            self._open()
            self._kept.mkdir(exist_ok=True)
            data = arrays.encoded(values, len(values))
            files.write_file(self._kept / name, *data, scratch=self._folder)

    def kept(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Numbers that `keep` was given in float32; raises DamagedStore if they are not there."""
        values = np.empty(shape, np.float32)
        read_chunk(self._kept / name, values)
        return values

    def publish(
        self, describe: Callable[[list[Note]], Mapping[str, Any]], *, replace: bool = False
    ) -> bool:
        """Rename the finished group into place; False while blocks are pending.

        `describe` makes the group's further attributes from the notes of its blocks. With `replace`
        a group of another identity at the target makes way, otherwise it is a StaleCell error.
        """
        if not self.is_published():
            if self.pending():
                return False
            with self._unless_published():
                self._publish(describe, replace)
        if self._folder.exists():  # also one that a slower worker made again
            _delete(self._folder)
        return True

    def read(self, name: str, rows: range) -> NDArray[Any]:
        """Rows of an array that were written."""
        group = self.target if self.is_published() else self._group
        return arrays.read(group / name, self.arrays[name][1], rows)

    def write_all(self, values: Mapping[str, Rows]) -> None:
        """Write the blocks of whole arrays that are left."""
        deque(self.writing(values), 0)

    def writing(self, values: Mapping[str, Rows]) -> Iterator[Mapping[str, NDArray[Any]]]:
        """The same, block by block in order, of each array in its turn: what was written."""
        layouts = {name: self.arrays[name][1] for name in values}
        return self._writing(
            lambda block: {name: layouts[name].part(rows, block) for name, rows in values.items()}
        )

    def write_answers(
        self, images: Callable[[range], NDArray[Any]], texts: NDArray[Any], scale: float
    ) -> None:
        """Write logits and predictions, or these alone, of rows of embeddings and of classes'."""

        def made(block: int) -> Mapping[str, NDArray[Any]]:
            rows = self.blocks.range(block)
            logits = zero_shot_logits(images(rows), texts, scale, rows=self.blocks.unit)
            answers: dict[str, NDArray[Any]] = {"logit": logits, "prediction": predictions(logits)}
            return {name: answers[name] for name in self.arrays}

        deque(self._writing(made), 0)

    def _writing(
        self, made: Callable[[int], Mapping[str, NDArray[Any]]]
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Make and write the blocks that are left, a few at a time in threads."""

        def write(block: int) -> Mapping[str, NDArray[Any]]:
            values = made(block)
            self.write(block, values, {})
            return values

        with products_of_one_thread():
            yield from read_ahead(write, self.pending(), _WRITERS)

    @contextmanager
    def _unless_published(self) -> Iterator[None]:
        """Raise StoreError where files of the draft are gone, unless another worker publishes it,
        who wrote the same bytes.
        """
        try:
            yield
        except (FileNotFoundError, DamagedStore) as error:
            if not self._is_published_soon():
                raise StoreError(
                    f"what was being written of {self.target.relative_to(self.store)} in "
                    f"{self.store} is gone, as `clipsyn gc` does it: run the same command again"
                ) from error

    def _publish(self, describe: Callable[[list[Note]], Mapping[str, Any]], replace: bool) -> None:
        listed = {
            name: arrays.listing(self._group / name, layout).json()
            for name, (_, layout) in self.arrays.items()
            if name != LOOK or files.exists(self._group / name / layout.file(0))  # added later
        }
        made = {"kind": self.kind, "fingerprint": self.fingerprint, "identity": self.identity}
        made |= {"place": place(self.store, self.target), "arrays": listed}
        attributes = sealed({**describe(self._notes()), **made})
        arrays.write_attributes(self._group, attributes, self._folder)
        make_groups(self.store, self.target.parent)
        old = self._move_old_aside() if replace else None
        if not files.rename_unless_taken(self._group, self.target) and (changes := self.changes()):
            raise stale(self.store, self.target, changes)
        files.sync(self.target.parent)
        if old:  # deleted last: a reader finds nothing for the moment between two renames only
            _delete(old)

    def is_taken(self) -> bool:
        """Whether another group, or a part of one, is at the target."""
        try:
            return bool(self.changes())
        except DamagedStore:
            return files.exists(self.target)

    def _move_old_aside(self) -> Path | None:
        """Move the group at the target away, unless a faster worker replaced it; its new path."""
        trash = _trash(self.store)
        try:
            self.target.rename(trash)
        except FileNotFoundError:
            return None
        if self.is_published(trash):
            trash.rename(self.target)
            return None
        return trash

    def _notes(self) -> list[Note]:
        folder = self._folder / "done"
        return [parse_json(files.read_file(folder / str(b))) for b in range(self.blocks.count)]

    def _open(self) -> None:
        """Make the draft's empty arrays, unless they are there; complete or not at all."""
        if self._folder.exists():
            if is_draft(self._folder):
                return
            discard(self.store, self._folder)  # published once, replaced, killed before it was gone
        building = new_folder(self.store)
        try:
            (building / "done").mkdir()
            arrays.create_group(building / "group", list(self.arrays.values()), {})
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        target = {"target": str(self.target.relative_to(self.store)), "blocks": self.blocks.count}
        (building / "target").write_text(json.dumps(target))
        if not (building / "done").exists():  # taken away meanwhile, and in part made again
            discard(self.store, building)
            raise FileNotFoundError(building)
        if not files.rename_unless_taken(building, self._folder):
            shutil.rmtree(building)


def new_folder(store: Path) -> Path:
    """An empty folder for what is being made."""
    (folder := scratch(store) / f"{_NEW}{secrets.token_hex(6)}").mkdir()
    return folder


def is_draft(folder: Path) -> bool:
    """Whether a folder under `.wip` is a draft, and not one that is being made or removed."""
    if folder.name.startswith((_NEW, _TRASH)):
        return False
    return all((folder / part).exists() for part in ("group", "done", "target"))


def stale(store: Path, target: Path, changes: list[tuple[str, Any, Any]]) -> StaleCell:
    """The error for a group that was made from something else than is asked for now."""
    how = describe_changes(changes)
    return StaleCell(
        f"{target.relative_to(store)} in {store} was made from something else ({how}): "
        "add replace=True to make it again, or give the new backbone, dataset or prompts a name of "
        "their own (NAME=SOURCE)",
        fields=tuple(name for name, _, _ in changes),
    )


def describe_changes(changes: Sequence[tuple[str, Any, Any]]) -> str:
    """The first fields that differ, with their values, for a sentence."""
    shown = "; ".join(f"{name}: {_short(old)} → {_short(new)}" for name, old, new in changes[:3])
    return shown + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:16]}…{text[-8:]}"


def make_groups(store: Path, folder: Path, *, synced: bool = True) -> None:
    """Make every folder from `store` down to `folder` a Zarr group, so that all can be browsed."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, *folder.parents):
        if not (path / files.METADATA).exists():
            file = path / files.METADATA
            files.write_file(file, _EMPTY_GROUP, scratch=scratch(store), synced=synced)
        if path == store:
            return


def discard(store: Path, target: Path) -> None:
    """Take a group or a draft out of the store at once, then delete it."""
    trash = _trash(store)
    target.rename(trash)
    _delete(trash)


def _delete(trash: Path) -> None:
    """Delete what is out of the store already; another worker may be deleting it, too."""
    with suppress(NotADirectoryError, OSError):  # a file or a link stood there
        trash.unlink()
    shutil.rmtree(trash, ignore_errors=True)


def scratch(store: Path) -> Path:
    """The folder, made if need be, for files and groups that are not whole yet, or no longer."""
    (store / WIP).mkdir(exist_ok=True)
    return store / WIP


def _trash(store: Path) -> Path:
    return scratch(store) / f"{_TRASH}{secrets.token_hex(6)}"

"""Do the work: images go through every backbone, block by block, into the store.

A block is finished or it is not. Whatever stops a run, the same command goes on from there.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from clipsyn import __version__
from clipsyn.errors import BadImages
from clipsyn.extract.encoder import Encoder, Used, measured
from clipsyn.extract.images import Batch, Images, batches
from clipsyn.extract.text import publish_classes, write_classes
from clipsyn.extract.work import CellWork, SplitWork, Work
from clipsyn.methods.numerics.logits import predictions, zero_shot_logits
from clipsyn.names import canonical_json
from clipsyn.show.progress import Progress
from clipsyn.store import files
from clipsyn.store.drafts import Note, discard
from clipsyn.store.features import FeatureStore
from clipsyn.store.schema import GROUPS
from clipsyn.text import running

_T = TypeVar("_T")
_EncodedBatch = tuple[Any, Callable[[], Used]]  # embeddings on the encoder's device, their cost
_BLOCKS_IN_FLIGHT = 16  # waiting to be written while the next are encoded: 1.5 MB each at width 768
_SMALL = 1.0  # GFLOPs an image, below which one core a batch is faster than all cores a batch
_LISTED = 3  # bad images named in an error
_PARTS = 8  # for each worker, from which on a part is all that shares decoded images
_TOGETHER = 5  # perturbations that go through a block in turn, so that it is decoded once for them


@dataclass(frozen=True)
class RunSettings:
    """How to run; nothing here changes a stored number by more than float16 rounding."""

    batch_size: int = 64
    workers: int = 2  # decoding threads
    lanes: int = 1  # batches that small backbones encode side by side; more than 1 is for CPUs
    shard: tuple[int, int] = (0, 1)  # this worker of so many
    max_bad: float = 0.001  # share of undecodable images above which the run fails


@dataclass(frozen=True, eq=False)
class Item(Images):
    """One block of one split under one perturbation, for the cells that lack it."""

    block: int
    cells: tuple[CellWork, ...]

    @classmethod
    def of(cls, split: SplitWork, block: int, cells: tuple[CellWork, ...]) -> Item:
        keys = {cell.encoder.preprocess_key: cell.encoder.preprocess for cell in cells}
        rows = cells[0].draft.blocks.range(block)
        return cls(split.source, cells[0].perturbation, keys, rows, block, cells)


def run(work: Work, settings: RunSettings, progress: Progress) -> None:
    """Do this worker's share of the work, and publish every cell that is complete.

    Raises BadImages when more than `max_bad` of a split cannot be decoded; what is finished stays.
    """
    for split in work.splits:
        _freeze(work, split)
    for classes in work.classes:
        write_classes(classes, settings.shard, progress)
        if not classes.draft.changes():  # else with the first cell: the old ones can be read so far
            publish_classes(classes, replace=False)
    with (
        ThreadPoolExecutor(settings.workers) as pool,
        _lanes(work, settings) as encoding,
        _Queue(1, _BLOCKS_IN_FLIGHT) as writer,
    ):
        try:
            _Run(work, settings, progress, pool, encoding, writer).encode()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def items(work: Work, shard: tuple[int, int] = (0, 1)) -> Iterator[Item]:
    """What is left to do, in a fixed order, of one of so many workers.

    `shard` (i, n) takes every n-th part from i. Items that share decoded images are one part, if
    there are enough of these for all workers to be busy until the end.
    """
    enough = _PARTS * shard[1]
    few = len([*itertools.islice(_parts(work), enough)]) < enough
    parts = ([block] for part in _parts(work) for block in part) if few else _parts(work)
    for part in itertools.islice(parts, shard[0], None, shard[1]):
        for split, block, cells in part:
            if lacking := tuple(cell for cell in cells if not cell.draft.is_done(block)):
                yield Item.of(split, block, lacking)


def _parts(work: Work) -> Iterator[list[tuple[SplitWork, int, tuple[CellWork, ...]]]]:
    """All blocks, each with the few perturbations that share its decoded images."""
    for split in work.splits:
        by_perturbation = itertools.groupby(split.cells, key=lambda cell: cell.perturbation)
        left = [tuple(cells) for _, cells in by_perturbation]
        for start in range(0, len(left), _TOGETHER):
            together = left[start : start + _TOGETHER]
            for block in range(together[0][0].draft.blocks.count):
                yield [(split, block, cells) for cells in together]


@dataclass
class _Run:
    work: Work
    settings: RunSettings
    progress: Progress
    pool: ThreadPoolExecutor
    encoding: _Queue
    writer: _Queue
    counters: dict[CellWork, int] = field(default_factory=dict)
    bad: dict[CellWork, dict[str, str]] = field(default_factory=dict)

    def encode(self) -> None:
        left = items(self.work, self.settings.shard)
        stream = batches(left, self.settings.batch_size, self.pool)
        for item, group in itertools.groupby(stream, key=itemgetter(0)):
            self._encode_block(item, (batch for _, batch in group))
        for cell in self.work.cells:  # also those whose last block an earlier run has written
            self.writer.submit(self._publish, cell)

    def _encode_block(self, item: Item, stream: Iterator[Batch]) -> None:
        parts: dict[CellWork, list[Future[_EncodedBatch]]] = {cell: [] for cell in item.cells}
        valid = {cell: list[NDArray[np.bool_]]() for cell in item.cells}
        errors = {cell: dict[str, str]() for cell in item.cells}
        looks: list[int] = []
        counters = [self._counter(cell) for cell in item.cells]
        for batch in stream:
            looks += batch.looks
            for cell, counter in zip(item.cells, counters, strict=True):
                key = cell.encoder.preprocess_key
                part = self.encoding.submit(_encode, cell.encoder, batch.pixels[key])
                parts[cell].append(part)
                valid[cell].append(batch.valid[key])
                errors[cell] |= batch.errors[key]
                self.progress.advance(counter, len(batch.rows))
        for cell in item.cells:
            decoded = np.concatenate(valid[cell])
            block = (item.block, parts[cell], decoded, {"errors": errors[cell], "looks": looks})
            self.writer.submit(self._finish_block, cell, *block)
        for cell in item.cells:
            self._check_bad(cell, errors[cell])

    def _finish_block(
        self,
        cell: CellWork,
        block: int,
        parts: list[Future[_EncodedBatch]],
        valid: NDArray[np.bool_],
        seen: Note,
    ) -> None:
        encoded = [part.result() for part in parts]
        embedding = cell.encoder.to_host([embedding for embedding, _ in encoded])
        embedding[~valid] = np.nan
        note = seen | _note([used() for _, used in encoded])
        cell.draft.write(block, {"image_embedding": embedding, "valid": valid}, note)
        if self._publish(cell):
            self.progress.finish(self.counters[cell])

    def _publish(self, cell: CellWork) -> bool:
        def describe(notes: list[Note]) -> Mapping[str, Any]:
            errors = {name: why for note in notes for name, why in note["errors"].items()}
            _refuse_bad(cell, errors, self.settings.max_bad)
            self._keep_looks(cell, notes)
            return {"errors": errors, "provenance": _provenance(cell, notes)}

        if cell.draft.pending():
            return False
        if cell.classes:
            publish_classes(cell.classes, self.work.replace)
        published = cell.draft.publish(describe, replace=self.work.replace)
        if published:
            _write_answers(self.work.store, cell, self.work.replace)
        return published

    def _keep_looks(self, cell: CellWork, notes: list[Note]) -> None:
        """Complete the sample table, which was there before any image was decoded."""
        looks = np.array([look for note in notes for look in note["looks"]], np.uint64)
        if looks.any():
            self.work.store.add_looks(cell.key.dataset, cell.key.split, looks)

    def _check_bad(self, cell: CellWork, errors: Mapping[str, str]) -> None:
        """Fail early; `_publish` checks all blocks, including those of earlier runs."""
        seen = self.bad.setdefault(cell, {})
        seen |= errors
        _refuse_bad(cell, seen, self.settings.max_bad)

    def _counter(self, cell: CellWork) -> int:
        if cell not in self.counters:
            total = cell.draft.blocks.samples
            done = total - cell.images_left
            self.counters[cell] = self.progress.add(str(cell.key), total, done)
        return self.counters[cell]


class _Queue:
    """Threads that run calls in order; at most so many may be unfinished.

    Each thread calls `prepare` first.
    """

    def __init__(
        self, threads: int, unfinished: int, prepare: Callable[[], object] | None = None
    ) -> None:
        self._pool = ThreadPoolExecutor(threads, initializer=prepare)
        self._limit = unfinished
        self._unfinished: deque[Future[Any]] = deque()

    def __enter__(self) -> _Queue:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._pool.shutdown()  # after an error, too, finished embeddings are written

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Queue a call; waits while too many are unfinished, raises what an earlier one raised."""
        future = self._pool.submit(function, *arguments)
        self._unfinished.append(future)
        self._wait(self._limit)
        return future

    def _wait(self, left: int) -> None:
        while len(self._unfinished) > left:
            self._unfinished.popleft().result()


def _encode(encoder: Encoder, pixels: NDArray[np.uint8]) -> _EncodedBatch:
    return measured(lambda: encoder.encode_images(pixels), encoder.device)


@contextmanager
def _lanes(work: Work, settings: RunSettings) -> Iterator[_Queue]:
    """Where batches are encoded: one after the other, or side by side if all backbones are small.

    The threads that share a small product spend much of the time waiting for each other.
    """
    small = all((cell.encoder.gflops or _SMALL) < _SMALL for cell in work.cells)
    if settings.lanes == 1 or not small:
        with _Queue(1, 1) as queue:
            yield queue
        return
    threads = torch.get_num_threads()
    of_each = max(1, threads // settings.lanes)
    try:
        with _Queue(
            settings.lanes, settings.lanes, lambda: torch.set_num_threads(of_each)
        ) as queue:
            yield queue
    finally:
        torch.set_num_threads(threads)  # the number of threads is the whole process's


def _refuse_bad(cell: CellWork, errors: Mapping[str, str], max_bad: float) -> None:
    samples = cell.draft.blocks.samples
    if len(errors) <= max_bad * samples:
        return
    shown = "; ".join(f"{name}: {why}" for name, why in itertools.islice(errors.items(), _LISTED))
    enough = math.ceil(1000 * len(errors) / samples) / 1000
    raise BadImages(
        f"{len(errors)} of {samples:,} images of {cell.key.dataset}/{cell.key.split} cannot be "
        f"decoded ({shown}): mend or remove them, or run again with max_bad={enough:g} to keep "
        "them as rows without an embedding"
    )


def _freeze(work: Work, split: SplitWork) -> None:
    """Publish the sample table, or update labels and class names of the published one."""
    table, draft = split.table, split.samples
    if draft.is_published():
        work.store.annotate(table)
    else:
        draft.fill(table.arrays(), table.attributes(), replace=work.replace)


def _write_answers(store: FeatureStore, cell: CellWork, replace: bool) -> None:
    """Logits and predictions, or these alone, from the stored embeddings, if they are whole."""
    answers, other = cell.answers, cell.superseded
    if not (answers and other and cell.classes and cell.draft.is_published()):
        return
    features, scale = store.group(cell.draft.target), cell.encoder.logit_scale
    weights = store.group(cell.classes.draft.target).read("class_embedding")
    for block in answers.pending():
        rows = answers.blocks.range(block)
        logits = zero_shot_logits(
            features.read("image_embedding", rows), weights, scale, rows=len(rows)
        )
        made: dict[str, NDArray[Any]] = {"logit": logits, "prediction": predictions(logits)}
        answers.write(block, {spec.name: made[spec.name] for spec in GROUPS[answers.kind]}, {})
    answers.publish(lambda _: {}, replace=replace)
    if other.is_taken() or (answers.kind == "logits" and files.exists(other.target)):
        with suppress(FileNotFoundError):  # another worker was faster
            discard(store.path, other.target)


def _note(used: Sequence[Used]) -> Note:
    return {
        "worker": {
            "host": platform.node(),
            "process": os.getpid(),
            "clipsyn": __version__,
            "command": running(),
        },
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "encode_seconds": round(sum(batch.seconds for batch in used), 4),
        "memory": _largest(batch.memory for batch in used),
    }


def _provenance(cell: CellWork, notes: Sequence[Note]) -> dict[str, Any]:
    """How and when the cell was made: recorded, never compared."""
    return {
        "encoder": cell.encoder.provenance,
        "workers": list(
            {canonical_json(note["worker"]): note["worker"] for note in notes}.values()
        ),
        "finished": max(note["finished"] for note in notes),
        "encode_seconds": round(sum(note["encode_seconds"] for note in notes), 4),
        **_memory(cell, notes),
    }


def _memory(cell: CellWork, notes: Sequence[Note]) -> dict[str, float]:
    """The most that any block needed: see `clipsyn.extract.encoder`, here with the weights."""
    most = _largest(note.get("memory", {}) for note in notes)  # older drafts have no such note
    if "peak_memory_mb" in most:
        most["peak_memory_mb"] += cell.encoder.provenance["image_weights_mb"]
    return {kind: round(value, 1) for kind, value in most.items()}


def _largest(memory: Iterable[Mapping[str, float]]) -> dict[str, float]:
    most: dict[str, float] = {}
    for batch in memory:
        for kind, value in batch.items():
            most[kind] = max(value, most.get(kind, value))
    return most

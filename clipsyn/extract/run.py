"""Do the work: images go through every backbone, block by block, into the store.

For each block of a split its images are decoded once, perturbed, preprocessed once for all
backbones that share that, encoded, and appended to drafts. A block is finished or it is not:
whatever stops a run, the same command goes on from there. Texts are kept part by part in the same
way.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from clipsyn import __version__
from clipsyn.errors import BadImages, DamagedStore
from clipsyn.extract import ExtractSettings
from clipsyn.extract.blocks import Block, Claims, blocks, lacking
from clipsyn.extract.device import resolve_device, timed
from clipsyn.extract.encoder import RowTexts
from clipsyn.extract.images import Batch, View, batches
from clipsyn.extract.work import Cell, Split, Texts, Work
from clipsyn.methods.numerics.blocks import usable_cores
from clipsyn.names import CLEAN, canonical_json, fingerprint, parse_shard
from clipsyn.show.progress import Progress
from clipsyn.store import files
from clipsyn.store.drafts import Note, discard
from clipsyn.store.features import FeatureStore
from clipsyn.text import LOG, now, running

_T = TypeVar("_T")
_Encoded = tuple[Any, Callable[[], float]]  # embeddings on the device, and what gives seconds
_CPU_BATCH, _GPU_BATCH = 64, 256
_BLOCKS_IN_FLIGHT = 16  # waiting to be written while the next are encoded: 1.5 MB each at width 768
_SMALL = 1.0  # GFLOPs an image, below which one core a batch is faster than all cores a batch
_LISTED = 3  # bad images named in an error
_LOOK = 1.0  # seconds between two looks at what other workers make


@dataclass(frozen=True)
class RunSettings:
    """How to run; nothing here changes a stored number by more than float16 rounding."""

    batch_size: int = 64
    workers: int = 2  # decoding threads
    lanes: int = 1  # batches that small backbones encode side by side; more than 1 is for CPUs
    shard: tuple[int, int] = (0, 1)  # this worker of so many, which begin at different places
    max_bad: float = 0.001  # share of undecodable images above which the run fails

    @classmethod
    def of(cls, job: ExtractSettings) -> RunSettings:
        """As the job says, and on this machine."""
        on_cpu = resolve_device(job.device).type == "cpu"
        cores = usable_cores()
        return cls(
            batch_size=job.batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH),
            workers=job.workers or min(cores, 16),
            lanes=min(cores, 8) if on_cpu else 1,
            shard=parse_shard(job.shard),
            max_bad=job.max_bad,
        )


def run(work: Work, settings: RunSettings, progress: Progress) -> None:
    """Do what no other worker does, wait for what others do, and publish every cell.

    Raises BadImages when more than `max_bad` of a split cannot be decoded; what is finished stays.
    """
    FeatureStore.create(work.store.path, work.store.chunk_rows)
    for split in work.splits:
        _freeze(work, split)
    for texts in work.texts:
        write_texts(texts, settings.shard, progress)
        if not texts.draft.changes():  # else with the first cell: the old ones can be read so far
            publish_texts(texts, replace=False)
    with (
        Claims() as claims,
        ThreadPoolExecutor(settings.workers) as pool,
        _lanes(work, settings) as encoding,
        _Queue(1, _BLOCKS_IN_FLIGHT) as writer,
    ):
        try:
            _Run(work, settings, progress, claims, pool, encoding, writer).encode()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass
class _Run:
    work: Work
    settings: RunSettings
    progress: Progress
    claims: Claims
    pool: ThreadPoolExecutor
    encoding: _Queue
    writer: _Queue
    counters: dict[Cell, int] = field(default_factory=dict)
    bad: dict[Cell, dict[str, str]] = field(default_factory=dict)
    waits: bool = False

    def encode(self) -> None:
        left: Iterable[Block] = blocks(self.work, self.settings.shard)
        while left := self._encode_unclaimed(left):
            self._wait_for(len(left))
        for cell in self.work.cells:  # also those whose last block an earlier run has written
            self.writer.submit(self._publish, cell)

    def _wait_for(self, count: int) -> None:
        """Other workers are at the last blocks; one that is lost leaves them to us."""
        if not self.waits:
            LOG.info(f"waiting for other workers, which make the last blocks ({count:,})")
        self.waits = True
        time.sleep(_LOOK)

    def _encode_unclaimed(self, every: Iterable[Block]) -> list[Block]:
        """Make the blocks that no other worker makes; returns those that others have not made."""
        others: list[Block] = []
        asked = (
            (
                block,
                block.split.source,
                block.rows,
                {_view(cell): cell.encoder.preprocess for cell in block.cells},
            )
            for block in self.claims.take(every, others)
        )
        stream = batches(asked, self.settings.batch_size, self.pool)
        for block, group in itertools.groupby(stream, key=itemgetter(0)):
            self._encode_block(block, (batch for _, batch in group))
        self.writer.wait()
        return [*lacking(others)]

    def _encode_block(self, block: Block, stream: Iterator[Batch]) -> None:
        parts: dict[Cell, list[Future[_Encoded]]] = {cell: [] for cell in block.cells}
        errors: dict[Cell, dict[str, str]] = {cell: {} for cell in block.cells}
        looks: list[int] = []
        for batch in stream:
            looks += batch.looks
            for cell in block.cells:
                pixels = batch.pixels[_view(cell)]
                parts[cell].append(self.encoding.submit(_encode, cell, pixels))
                errors[cell] |= batch.errors[_view(cell)]
                self.progress.advance(self._counter(cell), len(batch.rows))
        for cell in block.cells:
            note = {"errors": errors[cell], "looks": looks if cell.perturbation == CLEAN else []}
            self.writer.submit(self._finish, block, cell, parts[cell], note)
        for cell in block.cells:  # early; `_publish` checks those of earlier runs, too
            seen = self.bad.setdefault(cell, {})
            seen |= errors[cell]
            self._refuse_bad(cell, seen)

    def _finish(self, block: Block, cell: Cell, parts: list[Future[_Encoded]], note: Note) -> None:
        encoded = [part.result() for part in parts]
        embedding = cell.encoder.to_host([embedding for embedding, _ in encoded])
        ids = block.split.source.ids
        valid = np.array([ids[row] not in note["errors"] for row in block.rows])
        embedding[~valid] = np.nan
        note |= {
            "worker": {
                "host": platform.node(),
                "process": os.getpid(),
                "clipsyn": __version__,
                "command": running(),
            },
            "finished": now(),
            "encode_seconds": round(sum(seconds() for _, seconds in encoded), 4),
        }
        cell.draft.write(block.number, {"image_embedding": embedding, "valid": valid}, note)
        self.claims.finish(cell, block.number)
        if self._publish(cell):
            self.progress.finish(self.counters[cell])

    def _publish(self, cell: Cell) -> bool:
        def describe(notes: list[Note]) -> Mapping[str, Any]:
            errors = {name: why for note in notes for name, why in note["errors"].items()}
            self._refuse_bad(cell, errors)
            looks = np.array([look for note in notes for look in note["looks"]], np.uint64)
            if looks.any():  # completes the sample table, which was there before any image was
                self.work.store.add_looks(cell.key.dataset, cell.key.split, looks)
            return {"errors": errors, "provenance": _provenance(cell, notes)}

        if cell.draft.pending():
            return False
        for texts in cell.texts:
            publish_texts(texts, self.work.job.replace)
        published = cell.draft.publish(describe, replace=self.work.job.replace)
        if published:
            _write_answers(self.work.store, cell, self.work.job.replace)
        return published

    def _refuse_bad(self, cell: Cell, errors: Mapping[str, str]) -> None:
        samples = cell.draft.blocks.samples
        if len(errors) <= self.settings.max_bad * samples:
            return
        shown = "; ".join(f"{name}: {why}" for name, why in [*errors.items()][:_LISTED])
        enough = math.ceil(1000 * len(errors) / samples) / 1000
        raise BadImages(
            f"{len(errors)} of {samples:,} images of {cell.key.dataset}/{cell.key.split} cannot "
            f"be decoded ({shown}): mend or remove them, or run again with max_bad={enough:g} to "
            "keep them as rows without an embedding"
        )

    def _counter(self, cell: Cell) -> int:
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
                self.wait()
        finally:
            self._pool.shutdown()  # after an error, too, finished embeddings are written

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Queue a call; waits while too many are unfinished, raises what an earlier one raised."""
        future = self._pool.submit(function, *arguments)
        self._unfinished.append(future)
        self.wait(self._limit)
        return future

    def wait(self, left: int = 0) -> None:
        """Return when at most so many calls are unfinished; raises what one of them raised."""
        while len(self._unfinished) > left:
            self._unfinished.popleft().result()


def _view(cell: Cell) -> View:
    return cell.perturbation, cell.encoder.preprocess_key


def _encode(cell: Cell, pixels: NDArray[np.uint8]) -> _Encoded:
    return timed(lambda: cell.encoder.encode_images(pixels), cell.encoder.device)


@contextmanager
def _lanes(work: Work, settings: RunSettings) -> Iterator[_Queue]:
    """Where batches are encoded: one after the other, or side by side if all backbones are small.

    The threads that share a small product spend much of the time waiting for each other.
    """
    small = all((cell.encoder.gflops or _SMALL) < _SMALL for cell in work.cells)
    lanes, threads = settings.lanes if small else 1, torch.get_num_threads()
    try:
        with _Queue(lanes, lanes, lambda: torch.set_num_threads(max(1, threads // lanes))) as queue:
            yield queue
    finally:
        torch.set_num_threads(threads)  # the number of threads is the whole process's


def _freeze(work: Work, split: Split) -> None:
    """Publish the sample table, or update labels and class names of the published one."""
    table, draft = split.table, split.samples
    if draft.is_published():
        work.store.annotate(table)
    else:
        draft.write_all(table.arrays())
        draft.publish(lambda _: table.attributes(), replace=work.job.replace)
    if split.captions:
        captions, draft = split.captions
        draft.write_all(captions.arrays())
        draft.publish(lambda _: {}, replace=work.job.replace)


def _write_answers(store: FeatureStore, cell: Cell, replace: bool) -> None:
    """Logits and predictions, or these alone, from the stored embeddings, if they are whole."""
    answers, other = cell.answers, cell.superseded
    if not (answers and other and cell.classes and cell.draft.is_published()):
        return
    images = partial(store.group(cell.draft.target).read, "image_embedding")
    texts = store.group(cell.classes.draft.target).read("class_embedding")
    answers.write_answers(images, texts, cell.encoder.logit_scale)
    answers.publish(lambda _: {}, replace=replace)
    if other.is_taken() or (answers.kind == "logits" and files.exists(other.target)):
        with suppress(FileNotFoundError):  # another worker was faster
            discard(store.path, other.target)


def _provenance(cell: Cell, notes: Sequence[Note]) -> dict[str, Any]:
    """How and when the cell was made: recorded, never compared."""
    workers = {canonical_json(note["worker"]): note["worker"] for note in notes}
    return {
        "encoder": cell.encoder.provenance,
        "workers": list(workers.values()),
        "finished": max(note["finished"] for note in notes),
        "encode_seconds": round(sum(note["encode_seconds"] for note in notes), 4),
    }


def write_texts(asked: Texts, shard: tuple[int, int], progress: Progress) -> None:
    """Encode the texts that no worker has encoded, then make the embeddings of all rows.

    Workers begin at different parts, so that together they encode most of them once.
    """
    draft, encoder = asked.draft, asked.encoder
    if not draft.pending():
        return
    if encoder.classes is not None:  # which no text stands for
        draft.write_all({"class_embedding": encoder.classes})
        return
    texts = RowTexts(encoder, asked.rows)
    named = {_part_name(part): part for part in texts.parts}
    done = sum(len(part) for name, part in named.items() if draft.is_kept(name))
    title = f"{encoder.backbone.name}: {asked.what}"
    counter = progress.add(title, len(texts), done, unit="texts")
    first = len(named) * shard[0] // shard[1]
    for name, part in [*named.items()][first:] + [*named.items()][:first]:
        if not draft.is_kept(name) and draft.pending():
            draft.keep(name, encoder.encode_text(part))
            progress.advance(counter, len(part))
    progress.finish(counter)
    (array,), sums = draft.arrays, np.float32 if draft.kind == "texts" else np.float64
    try:
        embedding = texts.embeddings(
            lambda part: draft.kept(_part_name(part), (len(part), encoder.embed_dim)), sums
        )
    except DamagedStore:
        if draft.pending():  # else another worker was faster, and has cleared up
            raise
        return
    draft.write_all({array: embedding})


def _part_name(texts: Sequence[str]) -> str:
    """What a part is kept under: it is found again only where it is cut in the same way."""
    return fingerprint({"texts": list(texts)})[:20]


def publish_texts(texts: Texts, replace: bool) -> None:
    """Make embeddings of texts visible that are whole."""
    encoder = texts.encoder
    made = {"encoder": encoder.provenance, "clipsyn": __version__, "command": running()}
    attributes = {"logit_scale": encoder.logit_scale, "provenance": {**made, "finished": now()}}
    texts.draft.publish(lambda _: attributes, replace=replace)

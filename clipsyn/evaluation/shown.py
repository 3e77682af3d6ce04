"""Targets as a head shows them to ensembles, a block of samples at a time.

What is asked for again stays: blocks of small targets in memory, and the logits of heads in a
temporary file where a target is large. Those of the zero-shot head are read from the store.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.evaluation.results.frame import Measured
from clipsyn.evaluation.scoring import Answers, Scorer
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.heads.base import Head
from clipsyn.methods.heads.zero_shot import ZeroShot
from clipsyn.methods.numerics.metrics import Judged, join, judge
from clipsyn.methods.pool import Pool
from clipsyn.stats.images import Images
from clipsyn.store.pools import PoolReader

_KEPT_BYTES = 256 << 20  # of blocks that stay in memory


@dataclass(frozen=True)
class Target:
    """Samples to be judged on: a split under a perturbation, or some of its classes."""

    reader: PoolReader
    classes: str = "all"
    subset: Sequence[int] | None = None

    def blocks(self, embeddings: bool) -> Iterator[Pool]:
        for block in self.reader.blocks(embeddings=embeddings):
            yield block if self.subset is None else block.of_classes(self.subset)

    @property
    def n_classes(self) -> int:
        names = self.reader.samples.class_names
        return len(names if self.subset is None else self.subset)

    @property
    def rows(self) -> NDArray[np.intp]:
        """(sample,) the place of each sample of `blocks` in the sample table."""
        if self.subset is None:
            return np.arange(len(self.reader))
        return np.flatnonzero(np.isin(self.reader.samples.labels, self.subset))

    @property
    def images(self) -> Images:
        return self.reader.samples.images.take(self.rows)

    def class_indices(self, predictions: NDArray[np.uint16]) -> NDArray[np.integer[Any]]:
        """Predictions among `subset` as indices of all classes."""
        return predictions if self.subset is None else np.asarray(self.subset)[predictions]


class KeptBlocks:
    """Blocks of targets that stay in memory: those that fit into 256 MB together."""

    def __init__(self, limit: int = _KEPT_BYTES) -> None:
        self._left = limit
        self._kept: dict[int, list[Pool]] = {}
        self._large: set[int] = set()  # targets that do not fit

    def has_room(self, block: Pool, n: int) -> bool:
        """Whether all blocks of n samples, of which this is one, can stay."""
        return _bytes(block) * n <= self._left * max(1, len(block))

    def blocks(
        self, target: int, make: Callable[[bool], Iterator[Pool]], n: int, embeddings: bool
    ) -> Iterator[Pool]:
        """The blocks of a target of n samples, made where they are not there.

        make: takes whether embeddings are needed, as they are in blocks that stay.
        """
        if target in self._kept:
            yield from self._kept[target]
            return
        kept: list[Pool] = []
        for number, block in enumerate(make(embeddings or target not in self._large)):
            if number == 0 and target not in self._large and not self.has_room(block, n):
                self._large.add(target)
            if target not in self._large:
                kept.append(block)
            yield block
        if kept:
            self._kept[target] = kept
            self._left -= sum(map(_bytes, kept))


def _bytes(pool: Pool) -> int:
    arrays = [pool.logits, *pool.embeddings.values()]
    return sum(array.nbytes for array in arrays)


class Combined(NamedTuple):
    """What an ensemble says of a target, and the seconds that it and the head took for it."""

    judged: Judged
    seconds: float


class Shown:
    """One target on a fitted head: its logits, and how each backbone does on its own.

    number: of the target. stored, transformed: blocks of targets as they are in the store, and with
    the logits of the head.
    """

    def __init__(
        self, number: int, target: Target, head: Head, stored: KeptBlocks, transformed: KeptBlocks
    ) -> None:
        self.target = target
        self.answers: dict[str, Answers] = {}  # of the ensembles judged that learn nothing
        self._number = number
        self._head = head
        self._kept, self._transformed = stored, transformed
        self._file: _LogitsFile | None = None
        self._scorer: Scorer | None = None
        self._singles: dict[str, list[Measured]] = {}
        self._head_seconds = 0.0

    @property
    def scorer(self) -> Scorer:
        """Metrics on the target, with the backbones on their own."""
        if self._scorer is None:
            self.judge({})
        assert self._scorer
        return self._scorer

    @property
    def singles(self) -> dict[str, list[Measured]]:
        """The numbers of each backbone on its own."""
        if not self._singles:
            for backbone, measured in self.scorer.backbones(self.target.reader.silent):
                self._singles.setdefault(backbone, []).append(measured)
        return self._singles

    def judge(self, ensembles: Mapping[str, Ensemble]) -> dict[str, Combined]:
        """What ensembles say of the target, in one pass; the first one judges the backbones too."""
        if not ensembles and self._scorer:
            return {}
        moved = {name: for_classes(one, self.target) for name, one in ensembles.items()}
        judged: dict[str, list[Judged]] = {name: [] for name in ensembles}
        seconds = dict.fromkeys(ensembles, 0.0)
        singles = None if self._scorer else _Singles()
        embeddings = any(ensemble.needs_embeddings for ensemble in ensembles.values())
        for pool in self._blocks(embeddings):
            if singles:
                singles.add(pool)
            for name, ensemble in moved.items():
                start = time.perf_counter()
                scores = ensemble.combine(pool)
                seconds[name] += time.perf_counter() - start
                judged[name].append(judge(scores, pool.labels))
        if singles:
            self._scorer = singles.scorer(self.target)
        combined = {
            name: Combined(join(judged[name]), seconds[name] + self._head_seconds)
            for name in ensembles
        }
        for name, ensemble in ensembles.items():
            if not ensemble.learns:
                self.answers[name] = self.scorer.answers(combined[name].judged)
        return combined

    def _blocks(self, embeddings: bool) -> Iterator[Pool]:
        """The target's samples with the logits of the head."""
        if type(self._head) is ZeroShot:
            return self._stored(embeddings)
        if self._file is None:
            n = len(self.target.reader)
            return self._transformed.blocks(self._number, lambda _: self._transform(n), n, True)
        pools = self._file.pools()
        if not embeddings:
            return pools
        pairs = zip(pools, self._stored(True), strict=True)
        return (replace(pool, embeddings=stored.embeddings) for pool, stored in pairs)

    def _stored(self, embeddings: bool) -> Iterator[Pool]:
        n = len(self.target.reader)
        return self._kept.blocks(self._number, self.target.blocks, n, embeddings)

    def _transform(self, n: int) -> Iterator[Pool]:
        head = for_classes(self._head, self.target)
        file: _LogitsFile | None = None
        for number, block in enumerate(self._stored(True)):
            start = time.perf_counter()
            pool = head.transform(block)
            self._head_seconds += time.perf_counter() - start
            if number == 0 and not self._transformed.has_room(pool, n):
                file = _LogitsFile()
            if file:
                file.add(pool)
            yield pool
        self._file = file


def for_classes(fitted: Any, target: Target) -> Any:
    """What is fitted, moved to the classes of a target (base-to-new)."""
    if target.subset is None:
        return fitted
    moved = copy.copy(fitted)
    moved.n_classes_ = target.n_classes
    return moved


class _Singles:
    """What each backbone predicts on its own, a block at a time."""

    def __init__(self) -> None:
        self._labels: list[NDArray[np.int32]] = []
        self._judged: dict[str, list[Judged]] = {}

    def add(self, pool: Pool) -> None:
        self._labels.append(pool.labels)
        for column, name in enumerate(pool.backbones):
            scores = pool.logits[:, column]
            self._judged.setdefault(name, []).append(judge(scores, pool.labels))

    def scorer(self, target: Target) -> Scorer:
        singles = {name: join(parts) for name, parts in self._judged.items()}
        return Scorer(np.concatenate(self._labels), singles, target.n_classes, target.images)


class _LogitsFile:
    """Logits of pools in a temporary file, which the system removes with the process."""

    def __init__(self) -> None:
        self._file = TemporaryFile(prefix="clipsyn-")  # noqa: SIM115 (it lives as long as this)
        self._shells: list[Pool] = []  # all of the pools but their numbers

    def __del__(self) -> None:
        self._file.close()

    def add(self, pool: Pool) -> None:
        self._file.write(np.ascontiguousarray(pool.logits, np.float32).data)
        nothing = np.broadcast_to(np.float32(0), pool.logits.shape)
        self._shells.append(replace(pool, logits=nothing, embeddings={}, views=()))

    def pools(self) -> Iterator[Pool]:
        """The pools as they were, without embeddings."""
        self._file.seek(0)
        for shell in self._shells:
            logits = np.empty(shell.logits.shape, np.float32)
            self._file.readinto(logits.data)
            yield replace(shell, logits=logits)

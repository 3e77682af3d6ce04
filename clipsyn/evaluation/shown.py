"""Targets as a head shows them to ensembles, a block of samples at a time.

What is asked for again stays: small targets in memory, and the logits of heads in temporary files
where a target is large. A large target itself is read from the store again.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.evaluation.results.frame import Measured
from clipsyn.evaluation.scoring import Answers, Scorer
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.heads.base import Head, ZeroShot
from clipsyn.methods.numerics.metrics import Judged, join, judge
from clipsyn.methods.pool import Pool, on_disk
from clipsyn.stats.images import Images
from clipsyn.store.pools import PoolReader

ROOM = 256 << 20  # bytes of all targets of a dataset that stay in memory


class Target:
    """Samples to be judged on: a split under a perturbation, or some of its classes.

    room: bytes that it may take in memory; a larger one is read on every pass.
    """

    def __init__(
        self,
        reader: PoolReader,
        classes: str = "all",
        subset: Sequence[int] | None = None,
        room: float = ROOM,
    ) -> None:
        self.reader, self.classes, self.subset = reader, classes, subset
        self.is_small = len(reader) * reader.bytes_a_sample <= room
        self._pools: list[Pool] = []

    def pools(self, *, embeddings: bool) -> Iterable[Pool]:
        """All samples in order, in blocks; embeddings: False where they are not needed."""
        if not self.is_small:
            return self._read(embeddings)
        self._pools = self._pools or [*self._read(True)]
        return self._pools

    def _read(self, embeddings: bool) -> Iterator[Pool]:
        for block in self.reader.blocks(embeddings=embeddings):
            yield block if self.subset is None else block.of_classes(self.subset)

    @property
    def n_classes(self) -> int:
        names = self.reader.samples.class_names
        return len(names if self.subset is None else self.subset)

    @property
    def rows(self) -> NDArray[np.intp]:
        """(sample,) the place of each sample of `pools` in the sample table."""
        if self.subset is None:
            return np.arange(len(self.reader))
        return np.flatnonzero(np.isin(self.reader.samples.labels, self.subset))

    @property
    def images(self) -> Images:
        return self.reader.samples.images.take(self.rows)

    def class_indices(self, predictions: NDArray[np.uint16]) -> NDArray[np.integer[Any]]:
        """Predictions among `subset` as indices of all classes."""
        return predictions if self.subset is None else np.asarray(self.subset)[predictions]


class Combined(NamedTuple):
    """What an ensemble says of a target, and the seconds that it and the head took for it."""

    judged: Judged
    seconds: float


class Shown:
    """One target on a fitted head: its logits, and how each backbone does on its own."""

    def __init__(self, target: Target, head: Head) -> None:
        self.target = target
        self.answers: dict[str, Answers] = {}  # of the ensembles judged that learn nothing
        self._head, self._head_seconds = head, 0.0
        self._scorer: Scorer | None = None

    @property
    def scorer(self) -> Scorer:
        """Metrics on the target, with the backbones on their own."""
        if self._scorer is None:
            self.judge({})
        assert self._scorer
        return self._scorer

    @cached_property
    def singles(self) -> dict[str, list[Measured]]:
        """The numbers of each backbone on its own."""
        numbers: dict[str, list[Measured]] = {}
        for backbone, measured in self.scorer.backbones(self.target.reader.silent):
            numbers.setdefault(backbone, []).append(measured)
        return numbers

    def judge(self, ensembles: Mapping[str, Ensemble]) -> dict[str, Combined]:
        """What ensembles say of the target, in one pass; the first one judges the backbones too."""
        if not ensembles and self._scorer:
            return {}
        moved = {name: for_classes(one, self.target) for name, one in ensembles.items()}
        judged: dict[str, list[Judged]] = {name: [] for name in ensembles}
        seconds = dict.fromkeys(ensembles, 0.0)
        labels: list[NDArray[np.int32]] = []
        singles: dict[str, list[Judged]] = {}
        for pool in self._pools(any(one.needs_embeddings for one in ensembles.values())):
            labels.append(pool.labels)
            for column, name in enumerate(pool.backbones if self._scorer is None else ()):
                one = judge(pool.logits[:, column], pool.labels)
                singles.setdefault(name, []).append(one)
            for name, ensemble in moved.items():
                start = time.perf_counter()
                scores = ensemble.combine(pool)
                seconds[name] += time.perf_counter() - start
                judged[name].append(judge(scores, pool.labels))
        if self._scorer is None:
            of_each = {name: join(parts) for name, parts in singles.items()}
            target = self.target
            self._scorer = Scorer(np.concatenate(labels), of_each, target.n_classes, target.images)
        combined = {
            name: Combined(join(judged[name]), seconds[name] + self._head_seconds)
            for name in ensembles
        }
        for name, ensemble in ensembles.items():
            if not ensemble.learns:
                self.answers[name] = self._scorer.answers(combined[name].judged)
        return combined

    def _pools(self, embeddings: bool) -> Iterable[Pool]:
        """The target's samples with the logits of the head."""
        if type(self._head) is ZeroShot:
            return self.target.pools(embeddings=embeddings)
        if self.target.is_small or not embeddings:
            return self._transformed
        pairs = zip(self._transformed, self.target.pools(embeddings=True), strict=True)
        return (replace(pool, embeddings=stored.embeddings) for pool, stored in pairs)

    @cached_property
    def _transformed(self) -> list[Pool]:
        """Those of a large target have no embeddings, and their logits lie on the disk."""
        head, pools = for_classes(self._head, self.target), []
        for stored in self.target.pools(embeddings=True):
            start = time.perf_counter()
            pool = head.transform(stored)
            self._head_seconds += time.perf_counter() - start
            if not self.target.is_small:
                logits = on_disk(pool.logits.shape, np.float32)
                logits[...] = pool.logits
                pool = replace(pool, logits=logits, embeddings={}, views=())
            pools.append(pool)
        return pools


def for_classes(fitted: Any, target: Target) -> Any:
    """What is fitted, moved to the classes of a target (base-to-new)."""
    if target.subset is None:
        return fitted
    moved = copy.copy(fitted)
    moved.n_classes_ = target.n_classes
    return moved

"""Targets as a head shows them to ensembles, a block of samples at a time.

What is asked for again stays: blocks of small targets in memory, and the logits of heads in a
temporary file where a target is large. Those of the zero-shot head are read from the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.evaluation.methods import Target, for_classes
from clipsyn.evaluation.plan import Subject
from clipsyn.evaluation.scoring import Answers, Scorer
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.heads.base import Head
from clipsyn.methods.heads.zero_shot import ZeroShot
from clipsyn.methods.numerics.metrics import Judged, join, judge
from clipsyn.methods.pool import Pool

_KEPT_BYTES = 256 << 20  # of blocks that stay in memory


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
    """The targets on one fitted head: their logits, and how each backbone does on its own.

    kept: blocks of the targets as they are in the store.
    """

    def __init__(self, head: Head, targets: Sequence[Target], kept: KeptBlocks) -> None:
        self._head = head
        self._targets = targets
        self._kept = kept
        self._transformed = KeptBlocks()
        self._files: dict[int, _LogitsFile] = {}
        self._scorers: dict[int, Scorer] = {}
        self._answers: dict[Subject, Answers] = {}
        self._head_seconds = [0.0] * len(targets)

    def scorer(self, target: int) -> Scorer:
        """Metrics on a target, with the backbones on their own."""
        if target not in self._scorers:
            self.judge(target, {})
        return self._scorers[target]

    def silent(self, target: int) -> frozenset[str]:
        """The backbones that say nothing but what they predict."""
        return self._targets[target].reader.silent

    def knows(self, subject: Subject) -> bool:
        """Whether an ensemble that learns nothing was judged."""
        return subject in self._answers

    def answers(self, subject: Subject) -> Answers:
        """Where such an ensemble is right."""
        return self._answers[subject]

    def judge(self, target: int, ensembles: Mapping[str, Ensemble]) -> dict[str, Combined]:
        """What ensembles say of a target, in one pass; the first one judges the backbones too."""
        shown = self._targets[target]
        moved = {name: for_classes(one, shown) for name, one in ensembles.items()}
        judged: dict[str, list[Judged]] = {name: [] for name in ensembles}
        seconds = dict.fromkeys(ensembles, 0.0)
        if not ensembles and target in self._scorers:
            return {}
        singles = None if target in self._scorers else _Singles()
        embeddings = any(ensemble.needs_embeddings for ensemble in ensembles.values())
        for pool in self._blocks(target, embeddings):
            if singles:
                singles.add(pool)
            for name, ensemble in moved.items():
                start = time.perf_counter()
                scores = ensemble.combine(pool)
                seconds[name] += time.perf_counter() - start
                judged[name].append(judge(scores, pool.labels))
        if singles:
            self._scorers[target] = singles.scorer(shown.n_classes)
        combined = {
            name: Combined(join(judged[name]), seconds[name] + self._head_seconds[target])
            for name in ensembles
        }
        for name, ensemble in ensembles.items():
            if not ensemble.learns:
                answers = self._scorers[target].answers(combined[name].judged)
                self._answers[Subject(target, name)] = answers
        return combined

    def _blocks(self, target: int, embeddings: bool) -> Iterator[Pool]:
        """The target's samples with the logits of the head."""
        if type(self._head) is ZeroShot:
            return self._stored(target, embeddings)
        if target not in self._files:
            n = len(self._targets[target].reader)
            return self._transformed.blocks(target, lambda _: self._transform(target, n), n, True)
        pools = self._files[target].pools()
        if not embeddings:
            return pools
        pairs = zip(pools, self._stored(target, True), strict=True)
        return (replace(pool, embeddings=stored.embeddings) for pool, stored in pairs)

    def _stored(self, target: int, embeddings: bool) -> Iterator[Pool]:
        shown = self._targets[target]
        return self._kept.blocks(target, shown.blocks, len(shown.reader), embeddings)

    def _transform(self, target: int, n: int) -> Iterator[Pool]:
        head = for_classes(self._head, self._targets[target])
        file: _LogitsFile | None = None
        for number, block in enumerate(self._stored(target, True)):
            start = time.perf_counter()
            pool = head.transform(block)
            self._head_seconds[target] += time.perf_counter() - start
            if number == 0 and not self._transformed.has_room(pool, n):
                file = _LogitsFile()
            if file:
                file.add(pool)
            yield pool
        if file:
            self._files[target] = file


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

    def scorer(self, n_classes: int) -> Scorer:
        singles = {name: join(parts) for name, parts in self._judged.items()}
        return Scorer(np.concatenate(self._labels), singles, n_classes)


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

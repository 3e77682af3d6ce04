"""What methods predict on a target, a block of samples at a time, and metrics of that.

All methods on the same samples are measured on the same of them, so that gains are paired. What is
asked for again stays: small targets in memory, and the logits of heads in temporary files where a
target is large. A large target itself is read from the store again.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from clipsyn.evaluation.results.frame import (
    IF_ALIKE,
    OVER_BEST_ON_TEST,
    Measured,
    accuracies,
    estimate,
    gain,
    mean,
    mean_share,
    oracle_numbers,
    relative_gain,
)
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.heads.base import Head, ZeroShot
from clipsyn.methods.numerics import Array, Floats, Labels, Mask, Rows
from clipsyn.methods.numerics.logits import NO_PREDICTION
from clipsyn.methods.numerics.metrics import (
    Judged,
    calibration_floor,
    expected_calibration_error,
    join,
    judge,
)
from clipsyn.methods.pool import Pool, joined, on_disk
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import mean_loss_interval, pearson
from clipsyn.store.pools import PoolReader

ROOM = 256 << 20  # bytes of all targets of a dataset that stay in memory
Right = Mask  # (counted sample,) where a method is right


class Target:
    """Samples to be judged on: a split under a perturbation, or some of its classes.

    room: bytes that it may take in memory; a larger one is read on every pass.
    """

    def __init__(
        self,
        reader: PoolReader,
        room: float,
        classes: str = "all",
        subset: Sequence[int] | None = None,
    ) -> None:
        self.reader, self.classes, self.subset = reader, classes, subset
        names = reader.samples.class_names
        self.n_classes = len(names if subset is None else subset)
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
    def rows(self) -> Rows:
        """(sample,) the place of each sample of `pools` in the sample table."""
        if self.subset is None:
            return np.arange(len(self.reader))
        return np.flatnonzero(np.isin(self.reader.samples.labels, self.subset))

    def adapted(self, fitted: Any) -> Any:
        """What is fitted, moved to the classes of the target (base-to-new)."""
        if self.subset is None:
            return fitted
        moved = copy.copy(fitted)
        moved.n_classes_ = self.n_classes
        return moved


class Combined(NamedTuple):
    """What an ensemble says of a target, and the seconds that it and the head took for it."""

    judged: Judged
    seconds: float


class Shown:
    """One target on a fitted head: its logits, and how each backbone does on its own."""

    def __init__(self, target: Target, head: Head) -> None:
        self.target = target
        self.right: dict[str, Right] = {}  # of the ensembles judged that learn nothing
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
        silent = self.target.reader.silent
        return {
            name: [*self.scorer.metrics(judged, probabilities=name not in silent)]
            for name, judged in self.scorer.singles.items()
        }

    def judge(self, ensembles: Mapping[str, Ensemble]) -> dict[str, Combined]:
        """What ensembles say of the target, in one pass; the first one judges the backbones too."""
        if not ensembles and self._scorer:
            return {}
        labels: list[Labels] = []
        judged, singles = defaultdict[str, list[Judged]](list), defaultdict[str, list[Judged]](list)
        seconds = dict.fromkeys(ensembles, 0.0)
        moved = {name: self.target.adapted(one) for name, one in ensembles.items()}
        embedded = any(it.needs_embeddings or it.needs_views for it in ensembles.values())
        for pool in self._pools(embedded):
            labels.append(pool.labels)
            for column, name in enumerate(pool.backbones if self._scorer is None else ()):
                singles[name].append(judge(pool.logits[:, column], pool.labels))
            for name, ensemble in moved.items():
                if not ensemble.sees_together:
                    start = time.perf_counter()
                    scores = ensemble.combine(pool)
                    seconds[name] += time.perf_counter() - start
                    judged[name].append(judge(scores, pool.labels))
        of_all = {name: one for name, one in moved.items() if one.sees_together}
        for name, scores, took in self._together(of_all):
            judged[name].append(judge(scores, np.concatenate(labels)))
            seconds[name] = took
        if self._scorer is None:
            target, of_each = self.target, {name: join(parts) for name, parts in singles.items()}
            images = target.reader.samples.images.take(target.rows)
            self._scorer = Scorer(np.concatenate(labels), of_each, target.n_classes, images)
        combined = {
            name: Combined(join(parts), seconds[name] + self._head_seconds)
            for name, parts in judged.items()
        }
        for name, ensemble in ensembles.items():
            if not ensemble.learns:
                self.right[name] = self._scorer.is_right(combined[name].judged)
        return combined

    def _together(self, ensembles: Mapping[str, Ensemble]) -> Iterator[tuple[str, Floats, float]]:
        """Scores of those that see all samples at once, which have no labels; and the seconds."""
        if not ensembles:
            return
        count = len(self.target.rows)
        room = np.empty if self.target.is_small else on_disk
        readable, whole = joined(self._pools(embeddings=True), count, room)
        for name, ensemble in ensembles.items():
            start = time.perf_counter()
            scores = np.full((count, self.target.n_classes), np.nan, np.float32)
            scores[readable] = ensemble.combine(whole)
            yield name, scores, time.perf_counter() - start

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
        head, pools = self.target.adapted(self._head), []
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


class Scorer:
    """Metrics of methods over the same samples.

    labels: (sample,). singles: what each backbone predicts on its own. images: what the samples
    show. Those that count have a label and a prediction of every backbone, so they are the same for
    every method: `rows`.
    """

    def __init__(
        self, labels: Labels, singles: Mapping[str, Judged], classes: int, images: Images
    ) -> None:
        self.singles, self.classes = singles, classes
        readable = [judged.prediction != NO_PREDICTION for judged in singles.values()]
        self.rows = np.flatnonzero((labels >= 0) & np.logical_and.reduce(readable))
        self.n = len(self.rows)
        self._labels = labels[self.rows]
        self.images = images.take(self.rows)

    def is_right(self, judged: Judged) -> Right:
        right: Right = judged.prediction[self.rows] == self._labels
        return right

    @cached_property
    def right(self) -> dict[str, Right]:
        """Where each backbone is right."""
        return {name: self.is_right(judged) for name, judged in self.singles.items()}

    @cached_property
    def best(self) -> Right:
        """The backbone with the highest accuracy on these very samples, the first of equals."""
        return max(self.right.values(), key=lambda right: int(right.sum()))

    @cached_property
    def anyone(self) -> Right:
        """Whether any backbone is right."""
        return np.asarray(np.logical_or.reduce([*self.right.values()]))

    def metrics(self, judged: Judged, *, probabilities: bool = True) -> Iterator[Measured]:
        """acc1, mean_per_class_recall; from probabilities also nll, brier, ece and ece_floor.

        Other backbones matter only in that they decide which samples count.
        """
        right, predicted = self.is_right(judged), judged.prediction[self.rows]
        yield from accuracies(predicted, self._labels, self.classes, self.images)
        if not probabilities:
            return
        nll, brier, confidence = (values[self.rows] for values in judged[1:])
        for metric, losses in (("nll", nll), ("brier", brier)):
            yield Measured(metric, mean(losses), mean_loss_interval(losses, right, self.images))
        ece = expected_calibration_error(confidence, right)
        yield Measured("ece", ece)  # too high by chance, of which no interval knows
        yield Measured("ece_floor", calibration_floor(confidence))

    def ensemble(
        self, judged: Judged, chosen: Right | None = None, *, probabilities: bool = True
    ) -> Iterator[Measured]:
        """`metrics` of an ensemble, and its gains in accuracy, as fractions.

        gain: over `chosen`, the backbone that was best on the support. gain_over_best_on_test: over
        the best single backbone of these samples (the paper's reference, which was chosen on what
        it is measured on). relative_gain_over_best_on_test: the same divided by its accuracy.
        """
        yield from self.metrics(judged, probabilities=probabilities)
        right = self.is_right(judged)
        yield gain(OVER_BEST_ON_TEST, right, self.best[None], self.images)
        yield relative_gain(right, self.best, self.images)
        yield from self.over_chosen(right, chosen)

    def over_chosen(self, right: Right, chosen: Right | None) -> Iterator[Measured]:
        """gain, if a backbone was chosen, and how it would go with error inconsistency by chance.

        Both are means over the same images, so that over datasets that do not differ at all they
        correlate as their parts do over images.
        """
        if chosen is not None:
            yield gain("gain", right, chosen[None], self.images)
            value = pearson(self._uneven, right.astype(np.int8) - chosen).value
            if not isnan(value):
                yield estimate(IF_ALIKE, value, self.n)

    def oracle(self) -> Iterator[Measured]:
        """Accuracy and gains of the oracle, and acc1_independent: its accuracy if errors were
        independent within each class.
        """
        yield from oracle_numbers(np.stack([*self.right.values()]), self._labels, self.images)
        yield relative_gain(self.anyone, self.best, self.images)

    def diversity(self) -> Iterator[Measured]:
        """How differently the backbones predict: means over all pairs of them.

        disagreement: share of samples with two different predictions. error_inconsistency: share
        of which exactly one is right (the likely measure of the paper, section 2).
        """
        predicted = [judged.prediction[self.rows] for judged in self.singles.values()]
        yield mean_share("disagreement", _differing(predicted), self.images)
        yield mean_share("error_inconsistency", self._uneven, self.images)

    @cached_property
    def _uneven(self) -> Floats:
        """(counted sample,) share of the pairs of backbones of which exactly one is right."""
        return _differing([*self.right.values()])


def _differing(values: Sequence[Array]) -> Floats:
    """(method, sample) -> (sample,): share of the pairs of methods that differ; NaN for one."""
    first, second = np.triu_indices(len(values), 1)
    if not len(first):
        return np.full(len(values[0]), np.nan, np.float32)
    rows = np.stack(values)
    return np.asarray((rows[first] != rows[second]).mean(axis=0, dtype=np.float32))

"""A head and ensembles on top of it: fitted on the support, then shown a target.

`fit_methods` gets the support alone, and `predict` shows the targets to what is fitted, so that
labels of a target cannot reach a fit.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn import __version__
from clipsyn.ensembles import ENSEMBLES
from clipsyn.ensembles.base import Ensemble
from clipsyn.estimator import from_text
from clipsyn.heads import HEADS
from clipsyn.heads.base import Head
from clipsyn.numerics.metrics import Judged, join, judge
from clipsyn.pool import Pool
from clipsyn.store.pools import PoolReader

ORACLE = "oracle"
CHOSEN = "best-single"  # the backbone that is best on the support, which gains are over


class Method(NamedTuple):
    """A fitted ensemble and the seconds it took."""

    ensemble: Ensemble
    seconds: float


class FittedMethods(NamedTuple):
    """A head and the ensembles on top of it, fitted on the same support."""

    head: Head
    methods: dict[str, Method]
    chosen: str | None  # the backbone that was best on the support
    seconds: float  # of the head
    n: int  # samples learned from


class Verdict(NamedTuple):
    """What every backbone, and every ensemble, predicts for a target."""

    labels: NDArray[np.int32]
    singles: dict[str, Judged]
    ensembles: dict[str, Judged]
    seconds: dict[str, float]  # to predict: by ensemble


@dataclass(frozen=True)
class Target:
    """Samples to be judged on: a split under a perturbation, or some of its classes."""

    reader: PoolReader
    classes: str = "all"
    subset: Sequence[int] | None = None

    def blocks(self) -> Iterator[Pool]:
        for block in self.reader.blocks():
            yield block if self.subset is None else block.of_classes(self.subset)

    @property
    def n_classes(self) -> int:
        names = self.reader.samples.class_names
        return len(names if self.subset is None else self.subset)


@cache
def versions(head: str, ensemble: str | None) -> list[str]:
    """Versions of clipsyn, and of other packages that the head or the ensemble come from."""
    names = (
        (registry, text.partition(":")[0])
        for registry, text in ((HEADS, head), (ENSEMBLES, ensemble or ORACLE))
    )
    return [__version__, *filter(None, (registry.package(name) for registry, name in names))]


def learns(head: str, name: str | None) -> bool:
    """Whether a method learns from labelled samples."""
    return any(estimator.learns for estimator in _parts(head, name))


def is_random(head: str, name: str | None) -> bool:
    """Whether a seed changes a method that is fitted on the whole support."""
    pairs = zip(_parts(head, name, 0), _parts(head, name, 1), strict=True)
    return any(one.get_params() != other.get_params() for one, other in pairs)


def _parts(head: str, name: str | None, seed: int | None = None) -> Iterator[Any]:
    yield from_text(HEADS, head, seed)
    if name is not None and name != ORACLE:
        yield from_text(ENSEMBLES, name, seed)


def fit_methods(
    support: Pool, head_text: str, ensemble_texts: Sequence[str], seed: int | None
) -> FittedMethods:
    """Fit a head on the support, and ensembles on what it says of the support.

    Raises TooFewSamples where the head cannot spare samples for a combiner.
    """
    head = from_text(HEADS, head_text, seed)
    start = time.perf_counter()
    combiner = head.fit_transform(support)
    seconds = time.perf_counter() - start
    methods = {}
    for text in ensemble_texts:
        ensemble = from_text(ENSEMBLES, text, seed)
        start = time.perf_counter()
        ensemble.fit(combiner)
        methods[text] = Method(ensemble, time.perf_counter() - start)
    return FittedMethods(head, methods, _chosen(combiner), seconds, len(support.labelled()))


def predict(fitted: FittedMethods, target: Target) -> Verdict:
    """What fitted methods predict for a target, a block of samples at a time."""
    labels: list[NDArray[np.int32]] = []
    judged: dict[tuple[str, bool], list[Judged]] = {}  # (name, is a backbone)
    seconds = dict.fromkeys(fitted.methods, 0.0)
    ensembles = {
        text: _for_classes(method.ensemble, target) for text, method in fitted.methods.items()
    }
    head = _for_classes(fitted.head, target)
    for block in target.blocks():
        start = time.perf_counter()
        pool = head.transform(block)
        head_seconds = time.perf_counter() - start
        labels.append(pool.labels)
        for column, name in enumerate(pool.backbones):
            scores = pool.logits[:, column]
            judged.setdefault((name, True), []).append(judge(scores, pool.labels))
        for text, ensemble in ensembles.items():
            start = time.perf_counter()
            scores = ensemble.combine(pool)
            seconds[text] += head_seconds + time.perf_counter() - start
            judged.setdefault((text, False), []).append(judge(scores, pool.labels))
    whole = {key: join(parts) for key, parts in judged.items()}
    return Verdict(
        np.concatenate(labels),
        {name: one for (name, single), one in whole.items() if single},
        {name: one for (name, single), one in whole.items() if not single},
        seconds,
    )


def _chosen(combiner: Pool) -> str | None:
    """The backbone that is best on the support, if there is one to choose on."""
    if not len(combiner) or len(combiner.backbones) == 1:
        return combiner.backbones[0] if len(combiner) else None
    best: str = from_text(ENSEMBLES, CHOSEN).fit(combiner).best_
    return best


def _for_classes(fitted: Any, target: Target) -> Any:
    """What is fitted, moved to the classes of a target (base-to-new)."""
    if target.subset is None:
        return fitted
    moved = copy.copy(fitted)
    moved.n_classes_ = target.n_classes
    return moved

"""The stages of a cascade: an ensemble for each prefix of the backbones, and its temperature."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.ensembles import ENSEMBLES
from clipsyn.ensembles.base import Ensemble
from clipsyn.ensembles.calibrated import fit_temperatures
from clipsyn.errors import TooFewSamples
from clipsyn.estimator import from_text
from clipsyn.metrics import judge
from clipsyn.pool import Pool

FOLDS = 5
_SMALL = 1 << 25  # numbers in all embeddings of a support: 64 MB as they are stored
_T = TypeVar("_T")


class Stage(NamedTuple):
    ensemble: Ensemble
    temperature: float  # its scores are divided by this before the softmax


class Seen(NamedTuple):
    """What the stages of a cascade say of labelled samples."""

    confidence: NDArray[np.float32]  # (stage, sample) calibrated
    correct: NDArray[np.bool_]  # (stage, sample)


def prefixes(pool: Pool, order: Sequence[str]) -> list[Pool]:
    """The pool with the first backbone, the first two, … and all of them."""
    return [pool.of_backbones(order[:count]) for count in range(1, len(order) + 1)]


def fit_stages(text: str, pools: Sequence[Pool], seed: int) -> tuple[list[Stage], Seen]:
    """One ensemble for each prefix of the support, fitted on all of it; what they say of it.

    pools: see `prefixes`, all labelled. Temperatures, and what is returned as seen, are of scores
    that an ensemble gives samples it has not been fitted on (`FOLDS` folds): those of its own
    support would be too sure. An ensemble that learns nothing needs no folds.
    Raises LeakError for the test split.
    """

    def fit(pool: Pool) -> tuple[Stage, Seen]:
        ensemble = _fitted(text, pool, seed)
        scores = _unseen_scores(text, ensemble, pool, seed)
        temperature = float(fit_temperatures(scores[:, None], pool.labels)[0])
        return Stage(ensemble, temperature), _judged(scores, temperature, pool)

    stages, seen = zip(*_side_by_side(fit, pools), strict=True)
    return list(stages), _stacked(seen)


def watch(stages: Sequence[Stage], pools: Sequence[Pool]) -> Seen:
    """What fitted stages say of other samples; pools: see `prefixes`, all labelled."""
    return _stacked(
        [
            _judged(stage.ensemble.combine(pool), stage.temperature, pool)
            for stage, pool in zip(stages, pools, strict=True)
        ]
    )


def folds(labels: NDArray[np.int32], count: int = FOLDS) -> Iterator[NDArray[np.bool_]]:
    """(sample,) whether it is held out, fold by fold; each sample is once.

    The samples of a class go to one fold after the other, and so do those of small classes.
    """
    number = np.empty(len(labels), np.intp)
    number[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % count
    for fold in range(min(count, len(labels))):
        yield number == fold


def _side_by_side(fit: Callable[[Pool], _T], pools: Sequence[Pool]) -> list[_T]:
    """fit(pool) of each, by all cores at once where the pools are small.

    The threads that share a small product spend most of their time waiting for each other.
    """
    values = sum(array.size for array in pools[-1].embeddings.values())
    if values > _SMALL:
        return [fit(pool) for pool in pools]
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(fit, reversed(pools)))[::-1]  # the largest takes longest


def _fitted(text: str, pool: Pool, seed: int) -> Ensemble:
    ensemble: Ensemble = from_text(ENSEMBLES, text)
    if "random_state" in ensemble.get_params():
        ensemble.set_params(random_state=seed)
    return ensemble.fit(pool)


def _unseen_scores(text: str, ensemble: Ensemble, pool: Pool, seed: int) -> NDArray[np.float32]:
    """(sample, class) scores of each sample from an ensemble that was not fitted on it."""
    if not ensemble.learns or len(pool.backbones) == 1:
        return ensemble.combine(pool)
    if len(pool) < 2:
        raise TooFewSamples(
            f"a cascade of {text} needs at least two labelled samples of {pool.dataset}/"
            f"{pool.split}, to be calibrated on others than it is fitted on"
        )
    scores = np.empty((len(pool), pool.n_classes), np.float32)
    for held in folds(pool.labels):
        part = _fitted(text, pool.take(np.flatnonzero(~held)), seed)
        scores[held] = part.combine(pool.take(np.flatnonzero(held)))
    return scores


def _judged(scores: NDArray[np.float32], temperature: float, pool: Pool) -> Seen:
    judged = judge(scores / np.float32(temperature), pool.labels)
    return Seen(judged.confidence, judged.prediction == pool.labels)


def _stacked(stages: Sequence[Seen]) -> Seen:
    return Seen(
        np.stack([stage.confidence for stage in stages]),
        np.stack([stage.correct for stage in stages]),
    )

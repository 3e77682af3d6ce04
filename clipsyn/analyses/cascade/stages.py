"""What can stand at the end of a cascade: an ensemble of some backbones, and its temperature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.cascade import PLAIN
from clipsyn.ensembles import ENSEMBLES
from clipsyn.ensembles.base import Ensemble
from clipsyn.ensembles.calibrated import fit_temperatures
from clipsyn.errors import TooFewSamples, UsageError
from clipsyn.estimator import from_text
from clipsyn.numerics.blocks import usable_cores, work_alone
from clipsyn.numerics.metrics import judge
from clipsyn.pool import Pool

MASKED = "masked-"  # before the name of an ensemble: one for all stages
MASKABLE = ("moe", "nlc", "residual-router", "super-learner")  # weighted sums fitted by their loss
FOLDS = 5
_SMALL = 1 << 25  # numbers in all embeddings of a support: 64 MB as they are stored
_T = TypeVar("_T")
_R = TypeVar("_R")


class Candidate(NamedTuple):
    ensemble: str | None  # NAME, NAME:parameter=value, masked-NAME; None for a backbone on its own
    backbones: tuple[str, ...]


class Stage(NamedTuple):
    ensemble: Ensemble
    temperature: float  # its scores are divided by this before the softmax


class Seen(NamedTuple):
    """What a stage says of labelled samples."""

    confidence: NDArray[np.float32]  # (sample,) calibrated
    correct: NDArray[np.bool_]  # (sample,)


def make_ensemble(text: str, seed: int | None = None) -> Ensemble:
    """The ensemble of a candidate, not fitted; raises UsageError for what cannot be masked.

    seed: as in `from_text`.
    """
    name = text.removeprefix(MASKED)
    if name != text and name.partition(":")[0] not in MASKABLE:
        raise UsageError(
            f"'{text}': an ensemble can be fitted with masked backbones if it is one of "
            f"{', '.join(MASKABLE)}"
        )
    ensemble: Ensemble = from_text(ENSEMBLES, name, seed)
    return ensemble


def fit_stages(
    candidates: Iterable[Candidate], pool: Pool, seed: int
) -> tuple[dict[Candidate, Stage], dict[Candidate, Seen]]:
    """Every candidate, fitted on all of the support `pool`, and what it says of it.

    Temperatures, and what is returned as seen, are of scores that an ensemble gives samples it has
    not been fitted on (`FOLDS` folds): those of its own support would be too sure. An ensemble
    that learns nothing needs no folds. Raises LeakError for the test split.
    """
    groups = list(_groups(candidates))
    fitted = _side_by_side(lambda group: _fit_group(group, pool, seed), groups, pool)
    found = {candidate: both for group in fitted for candidate, both in group.items()}
    return (
        {candidate: stage for candidate, (stage, _) in found.items()},
        {candidate: seen for candidate, (_, seen) in found.items()},
    )


def watch(stages: Mapping[Candidate, Stage], pool: Pool) -> dict[Candidate, Seen]:
    """What fitted candidates say of other samples, all labelled."""
    return {
        candidate: _seen(stage.ensemble.combine(view(candidate, pool)), stage.temperature, pool)
        for candidate, stage in stages.items()
    }


def view(candidate: Candidate, pool: Pool) -> Pool:
    """What a candidate sees of a pool of all backbones: its own, or all with others masked.

    Masked backbones say nothing: their logits and embeddings are 0. The logits of the k that are
    left are multiplied by B/k, so that a sum with weights 1/B is their mean.
    """
    if not _is_masked(candidate):
        return pool.of_backbones(candidate.backbones)
    there = np.array([name in candidate.backbones for name in pool.backbones])
    factor = np.where(there, len(there) / np.count_nonzero(there), 0).astype(np.float32)
    return replace(
        pool,
        logits=pool.logits * factor[:, None],
        embeddings={
            name: values if name in candidate.backbones else np.zeros_like(values)
            for name, values in pool.embeddings.items()
        },
    )


def folds(labels: NDArray[np.int32], count: int = FOLDS) -> Iterator[NDArray[np.bool_]]:
    """(sample,) whether it is held out, fold by fold; each sample is once.

    The samples of a class go to one fold after the other, and so do those of small classes.
    """
    number = np.empty(len(labels), np.intp)
    number[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % count
    for fold in range(min(count, len(labels))):
        yield number == fold


def _is_masked(candidate: Candidate) -> bool:
    return (candidate.ensemble or "").startswith(MASKED)


def _groups(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """Candidates that share one ensemble: all that are masked, every other on its own."""
    shared: dict[str | None, list[Candidate]] = {}
    for candidate in candidates:
        if _is_masked(candidate):
            shared.setdefault(candidate.ensemble, []).append(candidate)
        else:
            yield [candidate]
    yield from shared.values()


def _side_by_side(work: Callable[[_T], _R], groups: Sequence[_T], pool: Pool) -> list[_R]:
    """work(group) of each, by all cores at once where the pool is small.

    The threads that share a small product spend most of their time waiting for each other.
    """
    if sum(array.size for array in pool.embeddings.values()) > _SMALL:
        return [work(group) for group in groups]
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), ThreadPoolExecutor(usable_cores(), "", work_alone) as threads:
        return list(threads.map(work, groups))


def _fit_group(
    group: Sequence[Candidate], pool: Pool, seed: int
) -> dict[Candidate, tuple[Stage, Seen]]:
    ensemble = _fitted(group, pool, seed)
    found = {}
    for candidate, scores in zip(group, _unseen_scores(group, ensemble, pool, seed), strict=True):
        temperature = float(fit_temperatures(scores[:, None], pool.labels)[0])
        found[candidate] = Stage(ensemble, temperature), _seen(scores, temperature, pool)
    return found


def _fitted(group: Sequence[Candidate], pool: Pool, seed: int) -> Ensemble:
    """The ensemble that these candidates share, fitted on all that they see of a pool."""
    ensemble = make_ensemble(group[0].ensemble or PLAIN, seed)
    return ensemble.fit(_joined([view(candidate, pool) for candidate in group]))


def _unseen_scores(
    group: Sequence[Candidate], ensemble: Ensemble, pool: Pool, seed: int
) -> list[NDArray[np.float32]]:
    """(sample, class) of each candidate, from ensembles that were not fitted on the sample."""
    if not ensemble.learns or len(ensemble.backbones_) == 1:
        return [ensemble.combine(view(candidate, pool)) for candidate in group]
    if len(pool) < 2:
        raise TooFewSamples(
            f"a cascade of {group[0].ensemble} needs at least two labelled samples of "
            f"{pool.dataset}/{pool.split}, to be calibrated on others than it is fitted on"
        )
    scores = [np.empty((len(pool), pool.n_classes), np.float32) for _ in group]
    for held in folds(pool.labels):
        part = _fitted(group, pool.take(np.flatnonzero(~held)), seed)
        rest = pool.take(np.flatnonzero(held))
        for candidate, of in zip(group, scores, strict=True):
            of[held] = part.combine(view(candidate, rest))
    return scores


def _joined(pools: Sequence[Pool]) -> Pool:
    """The samples of several pools of the same backbones, one pool after the other."""
    first = pools[0]
    if len(pools) == 1:
        return first
    return replace(
        first,
        logits=np.concatenate([pool.logits for pool in pools]),
        labels=np.concatenate([pool.labels for pool in pools]),
        embeddings={
            name: np.concatenate([pool.embeddings[name] for pool in pools])
            for name in first.embeddings
        },
        ids=(),
    )


def _seen(scores: NDArray[np.float32], temperature: float, pool: Pool) -> Seen:
    judged = judge(scores / np.float32(temperature), pool.labels)
    return Seen(judged.confidence, judged.prediction == pool.labels)

"""What can stand at the end of a cascade: an ensemble of some backbones, and its temperature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.cascade import PLAIN, Candidate
from clipsyn.ensembles import ENSEMBLES
from clipsyn.ensembles.base import Ensemble
from clipsyn.ensembles.calibrated import fit_temperatures
from clipsyn.errors import TooFewSamples, UsageError
from clipsyn.estimator import from_text
from clipsyn.numerics.blocks import side_by_side
from clipsyn.numerics.folds import stratified_folds
from clipsyn.numerics.metrics import judge
from clipsyn.pool import Pool

MASKED = "masked-"  # before the name of an ensemble: one for all stages
FOLDS = 5
_SMALL = 1 << 25  # numbers in all embeddings of a support: 64 MB as they are stored


class Answers(NamedTuple):
    """What a candidate says of labelled samples."""

    confidence: NDArray[np.float32]  # (sample,) calibrated
    correct: NDArray[np.bool_]  # (sample,)


class FittedCandidate(NamedTuple):
    ensemble: Ensemble
    temperature: float  # its scores are divided by this before the softmax
    support: Answers  # on samples of the support that it was not fitted on


def make_ensemble(text: str, seed: int | None = None) -> Ensemble:
    """The ensemble of a candidate, not fitted; raises UsageError for what cannot be masked.

    seed: as in `from_text`.
    """
    ensemble: Ensemble = from_text(ENSEMBLES, text.removeprefix(MASKED), seed)
    if is_masked(text) and not ensemble.maskable:
        maskable = sorted(name for name in ENSEMBLES if ENSEMBLES.load(name).maskable)
        raise UsageError(
            f"'{text}': an ensemble can be fitted with masked backbones if it is one of "
            f"{', '.join(maskable)}"
        )
    return ensemble


def is_masked(text: str | None) -> bool:
    """Whether an ensemble of this name is one for all stages."""
    return text is not None and text.startswith(MASKED)


def fit_candidates(
    candidates: Iterable[Candidate], pool: Pool, seed: int
) -> dict[Candidate, FittedCandidate]:
    """Every candidate, fitted on all of the support `pool`.

    Temperatures, and the answers on the support, are from scores of samples that an ensemble was
    not fitted on (`FOLDS` folds): of those it was fitted on it would be too sure. An ensemble that
    learns nothing needs no folds. Where the pool is small, each core fits other candidates. Raises
    LeakError for the test split.
    """
    groups = list(_groups(candidates))
    if sum(array.size for array in pool.embeddings.values()) > _SMALL:
        parts = [_fit_group(group, pool, seed) for group in groups]
    else:
        parts = side_by_side(lambda group: _fit_group(group, pool, seed), groups)
    return {candidate: fitted for part in parts for candidate, fitted in part.items()}


def answer(fitted: Mapping[Candidate, FittedCandidate], pool: Pool) -> dict[Candidate, Answers]:
    """What fitted candidates say of other labelled samples."""
    return {
        candidate: _answers(it.ensemble.combine(view(candidate, pool)), it.temperature, pool)
        for candidate, it in fitted.items()
    }


def view(candidate: Candidate, pool: Pool) -> Pool:
    """What a candidate sees of a pool of all backbones: its own, or all with others masked.

    Masked backbones say nothing: their logits and embeddings are 0. The logits of the k that are
    left are multiplied by B/k, so that a sum with weights 1/B is their mean.
    """
    if not is_masked(candidate.ensemble):
        return pool.of_backbones(sorted(candidate.backbones))  # as ensembles order them
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


def _groups(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """Candidates that share one ensemble: all that are masked, every other on its own."""
    shared: dict[str | None, list[Candidate]] = {}
    for candidate in candidates:
        if is_masked(candidate.ensemble):
            shared.setdefault(candidate.ensemble, []).append(candidate)
        else:
            yield [candidate]
    yield from shared.values()


def _fit_group(
    group: Sequence[Candidate], pool: Pool, seed: int
) -> dict[Candidate, FittedCandidate]:
    ensemble = _fit_ensemble(group, pool, seed)
    fitted = {}
    for candidate, scores in zip(group, _unseen_scores(group, ensemble, pool, seed), strict=True):
        temperature = float(fit_temperatures(scores[:, None], pool.labels)[0])
        answers = _answers(scores, temperature, pool)
        fitted[candidate] = FittedCandidate(ensemble, temperature, answers)
    return fitted


def _fit_ensemble(group: Sequence[Candidate], pool: Pool, seed: int) -> Ensemble:
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
    every_scores = [np.empty((len(pool), pool.n_classes), np.float32) for _ in group]
    for held in stratified_folds(pool.labels, FOLDS):
        part = _fit_ensemble(group, pool.take(np.flatnonzero(~held)), seed)
        rest = pool.take(np.flatnonzero(held))
        for candidate, scores in zip(group, every_scores, strict=True):
            scores[held] = part.combine(view(candidate, rest))
    return every_scores


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


def _answers(scores: NDArray[np.float32], temperature: float, pool: Pool) -> Answers:
    judged = judge(scores / np.float32(temperature), pool.labels)
    return Answers(judged.confidence, judged.prediction == pool.labels)

"""What can stand at the end of a cascade: an ensemble of some backbones, and its temperature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.cascade import PLAIN, Candidate
from clipsyn.analyses.support import make_ensemble, unseen_scores
from clipsyn.ensembles.base import Ensemble
from clipsyn.ensembles.calibrated import fit_temperatures
from clipsyn.numerics.blocks import side_by_side
from clipsyn.numerics.metrics import judge
from clipsyn.pool import Pool

_SMALL = 1 << 25  # numbers in all embeddings of a support: 64 MB as they are stored


class Answers(NamedTuple):
    """What a candidate says of labelled samples."""

    confidence: NDArray[np.float32]  # (sample,) calibrated
    correct: NDArray[np.bool_]  # (sample,)


class FittedCandidate(NamedTuple):
    ensemble: Ensemble
    temperature: float  # its scores are divided by this before the softmax
    support: Answers  # on samples of the support that it was not fitted on


def fit_candidates(
    candidates: Iterable[Candidate], pool: Pool, seed: int
) -> dict[Candidate, FittedCandidate]:
    """Every candidate, fitted on all of the support `pool`.

    Temperatures, and the answers on the support, are from `unseen_scores`. Where the pool is small,
    each core fits other candidates. Raises LeakError for the test split.
    """
    every = list(candidates)
    small = sum(array.size for array in pool.embeddings.values()) <= _SMALL
    fits = (side_by_side if small else map)(lambda one: _fit(one, pool, seed), every)
    return dict(zip(every, fits, strict=True))


def answer(fitted: Mapping[Candidate, FittedCandidate], pool: Pool) -> dict[Candidate, Answers]:
    """What fitted candidates say of other labelled samples."""
    return {
        candidate: _answers(it.ensemble.combine(_seen(candidate, pool)), it.temperature, pool)
        for candidate, it in fitted.items()
    }


def _seen(candidate: Candidate, pool: Pool) -> Pool:
    """What a candidate sees of a pool of all backbones, as ensembles order them."""
    return pool.of_backbones(sorted(candidate.backbones))


def _fit(candidate: Candidate, pool: Pool, seed: int) -> FittedCandidate:
    seen = _seen(candidate, pool)
    ensemble = make_ensemble(candidate.ensemble or PLAIN, seed).fit(seen)
    scores = unseen_scores(ensemble, seen)
    temperature = float(fit_temperatures(scores[:, None], pool.labels)[0])
    return FittedCandidate(ensemble, temperature, _answers(scores, temperature, pool))


def _answers(scores: NDArray[np.float32], temperature: float, pool: Pool) -> Answers:
    judged = judge(scores / np.float32(temperature), pool.labels)
    return Answers(judged.confidence, judged.prediction == pool.labels)

"""What a cascade is made of and compared with: fitted, calibrated, and what of it is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.cascade import PLAIN, Candidate
from clipsyn.analyses.cascade.measures import average_predictions
from clipsyn.analyses.support import make_ensemble, unseen_scores
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.ensembles.calibrated import fit_temperatures
from clipsyn.methods.numerics.blocks import side_by_side
from clipsyn.methods.numerics.metrics import judge
from clipsyn.methods.pool import Pool
from clipsyn.store.pools import PoolReader

MOST_FOR_SUBSETS = 9  # backbones, of which there are 511 subsets
_SMALL = 1 << 25  # numbers in all embeddings of a support: 64 MB as they are stored


class Answers(NamedTuple):
    """What a candidate says of labelled samples."""

    confidence: NDArray[np.float32]  # (sample,) calibrated
    correct: NDArray[np.bool_]  # (sample,)


class FittedCandidate(NamedTuple):
    ensemble: Ensemble
    temperature: float  # its scores are divided by this before the softmax
    support: Answers  # on samples of the support that it was not fitted on


@dataclass(frozen=True)
class Evaluation:
    """What every backbone and ensemble gets right of some labelled samples."""

    answers: dict[Candidate, Answers]  # of those that were fitted
    averages: dict[Candidate, NDArray[np.bool_]]  # see `averages`

    @cached_property
    def correct(self) -> dict[Candidate, NDArray[np.bool_]]:
        """(sample,) of every candidate."""
        fitted = {candidate: answers.correct for candidate, answers in self.answers.items()}
        return fitted | self.averages

    def along(
        self, text: str, order: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Confidence and correctness (stage, sample) at the stages of a cascade."""
        stages = [self.answers[candidate] for candidate in stages_of(text, order)]
        return np.stack([it.confidence for it in stages]), np.stack([it.correct for it in stages])


def evaluate(
    fitted: Mapping[Candidate, FittedCandidate], order: Sequence[str], reader: PoolReader
) -> Evaluation:
    """What all candidates get right of the labelled samples of some cells, read in blocks."""
    embeddings = any(it.ensemble.needs_embeddings for it in fitted.values())
    pools = (block.labelled() for block in reader.blocks(embeddings=embeddings))
    parts = [(answer(fitted, pool), averages(pool, order)) for pool in pools]
    answers = {}
    for candidate in fitted:
        pairs = zip(*(part[candidate] for part, _ in parts), strict=True)
        answers[candidate] = Answers(*(np.concatenate(blocks) for blocks in pairs))
    plain = _subsets(PLAIN, order)
    return Evaluation(
        answers, {it: np.concatenate([part[it] for _, part in parts]) for it in plain}
    )


def candidates(order: Sequence[str], ensembles: Sequence[str]) -> list[Candidate]:
    """Each backbone on its own, the stages of each cascade, and ensembles of other subsets.

    Up to `MOST_FOR_SUBSETS` backbones, an ensemble with nothing to fit is there for every subset.
    The plain average is there for the stages alone: `averages` has it for other subsets.
    """
    every = [Candidate.single(name) for name in order]
    for text in ensembles:
        every += stages_of(text, order)
        if text != PLAIN and not make_ensemble(text).learns:
            every += _subsets(text, order)
    return list(dict.fromkeys(every))


def stages_of(text: str, order: Sequence[str]) -> list[Candidate]:
    """The stages of a cascade: the first backbone on its own, then an ensemble of the first k."""
    first = Candidate(None, tuple(order[:1]))
    return [first, *(Candidate(text, tuple(order[:k])) for k in range(2, len(order) + 1))]


def averages(pool: Pool, order: Sequence[str]) -> dict[Candidate, NDArray[np.bool_]]:
    """(sample,) what the plain average of each subset that is no stage gets right."""
    subsets = list(_subsets(PLAIN, order))
    if not subsets:
        return {}
    bits = {name: 1 << column for column, name in enumerate(pool.backbones)}
    right = average_predictions(pool.logits) == pool.labels
    return {it: right[sum(bits[name] for name in it.backbones)] for it in subsets}


def _subsets(text: str, order: Sequence[str]) -> Iterator[Candidate]:
    """An ensemble of each subset of two or more backbones that is no stage of a cascade."""
    if len(order) <= MOST_FOR_SUBSETS:
        for size in range(2, len(order)):
            for names in combinations(order, size):
                if names != tuple(order[:size]):
                    yield Candidate(text, names)


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

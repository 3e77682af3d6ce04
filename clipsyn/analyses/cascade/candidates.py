"""What a cascade is made of and compared with, and what of it is right on labelled samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.cascade import PLAIN, Candidate
from clipsyn.analyses.cascade.measures import average_predictions
from clipsyn.analyses.cascade.stages import Answers, FittedCandidate, answer
from clipsyn.analyses.support import make_ensemble
from clipsyn.pool import Pool
from clipsyn.store.pools import PoolReader

MOST_FOR_SUBSETS = 9  # backbones, of which there are 511 subsets


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

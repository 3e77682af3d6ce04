"""What stands at the stages of cascades, and what it says of a pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from clipsyn.analyses.cascade import ABC, CascadeSettings
from clipsyn.analyses.cascade.measures import average_predictions
from clipsyn.analyses.fitted import Candidate, Said, Scores
from clipsyn.methods.ensembles import PLAIN
from clipsyn.methods.ensembles.base import VoteTop1
from clipsyn.methods.numerics import Array
from clipsyn.methods.numerics.metrics import judge
from clipsyn.methods.pool import Pool

MOST_FOR_SUBSETS = 9  # backbones, of which there are 511 subsets


def candidates(order: Sequence[str], ensembles: Sequence[str]) -> list[Candidate]:
    """Each backbone on its own, and the stages of each cascade."""
    every = [Candidate.single(name) for name in order]
    return list(dict.fromkeys([*every, *(it for text in ensembles for it in stages(text, order))]))


def stages(text: str, order: Sequence[str]) -> list[Candidate]:
    """The stages of a cascade: the first backbone on its own, then an ensemble of the first k."""
    later = (Candidate(text, tuple(order[:k])) for k in range(2, len(order) + 1))
    return [Candidate.single(order[0]), *later]


def averages(pool: Pool, order: Sequence[str]) -> dict[Candidate, Said]:
    """What the plain average of each subset that is no stage gets right."""
    if len(order) > MOST_FOR_SUBSETS:
        return {}
    subsets = (names for size in range(2, len(order)) for names in combinations(order, size))
    bits = {name: 1 << column for column, name in enumerate(pool.backbones)}
    right = average_predictions(pool.logits) == pool.labels
    return {
        Candidate(PLAIN, names): {"correct": right[sum(bits[name] for name in names)]}
        for names in subsets
        if names != tuple(order[: len(names)])
    }


def unfitted(pool: Pool, order: Sequence[str], settings: CascadeSettings) -> dict[Candidate, Said]:
    """What no support decides: `averages`, and the `votes` of tiers if they are asked for."""
    said = averages(pool, order)
    return said | votes(pool, order, settings.tier) if settings.agreement else said


def tiers(order: Sequence[str], size: int) -> list[Candidate]:
    """The stages of abc: `size` backbones each, the last with those that are left."""
    return [
        Candidate(ABC, tuple(order[first : first + size])) for first in range(0, len(order), size)
    ]


def votes(pool: Pool, order: Sequence[str], size: int) -> dict[Candidate, Said]:
    """What each tier votes for, ties as in `VoteTop1`, and the share of its votes for that.

    Shares are rounded up to hundredths, so that two of three are 0.67.
    """
    said = {}
    for tier in tiers(order, size):
        part = pool.of_backbones(sorted(tier.backbones))
        winner = VoteTop1().predict(part)
        equal = (part.logits.argmax(axis=2) == winner[:, None]).sum(axis=1)
        share = np.ceil(100 * equal / len(tier.backbones)) / 100
        said[tier] = {"correct": winner == pool.labels, "confidence": share}
    return said


def along(said: Mapping[Candidate, Said], stages: Sequence[Candidate]) -> list[Array]:
    """Confidence and correctness (stage, sample) at the stages of a cascade."""
    every = [said[stage] for stage in stages]
    return [np.stack([of[name] for of in every]) for name in ("confidence", "correct")]


def said_of(scores: Scores, pool: Pool, temperature: float) -> Said:
    """What is right, and with which calibrated confidence it is said."""
    judged = judge(scores / np.float32(temperature), pool.labels)
    return {"correct": judged.prediction == pool.labels, "confidence": judged.confidence}

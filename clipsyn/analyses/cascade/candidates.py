"""What a cascade is made of and compared with, and what is chosen for it, on the support."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.cascade import PLAIN, CascadeSettings
from clipsyn.analyses.cascade.costs import spent
from clipsyn.analyses.cascade.measures import average_predictions, smallest_threshold
from clipsyn.analyses.cascade.stages import (
    MASKED,
    Candidate,
    Seen,
    Stage,
    fit_stages,
    make_ensemble,
    watch,
)
from clipsyn.analyses.predicted import Predicted
from clipsyn.ensembles import ENSEMBLES
from clipsyn.errors import DatasetError, UsageError
from clipsyn.estimator import from_text
from clipsyn.numerics.fewshot import few_shot
from clipsyn.pool import Pool
from clipsyn.settings import images_of
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import matching

MOST_FOR_SUBSETS = 9  # backbones, of which there are 511 subsets


@dataclass(frozen=True)
class Outcome:
    """What is seen of labelled samples."""

    seen: dict[Candidate, Seen]
    averages: dict[Candidate, NDArray[np.bool_]]  # see `averages`

    @cached_property
    def correct(self) -> dict[Candidate, NDArray[np.bool_]]:
        """(sample,) of everything there is."""
        return {candidate: one.correct for candidate, one in self.seen.items()} | self.averages


@dataclass(frozen=True)
class Fitted:
    """Everything that is learned from, and chosen on, the support of one dataset."""

    order: tuple[str, ...]
    gflops: NDArray[np.float64]  # (stage,) of each backbone in that order
    stages: dict[Candidate, Stage]
    support: Outcome
    thresholds: dict[str, float]  # by ensemble: the one within reach of the full ensemble
    reader: PoolReader
    rows: str  # digest of the samples learned from


def fit(group: Predicted, settings: CascadeSettings) -> Fitted:
    """Order the backbones, and fit every candidate, on the support."""
    reader, rows, pool = _support(group, settings)
    gflops = {key.backbone: spent(group.store, key, settings.costs).gflops for key in group.keys}
    order = backbone_order(pool, gflops, settings)
    every = candidates(order, settings.ensembles, settings.all_subsets)
    stages, seen = fit_stages(every, pool, settings.seed)
    return Fitted(
        order,
        np.array([gflops[name] for name in order]),
        stages,
        Outcome(seen, averages(pool, order)),
        {
            text: smallest_threshold(*along(seen, text, order), settings.within_points / 100)
            for text in settings.ensembles
        },
        reader,
        hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
    )


def shown(fitted: Fitted, reader: PoolReader) -> Outcome:
    """Show the labelled samples of other cells to all that is fitted, a block at a time."""
    pools = (block.labelled() for block in reader.blocks())
    parts = [(watch(fitted.stages, pool), averages(pool, fitted.order)) for pool in pools]
    return Outcome(
        {
            candidate: Seen(
                np.concatenate([seen[candidate].confidence for seen, _ in parts]),
                np.concatenate([seen[candidate].correct for seen, _ in parts]),
            )
            for candidate in fitted.stages
        },
        {
            candidate: np.concatenate([right[candidate] for _, right in parts])
            for candidate in fitted.support.averages
        },
    )


def steps(text: str, order: Sequence[str]) -> list[Candidate]:
    """The stages of a cascade: the first backbone on its own, then an ensemble of the first k."""
    first = Candidate(None, tuple(order[:1]))
    return [first, *(Candidate(text, tuple(order[:k])) for k in range(2, len(order) + 1))]


def along(
    seen: Mapping[Candidate, Seen], text: str, order: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Confidence and correctness (stage, sample) of a cascade."""
    stages = [seen[candidate] for candidate in steps(text, order)]
    return (
        np.stack([stage.confidence for stage in stages]),
        np.stack([stage.correct for stage in stages]),
    )


def candidates(order: Sequence[str], ensembles: Sequence[str], every: bool) -> list[Candidate]:
    """Each backbone on its own, the stages of each cascade, and ensembles of other backbones.

    Of those with nothing to fit all subsets, up to `MOST_FOR_SUBSETS` backbones; with `every`
    also of those that are fitted, but not of the masked, of which there is one for all stages.
    For the plain average, see `averages`.
    """
    found = [Candidate(None, (name,)) for name in order]
    for text in ensembles:
        found += steps(text, order)
        whole = text == PLAIN or text.startswith(MASKED)
        if not whole and (every or not make_ensemble(text).learns):
            found += _subsets(text, order)
    return list(dict.fromkeys(found))


def averages(pool: Pool, order: Sequence[str]) -> dict[Candidate, NDArray[np.bool_]]:
    """(sample,) what the plain average of every subset but the prefixes gets right."""
    subsets = list(_subsets(PLAIN, order))
    if not subsets:
        return {}
    bits = {name: 1 << column for column, name in enumerate(pool.backbones)}
    right = average_predictions(pool.logits) == pool.labels
    return {
        candidate: right[sum(bits[name] for name in candidate.backbones)] for candidate in subsets
    }


def backbone_order(
    pool: Pool, gflops: Mapping[str, float], settings: CascadeSettings
) -> tuple[str, ...]:
    """The order in which a cascade runs the backbones of a support pool.

    Equal costs are in order of their names. "greedy": next is always the backbone with the largest
    gain in accuracy per GFLOP for the average of the logits; where none gains anything, the one
    that loses least. Equals are in order of cost.
    """
    by_cost = sorted(pool.backbones, key=lambda name: (gflops[name], name))
    if settings.order == "cost":
        return tuple(by_cost)
    if settings.order == "given":
        wanted = (
            name for term in settings.backbones or () for name in matching(term, pool.backbones)
        )
        return tuple(dict.fromkeys(wanted))
    chosen: list[str] = []
    reached = 0.0
    plain = from_text(ENSEMBLES, PLAIN)
    while left := [name for name in by_cost if name not in chosen]:
        found = {name: plain.score(pool.of_backbones([*chosen, name])) for name in left}
        value = {
            name: _per_cost(accuracy - reached, gflops[name]) for name, accuracy in found.items()
        }
        chosen.append(max(left, key=value.__getitem__))  # the first of equals
        reached = found[chosen[-1]]
    return tuple(chosen)


def _per_cost(gain: float, gflops: float) -> float:
    if gain <= 0:  # divided by the cost, a loss would look the smaller the more it costs
        return gain
    return gain / gflops if gflops else math.inf


def _subsets(text: str, order: Sequence[str]) -> Iterator[Candidate]:
    if len(order) <= MOST_FOR_SUBSETS:
        for size in range(2, len(order)):
            for names in combinations(order, size):
                if names != tuple(order[:size]):
                    yield Candidate(text, names)


def _support(
    group: Predicted, settings: CascadeSettings
) -> tuple[PoolReader, NDArray[np.intp], Pool]:
    """The support of one dataset: where from, which rows, and what can be learned from of them."""
    where = f"{group.samples.dataset}/{settings.support}"
    if len(group.backbones) < 2:
        raise UsageError(
            f"a cascade needs at least two backbones, and {group.samples.dataset}/"
            f"{group.samples.split} has {group.backbones[0]} alone: name more with backbones=…, "
            "or extract them"
        )
    reader = PoolReader(
        group.store,
        group.samples.dataset,
        settings.support,
        backbones=group.backbones,
        prompts=group.prompts,
    )
    rows = few_shot(reader.samples.labels, images_of(settings.shots), settings.seed)
    pool = reader.read(rows).labelled()
    if not len(pool):
        raise DatasetError(
            f"{where} has no labelled, readable image, so no threshold can be chosen: give "
            "another support=…"
        )
    return reader, rows, pool

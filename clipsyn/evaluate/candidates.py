"""What a cascade is compared with, and all that is fitted and chosen for it, on the support."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from clipsyn.analysis.cascade import smallest_threshold
from clipsyn.ensembles import ENSEMBLES
from clipsyn.errors import DatasetError
from clipsyn.estimator import from_text
from clipsyn.evaluate.costs import spent
from clipsyn.evaluate.predicted import Predicted
from clipsyn.evaluate.stages import Seen, Stage, fit_stages, prefixes, watch
from clipsyn.fewshot import few_shot
from clipsyn.pool import Pool
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import matching

PLAIN = "log-avg"  # the ensemble of the original cascade, always beside the others
MOST_FOR_SUBSETS = 9  # backbones, of which there are 511 subsets
Point = tuple[str | None, tuple[str, ...]]  # ensemble, backbones; no ensemble for a single one


@dataclass(frozen=True)
class Settings:
    """How cascades are made; see `cascade`."""

    ensembles: tuple[str, ...]
    order: str
    given: tuple[str, ...]  # backbones, or patterns, in the order wanted
    thresholds: tuple[float, ...]
    within: float
    costs: Mapping[str, float]
    support: str
    shots: int | None
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Which samples cascades and fixed choices get right, and how sure the cascades are."""

    cascades: dict[str, Seen]  # by ensemble
    points: dict[Point, NDArray[np.bool_]]  # (sample,)


@dataclass(frozen=True)
class Fitted:
    """Everything that is learned from, and chosen on, the support of one dataset."""

    order: tuple[str, ...]
    gflops: NDArray[np.float64]  # (stage,) of each backbone in that order
    stages: dict[str, list[Stage]]  # by ensemble
    subsets: tuple[Point, ...]  # beside prefixes and backbones on their own
    support: Outcome
    thresholds: dict[str, float]  # by ensemble: the one within reach of the full ensemble
    reader: PoolReader
    rows: str  # digest of the samples learned from


def fit(group: Predicted, settings: Settings) -> Fitted:
    """Order the backbones, fit every stage, and look at every fixed choice, on the support."""
    dataset = group.samples.dataset
    reader = PoolReader(
        group.store,
        dataset,
        settings.support,
        backbones=group.backbones,
        prompts=group.prompts,
    )
    rows = few_shot(reader.samples.labels, settings.shots, settings.seed)
    pool = reader.read(rows).labelled()
    if not len(pool):
        raise DatasetError(
            f"{dataset}/{settings.support} has no labelled, readable image, so no threshold can be "
            "chosen: give another --support"
        )
    gflops = {key.backbone: spent(group.store, key, settings.costs).gflops for key in group.keys}
    order = backbone_order(pool, gflops, settings)
    stages, seen = {}, {}
    for text in settings.ensembles:
        stages[text], seen[text] = fit_stages(text, prefixes(pool, order), settings.seed)
    subsets = tuple(_subsets(order, settings.ensembles))
    return Fitted(
        order,
        np.array([gflops[name] for name in order]),
        stages,
        subsets,
        Outcome(seen, _points(pool, order, seen, subsets)),
        {text: smallest_threshold(*one, settings.within) for text, one in seen.items()},
        reader,
        hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
    )


def backbone_order(pool: Pool, gflops: Mapping[str, float], settings: Settings) -> tuple[str, ...]:
    """The order in which a cascade runs the backbones of a support pool.

    Equal costs are in order of their names. "greedy": next is always the backbone with the largest
    gain in accuracy per GFLOP for the average of the logits; where none gains anything, the one
    that loses least. Equals are in order of cost.
    """
    by_cost = sorted(pool.backbones, key=lambda name: (gflops[name], name))
    if settings.order == "cost":
        return tuple(by_cost)
    if settings.order == "given":
        wanted = (name for term in settings.given for name in matching(term, pool.backbones))
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


def _subsets(order: Sequence[str], ensembles: Sequence[str]) -> Iterator[Point]:
    """Of two and more backbones but the prefixes, for every ensemble with nothing to fit."""
    if len(order) > MOST_FOR_SUBSETS:
        return
    for text in ensembles:
        if from_text(ENSEMBLES, text).learns:
            continue
        for size in range(2, len(order)):
            for names in combinations(order, size):
                if names != tuple(order[:size]):
                    yield text, names


def _points(
    pool: Pool, order: Sequence[str], seen: Mapping[str, Seen], subsets: Sequence[Point]
) -> dict[Point, NDArray[np.bool_]]:
    """Which samples every fixed choice gets right: (sample,) each."""
    found: dict[Point, NDArray[np.bool_]] = {}
    for name in order:
        single = pool.logits[:, pool.backbones.index(name)]
        found[None, (name,)] = single.argmax(axis=1) == pool.labels
    for text, one in seen.items():
        for size in range(2, len(order) + 1):
            found[text, tuple(order[:size])] = one.correct[size - 1]
    for point in subsets:
        ensemble, names = from_text(ENSEMBLES, point[0] or PLAIN), sorted(point[1])
        found[point] = ensemble.predict(pool.of_backbones(names)) == pool.labels
    return found


def measure(fitted: Fitted, reader: PoolReader) -> Outcome:
    """Show labelled samples to all that is fitted, a block at a time."""
    parts = []
    for block in reader.blocks():
        pool = block.labelled()
        pools = prefixes(pool, fitted.order)
        seen = {text: watch(stages, pools) for text, stages in fitted.stages.items()}
        parts.append(Outcome(seen, _points(pool, fitted.order, seen, fitted.subsets)))
    return Outcome(
        {
            text: Seen(
                np.concatenate([part.cascades[text].confidence for part in parts], axis=1),
                np.concatenate([part.cascades[text].correct for part in parts], axis=1),
            )
            for text in fitted.stages
        },
        {
            point: np.concatenate([part.points[point] for part in parts])
            for point in parts[0].points
        },
    )

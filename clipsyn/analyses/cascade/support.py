"""What is learned from, and chosen on, the support: ensembles, order, thresholds, Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from clipsyn.analyses.cascade import GIVEN, PLAIN, WITHIN, Candidate, CascadeSettings
from clipsyn.analyses.cascade.candidates import (
    Evaluation,
    FittedCandidate,
    averages,
    candidates,
    fit_candidates,
)
from clipsyn.analyses.cascade.costs import cell_cost
from clipsyn.analyses.cascade.measures import (
    cascade_curve,
    greedy_order,
    most_accurate,
    pareto_front,
    smallest_threshold,
)
from clipsyn.analyses.predicted import Predicted
from clipsyn.analyses.support import read_support
from clipsyn.errors import UsageError
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import from_text
from clipsyn.methods.pool import Pool
from clipsyn.names import CLEAN
from clipsyn.store.select import matching


class OnSupport(NamedTuple):
    """What is known of a candidate from the support; the fields are names of metrics."""

    support_acc1: float
    support_mean_gflops: float
    front: float  # 1 for a candidate on the Pareto front of these two, else 0


@dataclass(frozen=True)
class FittedCascades:
    """Everything that is fitted and chosen on the support of one dataset."""

    settings: CascadeSettings
    gflops: dict[str, float]  # of each backbone, in the order they run
    candidates: dict[Candidate, FittedCandidate]
    support: Evaluation
    origin: Mapping[str, Any]  # which samples were learned from: see `read_support`

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(self.gflops)

    def price(self, backbones: Sequence[str]) -> float:
        """GFLOPs of an image that all of these backbones see."""
        return math.fsum(self.gflops[name] for name in backbones)

    @cached_property
    def best(self) -> str:
        """The backbone with the highest accuracy on the support, the cheapest of equals."""
        right = {name: self.support.correct[Candidate.single(name)].mean() for name in self.order}
        return most_accurate(right, self.gflops)

    @cached_property
    def cascades(self) -> dict[str, list[Candidate]]:
        """By ensemble: one for each threshold of the settings, and one for the threshold chosen."""
        within = self.settings.within_points / 100
        cascades = {}
        for text in self.settings.ensembles:
            chosen = smallest_threshold(*self.support.along(text, self.order), within)
            thresholds = [(threshold, GIVEN) for threshold in self.settings.thresholds]
            thresholds.append((chosen, WITHIN))
            cascades[text] = [Candidate(text, self.order, *threshold) for threshold in thresholds]
        return cascades

    @cached_property
    def on_support(self) -> dict[Candidate, OnSupport]:
        """For every candidate; cascades come last."""
        points = {
            candidate: (float(right.mean()), self.price(candidate.backbones))
            for candidate, right in self.support.correct.items()
        }
        gflops = np.array(list(self.gflops.values()))
        for text, cascades in self.cascades.items():
            thresholds = np.array([cascade.threshold for cascade in cascades])
            curve = cascade_curve(*self.support.along(text, self.order), gflops, thresholds)
            pairs = zip(curve.accuracy.tolist(), curve.cost.tolist(), strict=True)
            points |= zip(cascades, pairs, strict=True)
        accuracies, costs = np.array(list(points.values())).T
        front = pareto_front(costs, accuracies)
        return {
            candidate: OnSupport(*point, float(in_front))
            for (candidate, point), in_front in zip(points.items(), front, strict=True)
        }


def fit(
    group: Predicted, measured: Iterable[Predicted], settings: CascadeSettings
) -> FittedCascades:
    """Order the backbones of a group, and fit every candidate, on the support.

    measured: all of the dataset that is measured on. Raises UsageError for a single backbone or an
    unknown cost, and what `read_support` does.
    """
    if len(group.backbones) < 2:
        raise UsageError(
            f"a cascade needs at least two backbones, and {group.samples.dataset}/"
            f"{group.samples.split} has {group.backbones[0]} alone: name more with backbones=…, "
            "or extract them"
        )
    reader = group.reader(settings.support, CLEAN.label)
    pool, _, origin = read_support(reader, measured, settings)
    costs = {key.backbone: cell_cost(group.store, key, settings.costs) for key in group.keys}
    gflops = {name: cost.gflops for name, cost in costs.items()}
    order = backbone_order(pool, gflops, settings)
    every = candidates(order, settings.ensembles)
    fitted = fit_candidates(every, pool, settings.seed)
    answers = {candidate: it.support for candidate, it in fitted.items()}
    return FittedCascades(
        settings,
        {name: gflops[name] for name in order},
        fitted,
        Evaluation(answers, averages(pool, order)),
        origin,
    )


def backbone_order(
    pool: Pool, gflops: Mapping[str, float], settings: CascadeSettings
) -> tuple[str, ...]:
    """The order in which a cascade runs the backbones of a support pool.

    "cost": the cheapest first, equals by name. "greedy": see `greedy_order`, with the accuracy of
    the average of the logits. "given": as the settings name the backbones.
    """
    if settings.order == "given":
        terms = settings.backbones or ()
        return tuple(dict.fromkeys(n for term in terms for n in matching(term, pool.backbones)))
    by_cost = sorted(pool.backbones, key=lambda name: (gflops[name], name))
    if settings.order == "cost":
        return tuple(by_cost)
    plain = from_text(ENSEMBLES, PLAIN)
    return greedy_order(
        {name: gflops[name] for name in by_cost},
        lambda names: float(plain.score(pool.of_backbones(names))),
    )

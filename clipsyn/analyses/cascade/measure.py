"""Cascades of a store's backbones: accuracy against cost, beside every fixed choice of them.

Everything is fitted and chosen on the support split, and measured on others. Stage k combines the
first k backbones by an ensemble fitted for them; its confidence is the largest softmax of its
scores, divided by a temperature. `clipsyn.analyses.cascade.measures` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from clipsyn.analyses.cascade import ABC, GIVEN, WITHIN, CascadeSettings
from clipsyn.analyses.cascade.measures import (
    cascade_curve,
    exit_stages,
    most_accurate,
    pareto_front,
    smallest_threshold,
)
from clipsyn.analyses.cascade.stages import along, candidates, said_of, stages, tiers, unfitted
from clipsyn.analyses.fitted import (
    Candidate,
    Said,
    Scores,
    about_fit,
    answers,
    answers_of,
    fit_candidates,
    make_ensemble,
    read_support,
    with_fits,
)
from clipsyn.analyses.predicted import Predicted
from clipsyn.catalog.backbones import cost
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import Measured, Row, estimate, frame, gain, mean, share
from clipsyn.methods.ensembles import PLAIN
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.ensembles.weighted import fit_temperatures
from clipsyn.methods.numerics import Mask, Rows
from clipsyn.methods.pool import Pool
from clipsyn.names import CLEAN, FeatureKey
from clipsyn.registry import unknown_name
from clipsyn.stats.intervals import Interval, mean_share_interval
from clipsyn.store.features import FeatureStore

CASCADE: dict[str, Any] = {"threshold": pl.Float64, "rule": pl.String, "stage": pl.Int32}


def measure(store: FeatureStore, settings: CascadeSettings) -> pl.DataFrame:
    """Cascades of all backbones, and every fixed choice of backbones to compare them with.

    Returns a tidy frame with the columns of `RESULT` and `CASCADE`; docs/analysis.md says what
    these and the metrics are. An ensemble without a threshold is one of the first k backbones; the
    plain average is there for every subset of up to nine backbones. The Pareto front is chosen on
    the support: one that was chosen on what is measured would be flattered.

    Raises UsageError for settings that cannot work or an unknown cost, LeakError for a support
    that is measured on, and what `clipsyn.analyses.predicted.predicted` raises.
    """
    settings = settings.replaced(
        ensembles=tuple(dict.fromkeys((PLAIN, *settings.ensembles))),
        thresholds=tuple(dict.fromkeys(settings.thresholds)),
    )
    _check(store, settings)
    fitted = with_fits(store, settings, _fit)
    rows = [row for group, fits in fitted for row in _CascadeRows(group, fits).rows()]
    return frame(rows, CASCADE)


def _check(store: FeatureStore, settings: CascadeSettings) -> None:
    """Refuse settings that cannot work before anything is read."""
    for text in settings.ensembles:
        make_ensemble(Candidate(text, ()))
    known = {key.backbone for key in store.keys()}  # noqa: SIM118 (a store is no dict)
    for name in settings.costs:
        if name not in known:
            raise unknown_name("backbone", name, sorted(known))


class CellCost(NamedTuple):
    """What the backbone of one cell costs; None where it was neither published nor recorded."""

    gflops: float  # an image, 2 per multiply-add
    image_params_m: float | None  # millions
    encode_ms: float | None  # an image, as recorded when this cell was extracted


def cell_cost(store: FeatureStore, key: FeatureKey, given: Mapping[str, float]) -> CellCost:
    """What the backbone of a cell costs.

    GFLOPs are those of `given` (by name), else those recorded when the cell was extracted, else
    the catalogue's. Raises UsageError where none of them knows.
    """
    group, published = store.cell(key).group(), cost(key.backbone)
    recorded = group.provenance
    encoder, seconds = recorded.get("encoder") or {}, recorded.get("encode_seconds")
    gflops = given.get(key.backbone, encoder.get("gflops"))
    if gflops is None and published:
        gflops = published.image_gflops
    if gflops is None:
        raise UsageError(
            f"what an image costs {key.backbone} is not known: give the GFLOPs of its image tower "
            "with costs=…, NAME=GFLOPS"
        )
    parameters = encoder.get("image_parameters")
    params_m = published.image_params_m if published else None
    return CellCost(
        gflops,
        parameters / 1e6 if parameters else params_m,
        1000 * float(seconds) / group.sizes["sample"] if seconds else None,
    )


@dataclass(frozen=True)
class _Fitted:
    """Everything that is fitted and chosen on the support of one dataset."""

    settings: CascadeSettings
    gflops: dict[str, float]  # of each backbone, in the order they run
    ensembles: dict[Candidate, Ensemble]
    temperatures: dict[Candidate, float]  # scores are divided by them before the softmax
    on_support: dict[Candidate, Said]  # by `unseen_scores`; of other averages what is right alone
    origin: Mapping[str, Any]  # which samples were learned from: see `read_support`

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(self.gflops)

    def answers(self, pool: Pool) -> dict[Candidate, Said]:
        """Of every candidate, those of `averages` last, for labelled samples."""

        def say(candidate: Candidate, scores: Scores, pool: Pool) -> Said:
            return said_of(scores, pool, self.temperatures[candidate])

        return answers(self.ensembles, pool, say) | unfitted(pool, self.order, self.settings)

    def stages(self, text: str) -> list[Candidate]:
        """Of a cascade of this ensemble."""
        if text == ABC:
            return tiers(self.order, self.settings.tier)
        return stages(text, self.order)

    def costs(self, text: str) -> list[float]:
        """GFLOPs of what each stage runs beside those before it."""
        if text == ABC:
            return [self.price(tier.backbones) for tier in self.stages(text)]
        return [*self.gflops.values()]

    def price(self, backbones: Sequence[str]) -> float:
        """GFLOPs of an image that all of these backbones see."""
        return math.fsum(self.gflops[name] for name in backbones)

    @cached_property
    def best(self) -> Candidate:
        """The backbone with the highest accuracy on the support, the cheapest of equals."""
        right = {it: self.on_support[Candidate.single(it)]["correct"].mean() for it in self.order}
        return Candidate.single(most_accurate(right, self.gflops))

    @cached_property
    def cascades(self) -> dict[str, list[Candidate]]:
        """By ensemble: one for each threshold of the settings, and one for the threshold chosen."""
        cascades = {}
        for text in self.settings.ensembles:
            confidence, correct = along(self.on_support, self.stages(text))
            chosen = smallest_threshold(confidence, correct, self.settings.within_points / 100)
            thresholds = [(threshold, GIVEN) for threshold in self.settings.thresholds]
            thresholds.append((chosen, WITHIN))
            cascades[text] = [Candidate(text, self.order, *threshold) for threshold in thresholds]
        if shares := self.settings.agreement:
            cascades[ABC] = [Candidate(ABC, self.order, share, GIVEN) for share in shares]
        return cascades

    @cached_property
    def points(self) -> dict[Candidate, dict[str, float]]:
        """For every candidate its metrics on the support, and 1 for one on the front of the two.

        Cascades come last.
        """
        points = {
            candidate: (float(said["correct"].mean()), self.price(candidate.backbones))
            for candidate, said in self.on_support.items()
        }
        for text, cascades in self.cascades.items():
            confidence, correct = along(self.on_support, self.stages(text))
            gflops = np.array(self.costs(text))
            thresholds = np.array([cascade.threshold for cascade in cascades])
            curve = cascade_curve(confidence, correct, gflops, thresholds)
            pairs = zip(curve.accuracy.tolist(), curve.cost.tolist(), strict=True)
            points |= zip(cascades, pairs, strict=True)
        accuracies, costs = np.array(list(points.values())).T
        front = pareto_front(costs, accuracies).astype(float).tolist()
        return {
            it: {"support_acc1": accuracy, "support_mean_gflops": cost, "front": is_in_front}
            for (it, (accuracy, cost)), is_in_front in zip(points.items(), front, strict=True)
        }


def _fit(group: Predicted, measured: Iterable[Predicted], settings: CascadeSettings) -> _Fitted:
    """Order the backbones of a group, and fit every candidate, on clean images of the support.

    measured: all of the dataset that is measured on. Raises UsageError for a single backbone or an
    unknown cost, and what `read_support` does.
    """
    if len(group.backbones) < 2:
        raise UsageError(
            f"a cascade needs two backbones, and {group.samples.name} has {group.backbones[0]}"
            " alone: name more with backbones=…, or extract them"
        )
    if settings.agreement and settings.tier >= len(group.backbones):
        raise UsageError(
            f"the {len(group.backbones)} backbones are one tier with tier={settings.tier}: give a "
            "smaller number"
        )
    pool, origin = read_support(group.reader(settings.support, CLEAN.label), measured, settings)
    gflops = {
        key.backbone: cell_cost(group.store, key, settings.costs).gflops for key in group.keys
    }
    order = sorted(gflops, key=lambda name: (gflops[name], name))  # the cheapest first

    def calibrated(scores: Scores, pool: Pool) -> tuple[float, Said]:
        temperature = float(fit_temperatures(scores[:, None], pool.labels)[0])
        return temperature, said_of(scores, pool, temperature)

    fits = fit_candidates(candidates(order, settings.ensembles), pool, settings.seed, calibrated)
    return _Fitted(
        settings,
        {name: gflops[name] for name in order},
        {candidate: ensemble for candidate, (ensemble, _) in fits.items()},
        {candidate: temperature for candidate, (_, (temperature, _)) in fits.items()},
        {candidate: said for candidate, (_, (_, said)) in fits.items()}
        | unfitted(pool, order, settings),
        origin,
    )


class _CascadeRows:
    """The rows of one dataset, split, perturbation and prompt set."""

    def __init__(self, group: Predicted, fitted: _Fitted) -> None:
        self.group, self.fitted = group, fitted
        self.reader = group.reader()
        self.said = answers_of(self.reader, fitted.ensembles, fitted.answers)
        self.best = self.said[fitted.best]["correct"]  # (sample,)
        self.images, self.n = group.images, len(self.best)

    def rows(self) -> Iterator[Row]:
        for key in self.group.keys:
            single = Candidate.single(key.backbone)
            yield from self._about(single, self._costs(key), learned=False)
        for candidate, said in self.said.items():
            ensemble = self.fitted.ensembles.get(candidate)
            learned = ensemble is not None and ensemble.learns
            price = estimate("mean_gflops", self.fitted.price(candidate.backbones), self.n)
            fixed = [share("acc1", said["correct"], self.images), price]
            yield from self._about(candidate, fixed, learned=learned)
            yield from self._about(candidate, self._on_support(candidate))
        for text, cascades in self.fitted.cascades.items():
            confidence, correct = along(self.said, self.fitted.stages(text))
            for cascade in cascades:
                assert cascade.threshold is not None
                leaves = exit_stages(confidence, cascade.threshold)
                yield from self._about(cascade, self._cascade(text, leaves, correct))
                for stage in range(len(correct)):
                    leaving = share("exit", leaves == stage, self.images)
                    for row in self._about(cascade, [leaving]):
                        yield row | {"stage": stage + 1}
                yield from self._about(cascade, self._on_support(cascade))

    def _costs(self, key: FeatureKey) -> Iterator[Measured]:
        cost = cell_cost(self.group.store, key, self.fitted.gflops)
        for metric, value in cost._asdict().items():
            if metric != "gflops" and value is not None:
                yield estimate(metric, value, self.n)

    def _cascade(self, text: str, leaves: Rows, correct: Mask) -> Iterator[Measured]:
        """leaves: (sample,) the stage at which each leaves. correct: (stage, sample)."""
        right = correct[leaves, np.arange(self.n)]
        costs = np.cumsum(self.fitted.costs(text))
        cost, whole = costs[leaves], max(float(costs[-1]), 1e-9)
        yield share("acc1", right, self.images)
        low, high = mean_share_interval([cost / whole], [self.images])
        yield Measured("mean_gflops", mean(cost), Interval(whole * low, whole * high))
        yield gain("gain_over_full", right, correct[-1:], self.images)
        yield gain("gain", right, self.best[None], self.images)

    def _on_support(self, candidate: Candidate) -> Iterator[Measured]:
        for metric, value in self.fitted.points[candidate].items():
            yield estimate(metric, value, self.n)

    def _about(
        self, candidate: Candidate, numbers: Iterable[Measured], *, learned: bool = True
    ) -> Iterator[Row]:
        """A row for each number. learned: whether the support decides it too."""
        fitted, settings = self.fitted, self.fitted.settings
        compared = [settings.ensembles, settings.thresholds, settings.within_points]
        compared += [settings.agreement, settings.tier] if settings.agreement else []
        support = {"of": fitted.origin, "gflops": [*fitted.gflops.items()], "settings": compared}
        decisive = {
            "target": self.reader.origin,
            "gflops": [fitted.gflops[name] for name in candidate.backbones],
            "support": support if learned else None,
        }
        about = about_fit(candidate, self.group.prompts, settings, **decisive)
        about |= {"threshold": candidate.threshold, "rule": candidate.rule}
        for measured in numbers:
            yield self.group.row(measured, candidate.backbones, candidate.ensemble) | about

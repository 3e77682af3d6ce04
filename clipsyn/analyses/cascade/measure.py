"""Cascades of a store's backbones: accuracy against cost, beside every fixed choice of them.

Everything is fitted and chosen on the support split, and measured on others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn import __version__
from clipsyn.analyses.cascade import PLAIN, CascadeSettings
from clipsyn.analyses.cascade.candidates import Fitted, along, fit, shown
from clipsyn.analyses.cascade.costs import Spent, spent
from clipsyn.analyses.cascade.measures import cascade_curve, exit_stages, pareto_front
from clipsyn.analyses.cascade.stages import Candidate, make_ensemble
from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.ensembles import ENSEMBLES
from clipsyn.errors import UsageError
from clipsyn.numerics.metrics import Score
from clipsyn.registry import unknown_name
from clipsyn.results.frame import Measured, Row, frame
from clipsyn.settings import images_of
from clipsyn.specs import fingerprint
from clipsyn.stats import Interval, bootstrap_difference, bootstrap_mean, wilson_interval
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import matching

_Value = tuple[str, float, Interval | None]  # metric, value, interval


def measure(store: FeatureStore, settings: CascadeSettings) -> pl.DataFrame:
    """Cascades of all backbones, and every fixed choice of backbones to compare them with.

    Filters are names or patterns with ``*``; None takes all there is. ensembles: names, or
    ``NAME:parameter=value``; the plain average of the logits is always among them. order:
    "cost" runs the cheapest backbone first, "greedy" always the one that adds most accuracy on
    the support per GFLOP, "given" follows `backbones`. within: how much accuracy, a fraction, the
    threshold that is chosen on the support may lose there. costs: GFLOPs of an image by backbone,
    where they are neither recorded nor in the catalogue. shots: images a class, drawn by `seed`,
    None for the whole support split.

    Stage k combines the first k backbones by an ensemble fitted for them; its confidence is the
    largest softmax of its scores, divided by a temperature. `clipsyn.analyses.cascade.stages` says
    what is fitted on what, `clipsyn.analyses.cascade.measures` has the formulas.

    Returns a tidy frame with the columns of `RESULT`; `ensemble` is

    - null: a backbone on its own, and what it costs: mean_gflops, image_params_m (millions),
      encode_ms (an image), peak_memory_mb or process_memory_mb, where they are known;
    - an ensemble: of the first k backbones, or, where it has nothing to fit or with
      `all_subsets`, and there are at most nine backbones, of any subset;
    - cascade:ENSEMBLE@THRESHOLD, and cascade:ENSEMBLE@within-X with the threshold chosen on the
      support, X in points. `backbones` are in the order they are run in.

    Metrics: acc1 and mean_gflops (an image) with bootstrap intervals over samples; gain_over_full
    (over the ensemble of all, paired), gain_over_chosen (over the backbone that was best on the
    support, paired), threshold, exit_1, exit_2, … (shares of the samples, with Wilson intervals);
    support_acc1 and support_mean_gflops, on the support; front, 1 for what is on the Pareto front
    of those two. The front is chosen on the support too: chosen on test it would be flattered.

    Raises UsageError for settings that cannot work or an unknown cost, LeakError where `support`
    is the test split, and what `clipsyn.analyses.accuracy.measure.zeroshot` raises.
    """
    if PLAIN not in settings.ensembles:
        settings = replace(settings, ensembles=(PLAIN, *settings.ensembles))
    _check(store, settings)
    groups = predicted(store, settings)
    rows: list[Row] = []
    for _, of_one in groupby(groups, key=lambda group: group.samples.dataset):
        models: dict[object, Fitted] = {}  # splits and perturbations share what is fitted
        for group in of_one:
            of = (group.prompts, group.backbones)
            if of not in models:
                models[of] = fit(group, settings)
            rows += _Sheet(group, models[of], settings).rows()
    return frame(rows)


class _Sheet:
    """The rows of one dataset, split, perturbation and prompt set."""

    def __init__(self, group: Predicted, fitted: Fitted, settings: CascadeSettings) -> None:
        self.group, self.fitted, self.settings = group, fitted, settings
        samples = group.samples
        self.reader = PoolReader(
            group.store,
            samples.dataset,
            samples.split,
            perturbation=group.perturbation,
            backbones=group.backbones,
            prompts=group.prompts,
        )
        self.outcome = shown(fitted, self.reader)
        self.gflops = dict(zip(fitted.order, fitted.gflops.tolist(), strict=True))
        self.n = len(self.outcome.correct[Candidate(None, fitted.order[:1])])

    def rows(self) -> Iterator[Row]:
        for key in self.group.keys:
            costs = spent(self.group.store, key, self.gflops)
            yield from self._rows(Candidate(None, (key.backbone,)), _known(costs), learned=False)
        for candidate in self.outcome.correct:
            fitted = self.fitted.stages.get(candidate)
            learned = fitted is not None and fitted.ensemble.learns
            yield from self._rows(candidate, self._fixed(candidate), learned=learned)
            yield from self._rows(candidate, self._on_support[candidate], learned=True)
        for text in self.settings.ensembles:
            confidence, correct = along(self.outcome.seen, text, self.fitted.order)
            for name, threshold in self._thresholds(text):
                stage = exit_stages(confidence, threshold)
                found = self._cascade(stage, correct, threshold)
                candidate = Candidate(name, self.fitted.order)
                yield from self._rows(candidate, found, learned=True)
                yield from self._rows(candidate, self._on_support[candidate], learned=True)

    def _thresholds(self, text: str) -> Iterator[tuple[str, float]]:
        for threshold in self.settings.thresholds:
            yield f"cascade:{text}@{threshold:g}", threshold
        chosen = self.fitted.thresholds[text]
        yield f"cascade:{text}@within-{self.settings.within_points:g}", chosen

    def _fixed(self, candidate: Candidate) -> Iterator[_Value]:
        correct = self.outcome.correct[candidate]
        yield "acc1", _mean(correct), bootstrap_mean(correct)
        yield "mean_gflops", self._price(candidate.backbones), None

    def _cascade(
        self, stage: NDArray[np.intp], correct: NDArray[np.bool_], threshold: float
    ) -> Iterator[_Value]:
        """stage: (sample,) at which each leaves. correct: (stage, sample)."""
        right = correct[stage, np.arange(self.n)]
        cost = np.cumsum(self.fitted.gflops)[stage]
        single = self.outcome.correct[Candidate(None, (self._best_on_support,))]
        yield "acc1", _mean(right), bootstrap_mean(right)
        yield "mean_gflops", _mean(cost), bootstrap_mean(cost)
        yield "gain_over_full", *_gain(right, correct[-1])
        yield "gain_over_chosen", *_gain(right, single)
        yield "threshold", threshold, None
        for number in range(len(self.fitted.order)):
            left = int(np.count_nonzero(stage == number))
            share = left / self.n if self.n else math.nan
            yield f"exit_{number + 1}", share, wilson_interval(left, self.n)

    @cached_property
    def _on_support(self) -> dict[Candidate, list[_Value]]:
        """Accuracy and mean cost on the support of all there is, and whether it is in front."""
        support, order = self.fitted.support, self.fitted.order
        found = {
            candidate: (_mean(right), self._price(candidate.backbones))
            for candidate, right in support.correct.items()
        }
        for text in self.settings.ensembles:
            names, thresholds = zip(*self._thresholds(text), strict=True)
            curve = cascade_curve(
                *along(support.seen, text, order), self.fitted.gflops, np.array(thresholds)
            )
            for name, accuracy, cost in zip(names, curve.accuracy, curve.cost, strict=True):
                found[Candidate(name, order)] = (float(accuracy), float(cost))
        accuracies, costs = np.array(list(found.values())).T
        front = pareto_front(costs, accuracies)
        return {
            candidate: [
                ("support_acc1", accuracy, None),
                ("support_mean_gflops", cost, None),
                ("front", float(in_front), None),
            ]
            for (candidate, (accuracy, cost)), in_front in zip(found.items(), front, strict=True)
        }

    @cached_property
    def _best_on_support(self) -> str:
        """The backbone with the highest accuracy on the support, the cheapest of equals."""
        correct = self.fitted.support.correct
        return max(
            self.fitted.order,
            key=lambda name: (
                int(correct[Candidate(None, (name,))].sum()),
                -self.gflops[name],
            ),
        )

    def _price(self, names: Sequence[str]) -> float:
        return math.fsum(self.gflops[name] for name in names)

    def _rows(
        self, candidate: Candidate, values: Iterable[_Value], *, learned: bool
    ) -> Iterator[Row]:
        changed: Row = {"fingerprint": self._fingerprint(candidate, learned)}
        if learned:
            of = self.fitted.reader
            changed["support"], changed["support_prompts"] = of.samples.split, of.prompts
            changed["shots"] = images_of(self.settings.shots)
            changed["seed"] = self.settings.seed
        for metric, value, interval in values:
            measured = Measured(metric, Score(value, self.n), interval)
            yield self.group.row(measured, candidate.backbones, candidate.ensemble) | changed

    def _fingerprint(self, candidate: Candidate, learned: bool) -> str:
        settings, fitted = self.settings, self.fitted
        support = {
            "of": fitted.reader.origin,
            "rows": fitted.rows,
            "seed": settings.seed,
            "order": fitted.order,
            "gflops": fitted.gflops.tolist(),
            "compared": [
                settings.ensembles,
                settings.thresholds,
                settings.within_points / 100,
                settings.all_subsets,
            ],
        }
        decisive = {
            "clipsyn": _versions(candidate.ensemble),
            "target": self.reader.origin,
            "ensemble": candidate.ensemble,
            "backbones": candidate.backbones,
            "gflops": [self.gflops[name] for name in candidate.backbones],
            "support": support if learned else None,
        }
        return fingerprint(decisive)


def _versions(text: str | None) -> str:
    """Of clipsyn, and of another package that an ensemble comes from."""
    package = ENSEMBLES.package(text.partition(":")[0]) if text else ""
    return f"{__version__} {package}".rstrip()


def _known(costs: Spent) -> Iterator[_Value]:
    for metric, value in costs._asdict().items():
        if metric != "gflops" and value is not None:
            yield metric, value, None


def _mean(values: NDArray[np.bool_ | np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _gain(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, Interval]:
    return _mean(first) - _mean(second), bootstrap_difference(first, second)


def _check(store: FeatureStore, settings: CascadeSettings) -> None:
    """Refuse settings that cannot work before anything is read."""
    for text in settings.ensembles:
        make_ensemble(text)
    if settings.order == "given" and not settings.backbones:
        raise UsageError("order=given follows backbones=…: name them in the order wanted")
    if any(matching(term, [settings.support]) for term in settings.splits or ["*"]):
        raise UsageError(
            f"{settings.support} is both fitted on and measured on: choose another support=… "
            "or splits=…"
        )
    known = {key.backbone for key in store.keys()}  # noqa: SIM118 (a store is no dict)
    for name in settings.costs:
        if name not in known:
            raise unknown_name("backbone", name, sorted(known))

"""Cascades of a store's backbones: accuracy against cost, beside every fixed choice of them.

Everything is fitted and chosen on the support split, and measured on others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn import __version__
from clipsyn.analysis.cascade import cascade_curve, exit_stages, pareto_front
from clipsyn.ensembles import ENSEMBLES
from clipsyn.errors import UsageError
from clipsyn.estimator import from_text
from clipsyn.evaluate.candidates import PLAIN, Fitted, Point, Settings, fit, measure
from clipsyn.evaluate.costs import Spent, spent
from clipsyn.evaluate.predicted import Predicted, predicted
from clipsyn.evaluate.results import RESULT, Measured, Row
from clipsyn.metrics import Score
from clipsyn.registry import unknown_name
from clipsyn.specs import CLEAN, fingerprint
from clipsyn.stats import Interval, bootstrap_difference, bootstrap_mean, wilson_interval
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import Names

ORDERS = ("cost", "greedy", "given")
THRESHOLDS = (*(round(0.1 * step, 1) for step in range(1, 10)), 0.95, 0.99)


def cascade(
    store: FeatureStore,
    *,
    datasets: Names = None,
    splits: Sequence[str] = ("test",),
    perturbations: Names = (CLEAN.label,),
    backbones: Sequence[str] | None = None,
    prompts: Names = None,
    ensembles: Sequence[str] = (PLAIN,),
    order: str = "cost",
    thresholds: Sequence[float] = THRESHOLDS,
    within: float = 0.01,
    costs: Mapping[str, float] | None = None,
    support: str = "train",
    shots: int | None = None,
    seed: int = 0,
) -> pl.DataFrame:
    """Cascades of all backbones, and every fixed choice of backbones to compare them with.

    Filters are names or patterns with ``*``; None takes all there is. ensembles: names, or
    ``NAME:parameter=value``; the plain average of the logits is always among them. order:
    "cost" runs the cheapest backbone first, "greedy" always the one that adds most accuracy on
    the support per GFLOP, "given" follows `backbones`. within: how much accuracy, a fraction, the
    threshold that is chosen on the support may lose there. costs: GFLOPs of an image by backbone,
    where they are neither recorded nor in the catalogue. shots: images a class, drawn by `seed`,
    None for the whole support split.

    Stage k combines the first k backbones by an ensemble fitted for them; its confidence is the
    largest softmax of its scores, divided by a temperature. See `clipsyn.evaluate.stages` for
    what is fitted on what, `clipsyn.analysis.cascade` for the formulas.

    Returns a tidy frame with the columns of `RESULT`; `ensemble` is

    - null: a backbone on its own, and what it costs: mean_gflops, image_params_m (millions),
      encode_ms (an image), peak_memory_mb, where they are known;
    - an ensemble: of the first k backbones, or, where it has nothing to fit and there are at most
      nine backbones, of any subset;
    - cascade:ENSEMBLE@THRESHOLD, and cascade:ENSEMBLE@within-X with the threshold chosen on the
      support, X in points. `backbones` are in the order they are run in.

    Metrics: acc1 and mean_gflops (an image) with bootstrap intervals over samples; gain_over_full
    (over the ensemble of all, paired), gain_over_chosen (over the backbone that was best on the
    support, paired), threshold, exit_1, exit_2, … (shares of the samples, with Wilson intervals);
    support_acc1 and support_mean_gflops, on the support; front, 1 for what is on the Pareto front
    of those two. The front is chosen on the support too: chosen on test it would be flattered.

    Raises UsageError for settings that cannot work or an unknown cost, LeakError where `support`
    is the test split, and what `clipsyn.evaluate.zeroshot` raises.
    """
    settings = Settings(
        tuple(dict.fromkeys((PLAIN, *ensembles))),
        order,
        tuple(backbones or ()),
        tuple(thresholds),
        within,
        costs or {},
        support,
        shots,
        seed,
    )
    _check(store, settings, splits)
    groups = predicted(
        store,
        datasets=datasets,
        splits=splits,
        perturbations=perturbations,
        backbones=backbones,
        prompts=prompts,
    )
    rows: list[Row] = []
    for _, of_one in groupby(groups, key=lambda group: group.samples.dataset):
        models: dict[object, Fitted] = {}  # splits and perturbations share what is fitted
        for group in of_one:
            of = (group.prompts, group.backbones)
            if of not in models:
                models[of] = fit(group, settings)
            rows += Sheet(group, models[of], settings).rows()
    return pl.DataFrame(rows, schema=RESULT)


class Sheet:
    """The rows of one dataset, split, perturbation and prompt set."""

    def __init__(self, group: Predicted, fitted: Fitted, settings: Settings) -> None:
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
        self.outcome = measure(fitted, self.reader)
        self.gflops = dict(zip(fitted.order, fitted.gflops.tolist(), strict=True))
        self.n = len(next(iter(self.outcome.points.values())))

    def rows(self) -> Iterator[Row]:
        for key in self.group.keys:
            yield from self._cost_rows(key.backbone, spent(self.group.store, key, self.gflops))
        for point in self.outcome.points:
            yield from self._point_rows(point)
        for text in self.fitted.stages:
            for name, threshold in self._thresholds(text):
                yield from self._cascade_rows(text, name, threshold)

    def _thresholds(self, text: str) -> Iterator[tuple[str, float]]:
        for threshold in self.settings.thresholds:
            yield f"cascade:{text}@{threshold:g}", threshold
        chosen = self.fitted.thresholds[text]
        yield f"cascade:{text}@within-{100 * self.settings.within:g}", chosen

    def _cost_rows(self, name: str, costs: Spent) -> Iterator[Row]:
        for metric, value in costs._asdict().items():
            if metric != "gflops" and value is not None:
                yield self._row(metric, value, None, (name,), None, learned=False)

    def _point_rows(self, point: Point) -> Iterator[Row]:
        ensemble, names = point
        correct = self.outcome.points[point]
        learned = ensemble is not None and bool(from_text(ENSEMBLES, ensemble).learns)
        for metric, value, interval in (
            ("acc1", _mean(correct), bootstrap_mean(correct)),
            ("mean_gflops", self._price(names), None),
        ):
            yield self._row(metric, value, interval, names, ensemble, learned=learned)
        yield from self._support_rows(ensemble, names)

    def _cascade_rows(self, text: str, name: str, threshold: float) -> Iterator[Row]:
        seen, order = self.outcome.cascades[text], self.fitted.order
        stage = exit_stages(seen.confidence, threshold)
        correct = seen.correct[stage, np.arange(self.n)]
        cost = np.cumsum(self.fitted.gflops)[stage]
        single = self.outcome.points[None, (self._best_on_support,)]
        values: list[tuple[str, float, Interval | None]] = [
            ("acc1", _mean(correct), bootstrap_mean(correct)),
            ("mean_gflops", _mean(cost), bootstrap_mean(cost)),
            ("gain_over_full", *_gain(correct, seen.correct[-1])),
            ("gain_over_chosen", *_gain(correct, single)),
            ("threshold", threshold, None),
        ]
        for number in range(len(order)):
            left = int(np.count_nonzero(stage == number))
            share = left / self.n if self.n else math.nan
            values.append((f"exit_{number + 1}", share, wilson_interval(left, self.n)))
        for metric, value, interval in values:
            yield self._row(metric, value, interval, order, name, learned=True)
        yield from self._support_rows(name, order)

    def _support_rows(self, ensemble: str | None, names: tuple[str, ...]) -> Iterator[Row]:
        accuracy, cost, front = self._on_support[ensemble, names]
        found = {"support_acc1": accuracy, "support_mean_gflops": cost, "front": float(front)}
        for metric, value in found.items():
            yield self._row(metric, value, None, names, ensemble, learned=True)

    @cached_property
    def _on_support(self) -> dict[Point, tuple[float, float, bool]]:
        """Accuracy and mean cost on the support of all there is, and whether it is in front."""
        support = self.fitted.support
        found = {
            point: (_mean(correct), self._price(point[1]))
            for point, correct in support.points.items()
        }
        for text, seen in support.cascades.items():
            names, thresholds = zip(*self._thresholds(text), strict=True)
            curve = cascade_curve(*seen, self.fitted.gflops, np.array(thresholds))
            for name, accuracy, cost in zip(names, curve.accuracy, curve.cost, strict=True):
                found[name, self.fitted.order] = (float(accuracy), float(cost))
        accuracies, costs = np.array(list(found.values())).T
        front = pareto_front(costs, accuracies)
        return {
            point: (*values, bool(in_front))
            for (point, values), in_front in zip(found.items(), front, strict=True)
        }

    @cached_property
    def _best_on_support(self) -> str:
        """The backbone with the highest accuracy on the support, the cheapest of equals."""
        correct = self.fitted.support.points
        return max(
            self.fitted.order,
            key=lambda name: (int(correct[None, (name,)].sum()), -self.gflops[name]),
        )

    def _price(self, names: Sequence[str]) -> float:
        return math.fsum(self.gflops[name] for name in names)

    def _row(
        self,
        metric: str,
        value: float,
        interval: Interval | None,
        names: tuple[str, ...],
        ensemble: str | None,
        *,
        learned: bool,
    ) -> Row:
        of, settings = self.fitted.reader, self.settings
        support = {
            "of": of.origin,
            "rows": self.fitted.rows,
            "seed": settings.seed,
            "order": self.fitted.order,
            "gflops": self.fitted.gflops.tolist(),
            "compared": [settings.ensembles, settings.thresholds, settings.within],
        }
        row = self.group.row(Measured(metric, Score(value, self.n), interval), names, ensemble)
        decisive = {
            "clipsyn": __version__,
            "target": self.reader.origin,
            "ensemble": ensemble,
            "backbones": names,
            "gflops": [self.gflops[name] for name in names],
            "support": support if learned else None,
        }
        row["fingerprint"] = fingerprint(decisive)
        if learned:
            row["support"] = f"{of.samples.split}, {of.prompts}"
            row["shots"], row["seed"] = settings.shots, settings.seed
        return row


def _mean(values: NDArray[np.bool_ | np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _gain(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, Interval]:
    return _mean(first) - _mean(second), bootstrap_difference(first, second)


def _check(store: FeatureStore, settings: Settings, splits: Sequence[str]) -> None:
    """Refuse settings that cannot work before anything is read."""
    for text in settings.ensembles:
        from_text(ENSEMBLES, text)
    if settings.order not in ORDERS:
        raise unknown_name("order", settings.order, ORDERS)
    if settings.order == "given" and not settings.given:
        raise UsageError("--order given follows --backbones: name them in the order wanted")
    if settings.support in splits:
        raise UsageError(
            f"{settings.support} is both fitted on and measured on: give another --support or "
            "--split"
        )
    if bad := [t for t in settings.thresholds if not (math.isfinite(t) and t >= 0)]:
        raise UsageError(f"a threshold is a probability, not {bad[0]:g}")
    if not (math.isfinite(settings.within) and settings.within >= 0):
        raise UsageError(f"--within is a number of points, at least 0; not {settings.within:g}")
    known = {key.backbone for key in store.keys()}  # noqa: SIM118 (a store is no dict)
    for name in settings.costs:
        if name not in known:
            raise unknown_name("backbone", name, sorted(known))

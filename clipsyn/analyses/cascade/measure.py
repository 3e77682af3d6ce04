"""Cascades of a store's backbones: accuracy against cost, beside every fixed choice of them.

Everything is fitted and chosen on the support split, and measured on others. Stage k combines the
first k backbones by an ensemble fitted for them; its confidence is the largest softmax of its
scores, divided by a temperature. `clipsyn.analyses.cascade.fitted` says what is fitted on what,
`clipsyn.analyses.cascade.measures` has the formulas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.cascade import PLAIN, CascadeSettings
from clipsyn.analyses.cascade.fitted import Answers, FittedCascades, cell_cost, fit
from clipsyn.analyses.cascade.measures import exit_stages
from clipsyn.analyses.predicted import (
    Candidate,
    Predicted,
    estimate,
    gain,
    make_ensemble,
    mean,
    predicted,
    share,
    versions,
)
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import Measured, Row, frame
from clipsyn.names import FeatureKey, fingerprint
from clipsyn.registry import unknown_name
from clipsyn.stats.intervals import Interval, mean_share_interval
from clipsyn.store.features import FeatureStore

CASCADE: dict[str, Any] = {"threshold": pl.Float64, "rule": pl.String, "stage": pl.Int32}


def measure(store: FeatureStore, settings: CascadeSettings) -> pl.DataFrame:
    """Cascades of all backbones, and every fixed choice of backbones to compare them with.

    Returns a tidy frame with the columns of `RESULT` and `CASCADE`; docs/analysis.md says what
    these and the metrics are. An ensemble without a threshold is one of the first k backbones;
    where it has nothing to fit, it is there for every subset of up to nine backbones. The Pareto
    front is chosen on the support: one that was chosen on what is measured would be flattered.

    Raises UsageError for settings that cannot work or an unknown cost, LeakError for a support
    that is measured on, and what `clipsyn.analyses.predicted.predicted` raises.
    """
    settings = settings.replaced(
        ensembles=tuple(dict.fromkeys((PLAIN, *settings.ensembles))),
        thresholds=tuple(dict.fromkeys(settings.thresholds)),
    )
    _check(store, settings)
    rows: list[Row] = []
    for _, groups in groupby(predicted(store, settings), key=lambda group: group.samples.dataset):
        of_dataset = list(groups)
        fitted: dict[object, FittedCascades] = {}  # shared by splits and perturbations
        for group in of_dataset:
            key = (group.prompts, group.backbones)
            if key not in fitted:
                fitted[key] = fit(group, of_dataset, settings)
            rows += _CascadeRows(group, fitted[key]).rows()
    return frame(rows, CASCADE)


class _CascadeRows:
    """The rows of one dataset, split, perturbation and prompt set."""

    def __init__(self, group: Predicted, fitted: FittedCascades) -> None:
        self.group, self.fitted = group, fitted
        self.reader = group.reader()
        embeddings = any(it.ensemble.needs_embeddings for it in fitted.fitted.values())
        blocks = self.reader.blocks(embeddings=embeddings)
        self.answers = Answers.joined([fitted.answers(block.labelled()) for block in blocks])
        self.best = self.answers.correct[Candidate.single(fitted.best)]  # (sample,)
        self.images, self.n = group.images, len(self.best)

    def rows(self) -> Iterator[Row]:
        for key in self.group.keys:
            single = Candidate.single(key.backbone)
            yield from self._about(single, self._costs(key), learned=False)
        for candidate in self.answers.correct:
            fitted = self.fitted.fitted.get(candidate)
            learned = fitted is not None and fitted.ensemble.learns
            yield from self._about(candidate, self._fixed(candidate), learned=learned)
            yield from self._about(candidate, self._on_support(candidate), learned=True)
        for text, cascades in self.fitted.cascades.items():
            confidence, correct = self.answers.along(text, self.fitted.order)
            for cascade in cascades:
                assert cascade.threshold is not None
                leaves = exit_stages(confidence, cascade.threshold)
                yield from self._about(cascade, self._cascade(leaves, correct), learned=True)
                yield from self._exits(cascade, leaves)
                yield from self._about(cascade, self._on_support(cascade), learned=True)

    def _costs(self, key: FeatureKey) -> Iterator[Measured]:
        cost = cell_cost(self.group.store, key, self.fitted.gflops)
        for metric, value in cost._asdict().items():
            if metric != "gflops" and value is not None:
                yield estimate(metric, value, self.n)

    def _fixed(self, candidate: Candidate) -> Iterator[Measured]:
        correct = self.answers.correct[candidate]
        yield self._accuracy(correct)
        yield estimate("mean_gflops", self.fitted.price(candidate.backbones), self.n)

    def _cascade(self, leaves: NDArray[np.intp], correct: NDArray[np.bool_]) -> Iterator[Measured]:
        """leaves: (sample,) the stage at which each leaves. correct: (stage, sample)."""
        right = correct[leaves, np.arange(self.n)]
        costs = np.cumsum(list(self.fitted.gflops.values()))
        cost, whole = costs[leaves], max(float(costs[-1]), 1e-9)
        yield self._accuracy(right)
        low, high = mean_share_interval([cost / whole], [self.images])
        yield Measured("mean_gflops", mean(cost), Interval(whole * low, whole * high))
        yield gain("gain_over_full", right, correct[-1:], self.images)
        yield gain("gain", right, self.best[None], self.images)

    def _accuracy(self, right: NDArray[np.bool_]) -> Measured:
        return share("acc1", int(np.count_nonzero(right)), self.images)

    def _exits(self, cascade: Candidate, leaves: NDArray[np.intp]) -> Iterator[Row]:
        """A row for each stage: the share of samples that leave there."""
        for stage in range(len(cascade.backbones)):
            leaving = share("exit", int(np.count_nonzero(leaves == stage)), self.images)
            for row in self._about(cascade, [leaving], learned=True):
                yield row | {"stage": stage + 1}

    def _on_support(self, candidate: Candidate) -> Iterator[Measured]:
        for metric, value in self.fitted.on_support[candidate].items():
            yield estimate(metric, value, self.n)

    def _about(
        self, candidate: Candidate, numbers: Iterable[Measured], *, learned: bool
    ) -> Iterator[Row]:
        """A row for each number. learned: whether the support decides it too."""
        about: Row = {"fingerprint": self._fingerprint(candidate, learned)}
        about |= {"threshold": candidate.threshold, "rule": candidate.rule}
        if learned:
            settings = self.fitted.settings
            about["support"], about["support_prompts"] = settings.support, self.group.prompts
            about["shots"], about["seed"] = str(settings.shots), settings.seed
        for measured in numbers:
            yield self.group.row(measured, candidate.backbones, candidate.ensemble) | about

    def _fingerprint(self, candidate: Candidate, learned: bool) -> str:
        fitted, chosen = self.fitted, self.fitted.settings
        compared = [chosen.ensembles, chosen.thresholds, chosen.within_points]
        support = {
            "origin": fitted.origin,
            "gflops": list(fitted.gflops.items()),
            "settings": compared,
        }
        decisive = {
            "clipsyn": versions(candidate.ensemble),
            "target": self.reader.origin,
            "candidate": candidate._asdict(),
            "gflops": [fitted.gflops[name] for name in candidate.backbones],
            "support": support if learned else None,
        }
        return fingerprint(decisive)


def _check(store: FeatureStore, settings: CascadeSettings) -> None:
    """Refuse settings that cannot work before anything is read."""
    for text in settings.ensembles:
        make_ensemble(text)
    if settings.order == "given" and not settings.backbones:
        raise UsageError("order=given follows backbones=…: name them in the order wanted")
    known = {key.backbone for key in store.keys()}  # noqa: SIM118 (a store is no dict)
    for name in settings.costs:
        if name not in known:
            raise unknown_name("backbone", name, sorted(known))

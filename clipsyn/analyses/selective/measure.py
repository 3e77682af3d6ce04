"""Selective prediction of a store's backbones and ensembles: whose confidence says when to trust?

Everything is fitted and chosen on the support split, and measured on others. A sample counts when
it has a label and every backbone of its group could read it, so that all are compared on the same
samples. docs/analysis.md lists the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.predicted import (
    Candidate,
    Predicted,
    make_ensemble,
    mean,
    predicted,
    share,
    versions,
)
from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.analyses.selective.measures import (
    RiskCoverage,
    detection,
    kept_of,
    risk_coverage,
    smallest_threshold,
)
from clipsyn.analyses.selective.replies import (
    MAX_SOFTMAX,
    Cells,
    FittedCandidates,
    Foreign,
    Replies,
    fit,
    foreign_sets,
    joined,
    readable,
    replies_of,
)
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import Measured, Row, frame
from clipsyn.methods.numerics.metrics import Score
from clipsyn.methods.pool import Pool
from clipsyn.names import fingerprint
from clipsyn.stats.intervals import (
    LEAST_WRONG,
    UNKNOWN,
    Interval,
    groups_of,
    jackknife_interval,
    loss_interval,
    standard_error,
    wilson_interval,
)
from clipsyn.store.features import FeatureStore

COLUMNS = {
    "score": pl.String,
    "coverage": pl.Float64,
    "wished": pl.Float64,
    "threshold": pl.Float64,
    "foreign": pl.String,
}
COVERAGES = np.arange(1, 21) / 20
_AREAS = ("aurc", "e_aurc", "augrc")


def measure(store: FeatureStore, settings: SelectiveSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT` and `COLUMNS`.

    Raises UsageError and LeakError for a support that is measured on too, or is the test split;
    what `fit`, `foreign_sets` and `predicted` raise.
    """
    _check(settings)
    rows: list[Row] = []
    any_foreign = False
    for _, groups in groupby(predicted(store, settings), key=lambda group: group.samples.dataset):
        of_dataset = list(groups)
        fitted: dict[object, FittedCandidates] = {}  # splits and perturbations share what is fitted
        for group in of_dataset:
            which = (group.prompts, group.backbones)
            if which not in fitted:
                fitted[which] = fit(group, of_dataset, settings)
            sheet = _Sheet(group, fitted[which], settings)
            any_foreign |= bool(sheet.foreign)
            rows += sheet.rows()
    if settings.foreign and not any_foreign:
        names = ", ".join(settings.foreign)
        raise UsageError(f"foreign={names} is the dataset itself: name another one")
    return frame(rows, COLUMNS)


class _Sheet:
    """The rows of one dataset, split, perturbation and prompt set."""

    def __init__(
        self, group: Predicted, fitted: FittedCandidates, settings: SelectiveSettings
    ) -> None:
        self.group, self.fitted, self.settings = group, fitted, settings
        cells = Cells(group, fitted.ensembles)
        self.reader, names = cells.reader, settings.foreign
        self.foreign = foreign_sets(group, self.reader, names) if names else []
        replies = cells.replies(self._scores)
        counts = (group.labels >= 0) & readable(replies)
        self.replies = {candidate: of.take(counts) for candidate, of in replies.items()}
        self.labels = group.labels[counts]
        self.n = len(self.labels)
        self.images = group.samples.images.take(counts)
        self._fingerprint = cache(self._new_fingerprint)

    def rows(self) -> Iterator[Row]:
        for candidate, replies in self.replies.items():
            right = replies.predicted == self.labels
            yield self._row(candidate, share("acc1", int(np.count_nonzero(right)), self.images))
            yield from self._curves(candidate, right)
            if candidate in self.fitted.replies:
                yield from self._from_thresholds(candidate, right)
        for foreign in self.foreign:
            yield from self._told_from(foreign)

    def _scores(self, pool: Pool) -> dict[str, NDArray[np.float32]]:
        return {text: of.combine(pool) for text, of in self.fitted.ensembles.items()}

    def _confidences(self, replies: Replies) -> dict[str, NDArray[np.float64]]:
        """By each score that is asked for, and that there is."""
        asked = dict.fromkeys(self.settings.scores)
        return {score: replies.confidence[score] for score in asked if score in replies.confidence}

    def _curves(self, candidate: Candidate, right: NDArray[np.bool_]) -> Iterator[Row]:
        by_score = {}
        effective = self.images.effective / max(1, self.n)  # images that each sample counts as
        wrong = np.count_nonzero(~right) * effective
        for score, confidence in self._confidences(self.replies[candidate]).items():
            whole, without = self._areas(confidence, right)
            by_score[score] = whole.aurc, without[0]
            for metric, of_groups in zip(_AREAS, without, strict=True):
                value = getattr(whole, metric)
                error = float(standard_error(of_groups))
                interval = loss_interval(value, error, wrong, len(of_groups) - 1)
                measured = Measured(metric, Score(value, self.n), interval)
                yield self._row(candidate, measured, score=score)
            kept = kept_of(self.n, COVERAGES)
            for coverage, n, value in zip(COVERAGES, kept, whole.accuracy, strict=True):
                hits = value * n * effective
                interval = wilson_interval(hits, n * effective) if self.n else UNKNOWN
                measured = Measured("acc1", Score(float(value), int(n)), interval)
                yield self._row(candidate, measured, score=score, coverage=float(coverage))
        if usual := by_score.pop(MAX_SOFTMAX, None):
            for score, (aurc, without) in by_score.items():
                gain, of_groups = usual[0] - aurc, usual[1] - without
                few = wrong < LEAST_WRONG
                interval = UNKNOWN if few else jackknife_interval(gain, of_groups)
                measured = Measured("aurc_gain", Score(gain, self.n), interval)
                yield self._row(candidate, measured, score=score)

    def _areas(
        self, confidence: NDArray[np.float64], right: NDArray[np.bool_]
    ) -> tuple[RiskCoverage, NDArray[np.float64]]:
        """Over all samples; the areas without each group of images, (area, group)."""
        order = np.argsort(-confidence, kind="stable")  # once for all
        confidence, right, group = confidence[order], right[order], groups_of(self.images)[order]
        rest = (group != number for number in range(group.max(initial=0) + 1))
        each = [risk_coverage(confidence[some], right[some], np.empty(0))[:3] for some in rest]
        return risk_coverage(confidence, right, COVERAGES), np.array(each, float).T

    def _from_thresholds(self, candidate: Candidate, right: NDArray[np.bool_]) -> Iterator[Row]:
        on_support = self.fitted.replies[candidate]
        support_right = on_support.predicted == self.fitted.labels
        for score, confidence in self._confidences(self.replies[candidate]).items():
            if score not in on_support.confidence:
                continue
            for wished in self.settings.accuracies:
                support_confidence = on_support.confidence[score]
                threshold = smallest_threshold(support_confidence, support_right, wished)
                here, there = confidence >= threshold, support_confidence >= threshold
                about: Row = {
                    "score": score,
                    "wished": wished,
                    "threshold": None if math.isnan(threshold) else threshold,
                }
                none = Measured("coverage", mean(here), None)  # as it will be for other images
                covered = share("coverage", int(np.count_nonzero(here)), self.images)
                for measured in (
                    covered if here.any() else none,
                    share("acc1", int(np.count_nonzero(right[here])), self.images.take(here)),
                    Measured("support_coverage", mean(there), None),
                    Measured("support_acc1", mean(support_right[there]), None),
                ):
                    yield self._row(candidate, measured, chosen=True, **about)

    def _told_from(self, foreign: Foreign) -> Iterator[Row]:
        names = self.reader.backbones
        blocks = (replies_of(names, pool, self._scores(pool), {}) for pool in foreign.blocks())
        replies = joined(list(blocks))
        counts = foreign.is_other & readable(replies)
        m = int(np.count_nonzero(counts))
        images = self.images, foreign.samples.images.take(counts)
        ours, theirs = (groups_of(of, seed) for seed, of in enumerate(images))
        numbers = range(min(of.max(initial=0) for of in (ours, theirs)) + 1)
        for candidate, of in replies.items():
            own = self._confidences(self.replies[candidate])
            for score, confidence in self._confidences(of.take(counts)).items():
                whole = detection(own[score], confidence)
                without = [
                    detection(own[score][ours != at], confidence[theirs != at]).auroc
                    for at in numbers
                ]
                low, high = jackknife_interval(whole.auroc, np.array(without))
                between = Interval(max(0.0, low), min(1.0, high)) if low <= high else UNKNOWN
                about: Row = {"score": score, "foreign": foreign.samples.dataset}
                for metric, value, interval in zip(
                    ("auroc", "fpr95"), whole, (between, None), strict=True
                ):
                    measured = Measured(metric, Score(value, self.n + m), interval)
                    yield self._row(candidate, measured, of_foreign=foreign, **about)

    def _row(
        self,
        candidate: Candidate,
        measured: Measured,
        *,
        chosen: bool = False,
        of_foreign: Foreign | None = None,
        **about: Any,
    ) -> Row:
        """chosen: a threshold of the support plays a part."""
        learned = chosen or (
            candidate.ensemble is not None and self.fitted.ensembles[candidate.ensemble].learns
        )
        if learned:
            about["support"], about["support_prompts"] = self.settings.support, self.group.prompts
            about["shots"] = str(self.settings.shots)
            about["seed"] = self.settings.seed
        about["fingerprint"] = self._fingerprint(candidate, learned, of_foreign)
        return self.group.row(measured, candidate.backbones, candidate.ensemble) | about

    def _new_fingerprint(self, candidate: Candidate, learned: bool, foreign: Foreign | None) -> str:
        return fingerprint(
            {
                "clipsyn": versions(candidate.ensemble),
                "target": self.reader.origin,
                "method": candidate[:2],
                "support": self.fitted.origin if learned else None,
                "foreign": foreign.fingerprints if foreign else None,
            }
        )


def _check(settings: SelectiveSettings) -> None:
    """Refuse settings that cannot work before anything is read."""
    for text in settings.ensembles:
        make_ensemble(text, settings.seed)

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

from clipsyn.analyses.predicted import Predicted, estimate, mean, predicted, share
from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.analyses.selective.measures import (
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
from clipsyn.analyses.support import Candidate, make_ensemble, versions
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import Measured, Row, frame
from clipsyn.methods.pool import Pool
from clipsyn.names import fingerprint
from clipsyn.settings import images_of
from clipsyn.stats.bootstrap import Resamples
from clipsyn.stats.intervals import UNKNOWN, Interval, wilson_interval
from clipsyn.store.features import FeatureStore

COLUMNS = {
    "score": pl.String,
    "coverage": pl.Float64,
    "wished": pl.Float64,
    "threshold": pl.Float64,
    "foreign": pl.String,
}
COVERAGES = np.arange(1, 21) / 20
_AT_ONCE = 50  # resamples


def measure(store: FeatureStore, settings: SelectiveSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT` and `COLUMNS`.

    `ensemble` is null for a backbone on its own. Raises UsageError and LeakError for a support that
    is measured on too, or is the test split; what `fit`, `foreign_sets` and `predicted` raise.
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
        self.resamples = Resamples(self.n, images=self.images)
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
        once, by_score = [np.ones((1, self.n), np.uint8)], {}
        for score, confidence in self._confidences(self.replies[candidate]).items():
            whole = risk_coverage(confidence, right, once, COVERAGES)
            drawn = risk_coverage(confidence, right, self.resamples.times(), COVERAGES)
            by_score[score] = whole.aurc, drawn.aurc
            for metric in ("aurc", "e_aurc", "augrc"):
                value, draws = getattr(whole, metric).item(), getattr(drawn, metric)
                yield self._row(candidate, estimate(metric, value, self.n, draws), score=score)
            kept = kept_of(self.n, COVERAGES)
            for place, coverage in enumerate(COVERAGES.tolist()):
                value, draws = whole.accuracy[:, place].item(), drawn.accuracy[:, place]
                measured = estimate("acc1", value, int(kept[place]), draws)
                measured = measured._replace(interval=self._widened(measured))
                yield self._row(candidate, measured, score=score, coverage=coverage)
        if usual := by_score.pop(MAX_SOFTMAX, None):
            for score, (whole_aurc, drawn_aurc) in by_score.items():
                gain, draws = (usual[0] - whole_aurc).item(), usual[1] - drawn_aurc
                yield self._row(candidate, estimate("aurc_gain", gain, self.n, draws), score=score)

    def _widened(self, measured: Measured) -> Interval:
        """The outer ends of the resamples' interval and of Wilson's: where nearly all of the given
        answers are right, resamples say nothing of the errors that there might be.
        """
        (value, kept), ends = measured.score, measured.interval or UNKNOWN
        n = kept * self.images.effective / max(1, self.n)
        wilson = wilson_interval(value * n, n) if n else UNKNOWN
        return Interval(min(ends.low, wilson.low), max(ends.high, wilson.high))

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
        once = [(np.ones((1, self.n), np.uint8), np.ones((1, m), np.uint8))]
        theirs = Resamples(m, seed=1, images=foreign.samples.images.take(counts))
        draws = list(_both(self.resamples, theirs))
        for candidate, of in replies.items():
            own = self._confidences(self.replies[candidate])
            for score, confidence in self._confidences(of.take(counts)).items():
                whole = detection(own[score], confidence, once)
                drawn = detection(own[score], confidence, draws)
                about: Row = {"score": score, "foreign": foreign.dataset}
                for metric, value, of_draws in zip(("auroc", "fpr95"), whole, drawn, strict=True):
                    measured = estimate(metric, value.item(), self.n + m, of_draws)
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
            about["shots"] = images_of(self.settings.shots)
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


def _both(
    one: Resamples, other: Resamples
) -> Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]]:
    """Resamples of two sets of samples, drawn apart: as many rows of each at a time."""
    of_one, of_other = (np.concatenate(list(draws.times())) for draws in (one, other))
    for start in range(0, one.count, _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        yield of_one[rows], of_other[rows]

"""Selective prediction of a store's backbones and ensembles: whose confidence says when to trust?

Everything is fitted and chosen on the support split, and measured on others. A sample counts when
it has a label and every backbone of its group could read it, so that all are compared on the same
samples. docs/analysis.md lists the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from clipsyn.analyses.fitted import (
    Candidate,
    Said,
    Scores,
    about_fit,
    answers,
    answers_of,
    fit_candidates,
    joined,
    make_ensemble,
    read_support,
    with_fits,
)
from clipsyn.analyses.predicted import Predicted
from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.analyses.selective.measures import (
    RiskCoverage,
    agreement,
    confidences,
    kept_of,
    risk_coverage,
    smallest_threshold,
    told_apart,
)
from clipsyn.errors import StaleCell, UsageError
from clipsyn.evaluation.results.frame import Measured, Row, estimate, frame, mean, share
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.numerics import Doubles, Labels, Mask
from clipsyn.methods.numerics.logits import CHUNK_ROWS, predictions, zero_shot_logits
from clipsyn.methods.numerics.metrics import Score
from clipsyn.methods.pool import Pool
from clipsyn.names import CLEAN, FeatureKey, differences
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
from clipsyn.store.overlap import held
from clipsyn.store.select import Names, select
from clipsyn.text import LOG

COLUMNS = {
    "score": pl.String,
    "coverage": pl.Float64,
    "wished": pl.Float64,
    "threshold": pl.Float64,
    "ood": pl.String,
}
COVERAGES = np.arange(1, 21) / 20
MAX_SOFTMAX = "max-softmax"
_AREAS = ("aurc", "e_aurc", "augrc")
_BLOCK = 4 * CHUNK_ROWS  # images of other datasets that are read at once


def measure(store: FeatureStore, settings: SelectiveSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT` and `COLUMNS`.

    Raises UsageError and LeakError for a support that is measured on too, or is the test split;
    what `read_support`, `predicted` and `_of_others` raise.
    """
    for text in settings.ensembles:
        make_ensemble(Candidate(text, ()), settings.seed)  # refused before anything is read
    fitted = with_fits(store, settings, _fit)
    rows = [row for group, fits in fitted for row in _SelectiveRows(group, fits, settings).rows()]
    if settings.ood and not any(row.get("ood") for row in rows):
        names = ", ".join(settings.ood)
        raise UsageError(f"ood={names} is the dataset itself: name another one")
    return frame(rows, COLUMNS)


class _Fitted(NamedTuple):
    """The candidates of one dataset, and what they say of its support; empty without one."""

    ensembles: Mapping[Candidate, Ensemble]
    on_support: Mapping[Candidate, Said]  # by `unseen_scores`
    labels: Labels
    origin: Mapping[str, Any]  # decides what is fitted and chosen


def _fit(group: Predicted, measured: Iterable[Predicted], settings: SelectiveSettings) -> _Fitted:
    """Fit every candidate on clean images of the support.

    measured: all of the dataset that is measured on. A support that is not in the store is needed
    by ensembles that learn alone: for them it raises MissingCell.
    """
    every = [Candidate.single(name) for name in group.backbones]
    texts = dict.fromkeys(settings.ensembles) if len(every) > 1 else {}
    every += [Candidate(text, group.backbones) for text in texts]
    ensembles = {candidate: make_ensemble(candidate, settings.seed) for candidate in every}
    is_there = group.store.keys(dataset=[group.samples.dataset], split=[settings.support])
    if not (is_there or any(ensemble.learns for ensemble in ensembles.values())):
        return _Fitted(ensembles, {}, np.empty(0, np.int32), {})
    pool, origin = read_support(group.reader(settings.support, CLEAN.label), measured, settings)
    fitted = fit_candidates(every, pool, settings.seed, lambda scores, _: _said(scores))
    said = _with_agreement({candidate: of for candidate, (_, of) in fitted.items()})
    learned = {candidate: ensemble for candidate, (ensemble, _) in fitted.items()}
    return _Fitted(learned, said, pool.labels, origin)


def _said(scores: Scores) -> Said:
    """The answers, and how sure they are by each score but agreement."""
    contiguous = np.ascontiguousarray(scores)
    return {"answer": predictions(contiguous), **confidences(contiguous)}


def _with_agreement(said: dict[Candidate, Said]) -> dict[Candidate, Said]:
    """The agreement of a single backbone with itself is none."""
    alone = [of["answer"] for candidate, of in said.items() if candidate.ensemble is None]
    for of in said.values() if len(alone) > 1 else ():
        of["agreement"] = agreement(np.stack(alone), of["answer"])
    return said


def _of_others(group: Predicted, names: Names) -> dict[str, list[FeatureKey]]:
    """The cells of the same backbones, split and perturbation, by dataset, the own one aside.

    Raises MissingCell with the extract line for a backbone that has not seen these images, or one
    without embeddings, and StaleCell for one of other weights there.
    """
    store, split, shown = group.store, group.samples.split, group.perturbation
    there = select(store, dataset=names, split=split, perturbation=shown, backbone=group.backbones)
    found: dict[str, list[FeatureKey]] = {}
    for dataset in dict.fromkeys(key.dataset for key in there):
        for own in group.keys if dataset != group.samples.dataset else ():
            key = replace(own, dataset=dataset)
            for one in (own, key):
                store.cell(one).holding("image_embedding")
            (ours, _), (theirs, _) = store.cell(own).encoder(), store.cell(key).encoder()
            changed = [name for name, _, _ in differences(ours, theirs) if name != "pixels"]
            if changed:
                raise StaleCell(
                    f"{key} is not of the same weights as {own} ({', '.join(changed)}): run "
                    f"`{store.extract_line(key, '--replace')}`",
                    tuple(changed),
                )
            found.setdefault(dataset, []).append(key)
    return found


class _SelectiveRows:
    """The rows of one dataset, split, perturbation and prompt set."""

    def __init__(self, group: Predicted, fitted: _Fitted, settings: SelectiveSettings) -> None:
        self.group, self.fitted, self.settings = group, fitted, settings
        self.reader = group.reader()
        self.others = _of_others(group, settings.ood) if settings.ood else {}
        self.said = _with_agreement(answers_of(self.reader, fitted.ensembles, self._answers))
        self.labels, self.images = group.labels[group.counted], group.images
        self.n = len(self.labels)
        self._about_fit = cache(self._about)

    def rows(self) -> Iterator[Row]:
        for candidate, said in self.said.items():
            right = said["answer"] == self.labels
            yield self._row(candidate, share("acc1", right, self.images))
            by_score = self._by_score(said)
            yield from self._curves(candidate, by_score, right)
            if self.fitted.on_support:
                yield from self._from_thresholds(candidate, by_score, right)
        for dataset in self.others:
            yield from self._told_from(dataset)

    def _answers(self, pool: Pool) -> dict[Candidate, Said]:
        return answers(self.fitted.ensembles, pool, lambda _, scores, __: _said(scores))

    def _by_score(self, said: Said) -> Said:
        return {it: said[it] for it in dict.fromkeys(self.settings.scores) if it in said}

    def _curves(self, candidate: Candidate, said: Said, right: Mask) -> Iterator[Row]:
        by_score = {}
        effective = self.images.effective / max(1, self.n)  # images that each sample counts as
        wrong = np.count_nonzero(~right) * effective
        for score, confidence in said.items():
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

    def _areas(self, confidence: Doubles, right: Mask) -> tuple[RiskCoverage, Doubles]:
        """Over all samples; the areas without each group of images, (area, group)."""
        order = np.argsort(-confidence, kind="stable")  # once for all
        confidence, right, group = confidence[order], right[order], groups_of(self.images)[order]
        rest = (group != number for number in range(group.max(initial=0) + 1))
        each = [risk_coverage(confidence[some], right[some], np.empty(0))[:3] for some in rest]
        return risk_coverage(confidence, right, COVERAGES), np.array(each, float).T

    def _from_thresholds(self, candidate: Candidate, said: Said, right: Mask) -> Iterator[Row]:
        on_support = self.fitted.on_support[candidate]
        support_right = on_support["answer"] == self.fitted.labels
        for score, confidence in said.items():
            for wished in self.settings.accuracies:
                support_confidence = on_support[score]
                threshold = smallest_threshold(support_confidence, support_right, wished)
                here, there = confidence >= threshold, support_confidence >= threshold
                none = Measured("coverage", mean(here))  # as it will be for other images
                covered = share("coverage", here, self.images)
                for measured in (
                    covered if here.any() else none,
                    share("acc1", right[here], self.images.take(here)),
                    Measured("support_coverage", mean(there)),
                    Measured("support_acc1", mean(support_right[there])),
                ):
                    about: Row = {"score": score, "wished": wished}
                    about["threshold"] = None if math.isnan(threshold) else threshold
                    yield self._row(candidate, measured, chosen=True, **about)

    def _told_from(self, dataset: str) -> Iterator[Row]:
        """How well confidence tells the own images from those of another dataset."""
        own, keys, store = self.group.samples, self.others[dataset], self.group.store
        samples = store.samples(dataset, own.split)
        is_own = held(samples.marks, own.marks)
        if shared := np.count_nonzero(is_own):
            LOG.info(f"note: {shared:,} images of {samples.name} stand in {own.name}: left out")
        counts = ~is_own & np.logical_and.reduce([store.cell(key).valid() for key in keys])
        parts = [self._answers(pool) for pool in self._pools(keys, counts)]
        n, images = self.n + int(counts.sum()), samples.images.take(counts)
        ours, theirs = groups_of(self.images), groups_of(images, 1)
        numbers = range(min(of.max(initial=0) for of in (ours, theirs)) + 1)
        for candidate, said in _with_agreement(joined(parts)).items():
            for score, there in self._by_score(said).items():
                here = self.said[candidate][score]
                auroc, fpr = told_apart(here, there)
                without = [told_apart(here[ours != at], there[theirs != at])[0] for at in numbers]
                ends = np.clip(jackknife_interval(auroc, np.array(without)), 0, 1).tolist()
                for measured in (
                    Measured("auroc", Score(auroc, n), Interval(*ends)),
                    estimate("fpr95", fpr, n),
                ):
                    yield self._row(candidate, measured, score=score, ood=dataset)

    def _pools(self, keys: list[FeatureKey], counts: Mask) -> Iterator[Pool]:
        """Images of another dataset that count, in blocks, with logits of the own classes."""
        store, classes = self.group.store, self.reader.classes
        for start in range(0, len(counts), _BLOCK):
            rows = range(start, min(start + _BLOCK, len(counts)))
            embeddings = {key.backbone: store.cell(key).embeddings(rows) for key in keys}
            logits = [zero_shot_logits(of, *classes[name]) for name, of in embeddings.items()]
            pool = Pool(
                np.stack(logits, axis=1),
                np.zeros(len(rows), np.int32),
                tuple(embeddings),
                embeddings=embeddings,
                class_embeddings={name: of for name, (of, _) in classes.items()},
                logit_scales={name: scale for name, (_, scale) in classes.items()},
            )
            yield pool.take(np.flatnonzero(counts[rows.start : rows.stop]))

    def _row(
        self, candidate: Candidate, measured: Measured, *, chosen: bool = False, **about: Any
    ) -> Row:
        """chosen: a threshold of the support plays a part."""
        learned = chosen or self.fitted.ensembles[candidate].learns
        about |= self._about_fit(candidate, learned, about.get("ood"))
        return self.group.row(measured, candidate.backbones, candidate.ensemble) | about

    def _about(self, candidate: Candidate, learned: bool, ood: str | None) -> Row:
        cells = map(self.group.store.cell, self.others.get(ood or "", ()))
        decisive = {
            "target": self.reader.origin,
            "support": self.fitted.origin if learned else None,
            "others": [cell.fingerprint() for cell in cells],
        }
        return about_fit(candidate, self.group.prompts, self.settings, **decisive)

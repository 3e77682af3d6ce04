"""What backbones and ensembles, fitted on the support, answer, and how sure they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.predicted import (
    Candidate,
    Predicted,
    make_ensemble,
    read_support,
    unseen_scores,
)
from clipsyn.analyses.selective import SelectiveSettings
from clipsyn.analyses.selective.measures import agreement, confidences
from clipsyn.errors import MissingCell, StaleCell, UsageError
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.numerics.logits import CHUNK_ROWS, NO_PREDICTION, predictions, zero_shot_logits
from clipsyn.methods.pool import NO_LABEL, Pool
from clipsyn.names import CLEAN, FeatureKey, differences
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import held
from clipsyn.store.pools import PoolReader
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import Names, select

AGREEMENT, MAX_SOFTMAX = "agreement", "max-softmax"
Scores = Mapping[str, NDArray[np.float32]]  # of each ensemble: (sample, class)
_LOG = logging.getLogger("clipsyn")
_ROWS = 4 * CHUNK_ROWS  # of a block


class Replies(NamedTuple):
    """What a candidate says of samples, and how sure it is."""

    predicted: NDArray[np.uint16]  # (sample,) NO_PREDICTION for an image that could not be read
    confidence: dict[str, NDArray[np.float64]]  # by score: (sample,)

    def take(self, rows: NDArray[Any]) -> Replies:
        """rows: numbers or a mask."""
        return Replies(
            self.predicted[rows], {name: of[rows] for name, of in self.confidence.items()}
        )

    @classmethod
    def of_scores(cls, scores: NDArray[np.float32]) -> Replies:
        """By all confidences but agreement; scores: (sample, class)."""
        contiguous = np.ascontiguousarray(scores)
        return cls(predictions(contiguous), confidences(contiguous))


class Cells:
    """The backbones of a group on one split, with logits or, where imported, without.

    reader: of all backbones; those without logits have replies, and maybe confidences, alone.
    ensembles: those that can work with that. Where one of them takes answers for votes, pools hold
    all backbones, else those with logits.
    """

    def __init__(
        self,
        group: Predicted,
        ensembles: Mapping[str, Ensemble],
        split: str | None = None,
        perturbation: str | None = None,
    ) -> None:
        self.reader = group.reader(split, perturbation, votes=True)
        self.ensembles = _possible(ensembles, self.reader)
        self.samples, self.origin = self.reader.samples, self.reader.origin
        self._imported = {
            key.backbone: self._without_logits(key)
            for key in self.reader.keys
            if key.backbone in self.reader.silent
        }

    def _without_logits(self, key: FeatureKey) -> Replies:
        store, prompts = self.reader.store, self.reader.prompts
        confidence = {}
        if key.backbone not in self.reader.unsure:
            confidence[MAX_SOFTMAX] = store.confidences(key, prompts).astype(np.float64)
        return Replies(store.predictions(key, prompts), confidence)

    @cached_property
    def _pools(self) -> PoolReader | None:
        """Of the backbones that stand in pools; None where none does."""
        every = self.reader
        if self.ensembles or not every.silent:
            return every
        names = [name for name in every.backbones if name not in every.silent]
        if not names:
            return None
        return PoolReader(
            every.store,
            every.samples.dataset,
            every.samples.split,
            perturbation=every.perturbation,
            backbones=names,
            prompts=every.prompts,
        )

    def read(self, rows: NDArray[np.intp]) -> Pool:
        """Of the backbones that stand in pools, which may be none."""
        if self._pools:
            return self._pools.read(rows)
        classes = len(self.samples.class_names)
        return Pool(np.zeros((len(rows), 0, classes), np.float32), self.samples.labels[rows], ())

    def replies(self, scores: Callable[[Pool], Scores]) -> dict[Candidate, Replies]:
        """Of all samples. scores: of the ensembles for a pool."""
        every = np.arange(len(self.samples))
        parts, done = [], 0
        embeddings = any(ensemble.needs_embeddings for ensemble in self.ensembles.values())
        pools = self._pools.blocks(embeddings=embeddings) if self._pools else [self.read(every)]
        for pool in pools:
            rows = every[done : done + len(pool)]
            parts.append(self.replies_at(rows, pool, scores(pool)))
            done += len(pool)
        return joined(parts)

    def replies_at(
        self, rows: NDArray[np.intp], pool: Pool, scores: Scores
    ) -> dict[Candidate, Replies]:
        """Of the samples at `rows`, which `pool` holds, and the scores of ensembles for them."""
        imported = {name: of.take(rows) for name, of in self._imported.items()}
        return replies_of(self.reader.backbones, pool, scores, imported)


def _possible(ensembles: Mapping[str, Ensemble], reader: PoolReader) -> dict[str, Ensemble]:
    """Without those that need logits, or confidences, that a backbone was imported without."""
    return {
        text: ensemble
        for text, ensemble in ensembles.items()
        if not (reader.silent and ensemble.needs_logits)
        and not (reader.unsure and ensemble.needs_confidences)
    }


def replies_of(
    backbones: Sequence[str], pool: Pool, scores: Scores, imported: Mapping[str, Replies]
) -> dict[Candidate, Replies]:
    """Of each backbone, by its logits in the pool or as imported, and of ensembles by their scores.

    The agreement of a single backbone with itself is none.
    """
    replies = {}
    for name in backbones:
        known = imported.get(name)
        replies[Candidate.single(name)] = known or Replies.of_scores(
            pool.logits[:, pool.backbones.index(name)]
        )
    alone = np.stack([reply.predicted for reply in replies.values()])
    for text, of_ensemble in scores.items():
        replies[Candidate(text, tuple(backbones))] = Replies.of_scores(of_ensemble)
    for reply in replies.values() if len(alone) > 1 else ():
        reply.confidence[AGREEMENT] = agreement(alone, reply.predicted)
    return replies


def joined(parts: Sequence[Mapping[Candidate, Replies]]) -> dict[Candidate, Replies]:
    """Of consecutive blocks of samples."""
    return {
        candidate: Replies(
            np.concatenate([part[candidate].predicted for part in parts]),
            {
                score: np.concatenate([part[candidate].confidence[score] for part in parts])
                for score in of_first.confidence
            },
        )
        for candidate, of_first in parts[0].items()
    }


def readable(replies: Mapping[Candidate, Replies]) -> NDArray[np.bool_]:
    """(sample,) whether everyone has an answer."""
    there: NDArray[np.bool_] = np.logical_and.reduce(
        [of.predicted != NO_PREDICTION for of in replies.values()]
    )
    return there


@dataclass(frozen=True)
class FittedCandidates:
    """The ensembles of one dataset, and what they and the backbones say of its support.

    Those of ensembles are by `unseen_scores`. Without a support `replies` is empty.
    """

    ensembles: dict[str, Ensemble]
    replies: dict[Candidate, Replies] = field(default_factory=dict)
    labels: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    origin: Mapping[str, Any] = field(default_factory=dict)  # decides what is fitted and chosen


def fit(
    group: Predicted, measured: Iterable[Predicted], settings: SelectiveSettings
) -> FittedCandidates:
    """Fit the ensembles that the cells of a group are enough for, on clean images of the support.

    measured: all of the dataset that is measured on. A support that is not in the store is needed
    by ensembles that learn alone: for them it raises MissingCell. Raises what `read_support` and
    `Ensemble.fit` do.
    """
    texts = dict.fromkeys(settings.ensembles) if len(group.backbones) > 1 else {}
    ensembles = {text: make_ensemble(text, settings.seed) for text in texts}
    ensembles = Cells(group, ensembles).ensembles
    is_there = group.store.keys(dataset=[group.samples.dataset], split=[settings.support])
    if not (is_there or any(ensemble.learns for ensemble in ensembles.values())):
        return FittedCandidates(ensembles)
    cells = Cells(group, ensembles, settings.support, CLEAN.label)
    support = read_support(cells, measured, settings)
    scores = {}
    for text, ensemble in cells.ensembles.items():
        ensemble.fit(support.pool)
        scores[text] = unseen_scores(ensemble, support.pool)
    replies = cells.replies_at(support.rows, support.pool, scores)
    counts = readable(replies)
    replies = {candidate: of.take(counts) for candidate, of in replies.items()}
    return FittedCandidates(cells.ensembles, replies, support.pool.labels[counts], support.origin)


@dataclass(frozen=True, eq=False)
class Foreign:
    """The images of one foreign dataset, of the same split and perturbation as the own ones."""

    reader: PoolReader  # of the own ones
    keys: tuple[FeatureKey, ...]  # of the backbones of the reader
    samples: SampleTable
    is_other: NDArray[np.bool_]  # (sample,) False for an image that the own dataset holds too

    @property
    def fingerprints(self) -> dict[str, str]:
        return {key.backbone: self.reader.store.fingerprint(key) for key in self.keys}

    def blocks(self) -> Iterator[Pool]:
        """All samples in order, with logits of the own classes and no labels."""
        store, classes, n = self.reader.store, self.reader.classes, len(self.is_other)
        for start in range(0, n, _ROWS):
            span = range(start, min(start + _ROWS, n))
            embeddings = {key.backbone: store.embeddings(key, span) for key in self.keys}
            logits = [zero_shot_logits(of, *classes[name]) for name, of in embeddings.items()]
            yield Pool(
                np.stack(logits, axis=1),
                np.full(len(span), NO_LABEL, np.int32),
                tuple(embeddings),
                embeddings=embeddings,
                class_embeddings={name: of for name, (of, _) in classes.items()},
                logit_scales={name: scale for name, (_, scale) in classes.items()},
            )


def foreign_sets(group: Predicted, reader: PoolReader, names: Names) -> list[Foreign]:
    """Each foreign dataset that `names` stand for, the own one aside.

    Raises MissingCell with the extract line for a backbone that has not seen the foreign images,
    UsageError for cells without embeddings, and what `clipsyn.store.select.select` does.
    """
    own = group.samples
    there = select(
        group.store,
        dataset=names,
        split=own.split,
        perturbation=group.perturbation,
        backbone=reader.backbones,
    )
    foreign = []
    for dataset in dict.fromkeys(key.dataset for key in there if key.dataset != own.dataset):
        keys = tuple(replace(key, dataset=dataset) for key in reader.keys)
        for of_own, key in zip(reader.keys, keys, strict=True):
            if key not in there:
                line = group.store.extract_line(key)
                raise MissingCell(f"{group.store.path} has no {key}: run `{line}`")
            _check(group.store, of_own, key)
        samples = group.store.samples(dataset, own.split)
        is_other = ~held(samples.marks, own.marks)
        if shared := np.count_nonzero(~is_other):
            _LOG.info(f"{shared:,} images of {samples.name} stand in {own.name}: not foreign")
        foreign.append(Foreign(reader, keys, samples, is_other))
    return foreign


def _check(store: FeatureStore, own: FeatureKey, foreign: FeatureKey) -> None:
    """Refuse images that cannot be compared with the own classes."""
    for key in (own, foreign):
        if not store.cell(key).has_embeddings:
            raise UsageError(
                f"{key} was imported without embeddings, and foreign images need them, to be "
                "compared with the classes: choose others with foreign=… or backbones=…"
            )
    (ours, _), (theirs, _) = store.cell(own).encoder(), store.cell(foreign).encoder()
    if changed := [name for name, _, _ in differences(ours, theirs) if name != "pixels"]:
        raise StaleCell(
            f"{foreign} is not of the same weights as {own} ({', '.join(changed)}): run "
            f"`{store.extract_line(foreign, '--replace')}`",
            tuple(changed),
        )

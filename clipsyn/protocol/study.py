"""The few-shot protocol on one dataset: fitted on its support, judged on its targets."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import TooFewSamples
from clipsyn.numerics.fewshot import few_shot, halves
from clipsyn.numerics.metrics import Score
from clipsyn.pool import NO_LABEL, Pool
from clipsyn.protocol.methods import (
    CHOSEN,
    ORACLE,
    FittedMethods,
    Target,
    fit_methods,
    is_random,
    learns,
    predict,
    versions,
)
from clipsyn.protocol.scoring import Scorer
from clipsyn.protocol.settings import ProtocolSettings
from clipsyn.results.frame import Measured, Row, row
from clipsyn.specs import fingerprint, parse_perturbation
from clipsyn.store.pools import PoolReader


class Draw(NamedTuple):
    """Which labelled samples are learned from; `seed` is None where nothing is random."""

    shots: int | None  # of each class; 0 where nothing is learned, None for the whole support
    seed: int | None
    rows: NDArray[np.intp]

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.rows.astype("<i8").tobytes()).hexdigest()
        return {"rows": digest, "seed": self.seed}


@dataclass
class Batch:
    """Rows that are finished together, with notes about them."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wanted: set[str] = field(default_factory=set)  # fingerprints, of known results too


class Subject(NamedTuple):
    """What a fingerprint is of: an ensemble, or a backbone on its own, on a target."""

    target: int
    ensemble: str | None
    backbone: str | None = None  # on its own


class FewShotStudy:
    """All numbers of one dataset and prompt set: heads x ensembles x shots x seeds.

    support: None where nothing is fitted. indices: rows of the support by (shots, seed), where
    they are not drawn.
    """

    def __init__(
        self,
        support: PoolReader | None,
        targets: Sequence[Target],
        settings: ProtocolSettings,
        indices: Mapping[tuple[int, int], NDArray[np.intp]] | None = None,
    ) -> None:
        self.support = support
        self.targets = targets
        self._reader = support or targets[0].reader  # no sample of a target is read to fit
        self.settings = settings
        self._indices = indices or {}

    def run(self, seed: int | None, known: Container[str] = ()) -> Iterator[Batch]:
        """All numbers of a seed, or with None those that are the same for every seed.

        Results whose fingerprint is in `known` are neither computed nor given again.
        """
        for draw in self._draws(seed):
            for head in self.settings.heads:
                if names := self._names(draw, head):
                    yield self._batch(draw, head, names, known)

    def labels(self) -> NDArray[np.int32]:
        """Labels of the support split that may be learned from: not those of new classes."""
        labels = self._reader.samples.labels
        if not self.settings.base_to_new:
            return labels
        base, _ = halves(len(self._reader.samples.class_names))
        return np.where(np.isin(labels, base), labels, NO_LABEL).astype(np.int32)

    def _draws(self, seed: int | None) -> Iterator[Draw]:
        if seed is None:
            yield Draw(0, None, np.empty(0, np.intp))
        if self.support is None:
            return
        for shots, rows in self.drawn(seed).items():
            yield Draw(shots, seed, rows)

    def drawn(self, seed: int | None) -> dict[int | None, NDArray[np.intp]]:
        """Rows of the support by number of shots; without a seed, those of the whole support.

        Numbers of shots that give the same rows, because no class has more images, stand under the
        largest of them: the same fit is made, and counts in a mean, once.
        """
        drawn: dict[int | None, NDArray[np.intp]] = {}
        for shots in sorted(self.settings.images, key=lambda k: (k is None, k)):
            if shots is None or seed is not None:
                rows = self._rows(shots, seed or 0)
                drawn = {k: one for k, one in drawn.items() if not np.array_equal(one, rows)}
                drawn[shots] = rows
        return drawn

    def _rows(self, shots: int | None, seed: int) -> NDArray[np.intp]:
        given = None if shots is None else self._indices.get((shots, seed))
        return few_shot(self.labels(), shots, seed) if given is None else given

    def _names(self, draw: Draw, head: str) -> list[str | None]:
        """The ensembles to measure on a draw, with None for the backbones on their own.

        Each is measured once: what learns nothing, without a draw. On each draw a backbone is
        chosen, and what learns nothing gets its gain over that one there.
        """
        names = list(dict.fromkeys([None, ORACLE, *self.settings.ensembles, CHOSEN]))
        if draw.shots == 0:
            return [name for name in names if not learns(head, name)]
        names = [name for name in names if name is not None or learns(head, None)]
        if draw.shots is None:
            return [name for name in names if is_random(head, name) == (draw.seed is not None)]
        return names

    def _batch(
        self, draw: Draw, head: str, names: Sequence[str | None], known: Container[str]
    ) -> Batch:
        prints = {
            subject: self._fingerprint(draw, head, subject) for subject in self._subjects(names)
        }
        missing = {subject.ensemble for subject, one in prints.items() if one not in known}
        wanted = set(prints.values())
        if not missing:
            return Batch(wanted=wanted)
        try:
            numbers = self._numbers(draw, head, sorted(missing, key=str))
        except TooFewSamples as error:
            samples = self._reader.samples
            shots = "all" if draw.shots is None else draw.shots
            return Batch(notes=[f"{samples.dataset}, {shots} shots, {head} left out: {error}"])
        rows = [
            row(measured, **self._about(draw, head, subject), fingerprint=prints[subject])
            for subject, measured in numbers
            if prints[subject] not in known
        ]
        return Batch(rows, wanted=wanted)

    def _subjects(self, names: Sequence[str | None]) -> Iterator[Subject]:
        for target in range(len(self.targets)):
            for name in names:
                for backbone in self._reader.backbones if name is None else [None]:
                    yield Subject(target, name, backbone)

    def _numbers(
        self, draw: Draw, head: str, names: Sequence[str | None]
    ) -> list[tuple[Subject, Measured]]:
        fitted = fit_methods(self._pool(draw), head, _ensembles(names), draw.seed)
        known = [] if draw.shots == 0 else [name for name in names if not learns(head, name)]
        return [
            number
            for index, target in enumerate(self.targets)
            for number in _measure(index, target, fitted, names, known)
        ]

    def _pool(self, draw: Draw) -> Pool:
        pool = self._reader.read(draw.rows)
        if self.support is None:
            pool = replace(pool, split="")  # empty; a fit would refuse the name of the test split
        if not self.settings.base_to_new:
            return pool
        return pool.of_classes(halves(pool.n_classes)[0])

    def _fingerprint(self, draw: Draw, head: str, subject: Subject) -> str:
        target = self.targets[subject.target]
        support = None
        if draw.shots != 0:
            support = {"of": _origin(self._reader, subject.backbone), **draw.identity()}
        return fingerprint(
            {
                "clipsyn": " ".join(versions(head, subject.ensemble)),
                "target": _origin(target.reader, subject.backbone),
                "classes": target.classes,
                "head": head,
                "ensemble": subject.ensemble,
                "support": support,
                "shots": draw.shots,
            }
        )

    def _about(self, draw: Draw, head: str, subject: Subject) -> Row:
        target = self.targets[subject.target]
        reader, backbone = target.reader, subject.backbone
        return {
            "dataset": reader.samples.dataset,
            "split": reader.samples.split,
            "perturbation": reader.perturbation,
            "severity": parse_perturbation(reader.perturbation).severity,
            "head": head,
            "ensemble": subject.ensemble,
            "backbones": list(reader.backbones) if backbone is None else [backbone],
            "prompts": reader.prompts,
            "classes": target.classes,
            "support": self._reader.samples.split if draw.shots != 0 else None,
            "support_prompts": self._reader.prompts if draw.shots != 0 else None,
            "shots": draw.shots,
            "seed": draw.seed,
        }


def _ensembles(names: Iterable[str | None]) -> list[str]:
    return [name for name in names if name is not None and name != ORACLE]


def _origin(reader: PoolReader, backbone: str | None) -> dict[str, Any]:
    return reader.origin if backbone is None else reader.origin_of(backbone)


def _measure(
    index: int,
    target: Target,
    fitted: FittedMethods,
    names: Sequence[str | None],
    known: Sequence[str | None],
) -> Iterator[tuple[Subject, Measured]]:
    """All metrics of `names` on a target; for those in `known`, only gain_over_chosen."""
    verdict = predict(fitted, target)
    scorer = Scorer(verdict.labels, verdict.singles, target.n_classes)
    silent = target.reader.silent
    chosen = None if fitted.chosen is None else scorer.single(fitted.chosen)
    if None in names:
        for backbone, measured in scorer.backbones(silent):
            yield Subject(index, None, backbone), measured
    if ORACLE in names and len(verdict.singles) > 1:
        if ORACLE not in known:
            for measured in (*scorer.oracle(), *scorer.diversity()):
                yield Subject(index, ORACLE), measured
        for measured in scorer.over_chosen(scorer.anyone, chosen):
            yield Subject(index, ORACLE), measured
    for text, method in fitted.methods.items():
        if text in known:
            answers = scorer.answers(verdict.ensembles[text])
            for measured in scorer.over_chosen(answers, chosen):
                yield Subject(index, text), measured
            continue
        spent = Measured("fit_seconds", Score(fitted.seconds + method.seconds, fitted.n), None)
        asked = Measured("predict_seconds", Score(verdict.seconds[text], len(verdict.labels)), None)
        judged = verdict.ensembles[text]
        metrics = scorer.ensemble(judged, chosen, probabilities=not silent)
        for measured in (*metrics, spent, asked):
            yield Subject(index, text), measured

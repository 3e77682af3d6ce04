"""What the protocol measures on one dataset: draws, fits, and the results that each fit gives."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from clipsyn.evaluation.methods import CHOSEN, ORACLE, Target, is_random, learns, versions
from clipsyn.evaluation.results.data import Data
from clipsyn.evaluation.results.frame import Row
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.methods.numerics.fewshot import few_shot, halves
from clipsyn.methods.pool import NO_LABEL
from clipsyn.names import fingerprint, parse_perturbation
from clipsyn.store.overlap import Learnable, learnable
from clipsyn.store.pools import PoolReader
from clipsyn.store.samples import SampleTable


class Draw(NamedTuple):
    """Which labelled samples are learned from; `seed` is None where nothing is random."""

    shots: int | None  # of each class; 0 where nothing is learned, None for the whole support
    seed: int | None
    rows: NDArray[np.intp]


class Subject(NamedTuple):
    """What numbers are about: an ensemble, the oracle or a backbone on its own, on a target."""

    target: int
    ensemble: str | None
    backbone: str | None = None  # on its own


class Result(NamedTuple):
    """The rows that share a fingerprint: a subject, as a draw of the shots has it."""

    subject: Subject
    about: Row  # all that these rows share

    @property
    def shots(self) -> int | None:
        shots: int | None = self.about["shots"]
        return shots

    @property
    def fingerprint(self) -> str:
        return str(self.about["fingerprint"])

    @property
    def has_predictions(self) -> bool:
        """Whether it comes with predictions.

        The oracle makes none. On a draw, what learns nothing has a gain alone: it predicts what it
        does without a draw.
        """
        name = self.subject.ensemble
        return name != ORACLE and (self.shots == 0 or learns(self.about["head"], name))


class Fit(NamedTuple):
    """The unit of work: what is measured, and kept, in one go.

    ensemble: the one that is fitted, with `seed`; None for results that need no fit of one.
    """

    ensemble: str | None
    seed: int | None
    results: tuple[Result, ...]

    def ensembles(self) -> list[str]:
        """The ensembles that results are of."""
        names = dict.fromkeys(result.subject.ensemble for result in self.results)
        return [name for name in names if name is not None and name != ORACLE]

    def targets(self) -> list[int]:
        return list(dict.fromkeys(result.subject.target for result in self.results))


@dataclass(frozen=True)
class Task:
    """Fits on the same rows of the support, with one fitted head."""

    head: str
    seed: int | None  # of the head
    rows: NDArray[np.intp]
    fits: tuple[Fit, ...]

    def shots(self) -> list[int | None]:
        """The numbers of shots that the rows stand for."""
        return list(dict.fromkeys(it.shots for fit in self.fits for it in fit.results))

    def fingerprints(self) -> Iterator[str]:
        return (result.fingerprint for fit in self.fits for result in fit.results)

    def without(self, known: Container[str]) -> Self:
        """Without the results that are known, and the fits that have no others."""
        left = (
            fit._replace(results=tuple(one for one in fit.results if one.fingerprint not in known))
            for fit in self.fits
        )
        return replace(self, fits=tuple(fit for fit in left if fit.results))


class FewShotPlan:
    """The fits of one dataset and prompt set: heads x ensembles x shots x seeds.

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
        self.settings = settings
        self._reader = support or targets[0].reader
        self.learnable = Learnable(self._reader.samples.labels, ())
        if support:
            self.learnable = learnable(
                support.samples, self.samples(), allow_overlap=settings.allow_overlap
            )
        self._indices = indices or {}
        self._data = Data(self._reader.store)

    def tasks(self) -> list[Task]:
        """All fits, each once: draws of the same rows share the fits that no seed changes."""
        tasks: dict[Any, Task] = {}
        fits: dict[Any, dict[_Unit, list[Result]]] = {}  # of each task
        for draw in self._draws():
            for head in self.settings.heads:
                seed = draw.seed if is_random(head, None) else None
                key = _digest(draw.rows), head, seed
                for name in self._names(draw, head):
                    tasks.setdefault(key, Task(head, seed, draw.rows, ()))
                    for result in self._results(draw, head, name):
                        unit = _unit(draw, head, result.subject)
                        fits.setdefault(key, {}).setdefault(unit, []).append(result)
        return [replace(task, fits=_fits(fits[key])) for key, task in tasks.items()]

    def samples(self) -> list[SampleTable]:
        """The sample table of each target."""
        return [target.reader.samples for target in self.targets]

    def labels(self) -> NDArray[np.int32]:
        """Labels of the support split that may be learned from: not those of new classes."""
        labels = self.learnable.labels
        if not self.settings.base_to_new:
            return labels
        base, _ = halves(len(self._reader.samples.class_names))
        return np.where(np.isin(labels, base), labels, NO_LABEL).astype(np.int32)

    def _draws(self) -> Iterator[Draw]:
        yield Draw(0, None, np.empty(0, np.intp))
        if self.support is None:
            return
        for seed in (None, *self.settings.draws):
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
        if given is None:
            return few_shot(self.labels(), shots, seed)
        return given[self.learnable.labels[given] >= 0]

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

    def _results(self, draw: Draw, head: str, name: str | None) -> Iterator[Result]:
        for target in range(len(self.targets)):
            for backbone in self._reader.backbones if name is None else [None]:
                yield self._result(draw, head, Subject(target, name, backbone))

    def _result(self, draw: Draw, head: str, subject: Subject) -> Result:
        target, fitted = self.targets[subject.target], draw.shots != 0
        reader, backbone = target.reader, subject.backbone
        support = None
        if fitted:
            of = _origin(self._reader, backbone)
            support = {"of": of, "rows": _digest(draw.rows), "seed": draw.seed}
        about = {
            "dataset": reader.samples.dataset,
            "split": reader.samples.split,
            "perturbation": reader.perturbation,
            "severity": parse_perturbation(reader.perturbation).severity,
            "head": head,
            "ensemble": subject.ensemble,
            "backbones": [backbone] if backbone else list(reader.backbones),
            "prompts": reader.prompts,
            "classes": target.classes,
            "support": self._reader.samples.split if fitted else None,
            "support_prompts": self._reader.prompts if fitted else None,
            "shots": draw.shots,
            "seed": draw.seed,
        }
        about["data"] = self._data.of(about)
        about["fingerprint"] = fingerprint(
            {
                "clipsyn": " ".join(versions(head, subject.ensemble)),
                "target": _origin(reader, backbone),
                "support": support,
                **{name: about[name] for name in ("classes", "head", "ensemble", "shots", "data")},
            }
        )
        return Result(subject, about)


class _Unit(NamedTuple):
    """What tells the fits of a task apart."""

    ensemble: str | None
    seed: int | None = None
    target: int | None = None


def _unit(draw: Draw, head: str, subject: Subject) -> _Unit:
    """What learns nothing needs no fit on a draw, and sees a target in one pass."""
    name = subject.ensemble
    if draw.shots == 0:
        return _Unit(None, target=subject.target)
    if name is None or name == ORACLE or not learns(head, name):
        return _Unit(None)
    return _Unit(name, draw.seed if is_random(head, name) else None)


def _fits(units: Mapping[_Unit, Sequence[Result]]) -> tuple[Fit, ...]:
    return tuple(Fit(unit.ensemble, unit.seed, tuple(them)) for unit, them in units.items())


def _digest(rows: NDArray[np.intp]) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def _origin(reader: PoolReader, backbone: str | None) -> dict[str, Any]:
    return reader.origin if backbone is None else reader.origin_of(backbone)

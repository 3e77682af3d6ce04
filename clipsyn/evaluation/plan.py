"""What is measured on one dataset: draws of its support, and the results that each draw gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from clipsyn import __version__
from clipsyn.errors import DatasetError
from clipsyn.evaluation import ProtocolSettings
from clipsyn.evaluation.coop import read_indices
from clipsyn.evaluation.results.data import Data
from clipsyn.evaluation.results.frame import Row
from clipsyn.evaluation.score import ROOM, Target
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN, ENSEMBLES, ORACLE, is_transductive
from clipsyn.methods.estimator import Estimator, from_text
from clipsyn.methods.heads import HEADS
from clipsyn.methods.numerics import Labels, Rows
from clipsyn.methods.numerics.samples import few_shot, halves, shortfall
from clipsyn.methods.pool import NO_LABEL
from clipsyn.names import CLEAN, fingerprint
from clipsyn.settings import FULL, SINGLE, UNFITTED
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import Learnable, learnable
from clipsyn.store.pools import PoolReader
from clipsyn.store.samples import SampleTable

Fit = tuple[str | None, int | None, int | None]


class Draw(NamedTuple):
    """Which labelled samples are learned from; `seed` is None where nothing is random."""

    shots: int | None  # of each class; 0 where nothing is learned, None for the whole support
    seed: int | None
    rows: Rows
    digest: str  # of the rows


class Result(NamedTuple):
    """An ensemble, the oracle or a backbone on its own, after one draw, on one target.

    about: what its rows share, with their fingerprint.
    """

    target: int
    ensemble: str | None
    backbone: str | None  # on its own
    about: Row

    @property
    def fingerprint(self) -> str:
        return str(self.about["fingerprint"])

    @property
    def learns(self) -> bool:
        return learns(self.about["head"], self.ensemble)

    @property
    def fit(self) -> Fit:
        """The unit of work, which is kept in one go: an ensemble that is fitted, and its seed.

        What learns nothing needs no fit on a draw; without a draw all of it sees a target, the
        last of the three, in one pass.
        """
        head, name = self.about["head"], self.ensemble
        if self.about["shots"] == UNFITTED:
            return None, None, self.target
        if name in (None, ORACLE) or not self.learns:
            return None, None, None
        return name, self.about["seed"] if is_random(head, name) else None, None

    @property
    def is_gain(self) -> bool:
        """Whether it is a gain over the backbone chosen on the draw, and nothing else.

        So it is for what learns nothing: it predicts what it does without a draw.
        """
        return self.about["shots"] != UNFITTED and not self.learns

    @property
    def has_predictions(self) -> bool:
        return self.ensemble != ORACLE and not self.is_gain


@dataclass(frozen=True)
class Task:
    """One head, fitted on one draw, and the results that it gives with each ensemble."""

    comparison: Comparison
    head: str
    seed: int | None  # of the head
    rows: Rows  # of the support
    results: tuple[Result, ...]

    def fits(self) -> dict[Fit, list[Result]]:
        """The results of each fit, in order; see `Result.fit`."""
        fits: dict[Fit, list[Result]] = {}
        for result in self.results:
            fits.setdefault(result.fit, []).append(result)
        return fits

    def only(self, wanted: Callable[[Result], bool]) -> Self:
        return replace(self, results=tuple(filter(wanted, self.results)))


@dataclass(frozen=True)
class Comparison:
    """Methods on the cells of one dataset and prompt set: heads x ensembles x shots x seeds.

    Its readers are made once, when they are needed. It can be sent to another process, which makes
    its own.
    """

    store: Path
    settings: ProtocolSettings  # without the methods that cannot work on these cells
    dataset: str
    prompts: str
    places: tuple[tuple[str, str], ...]  # splits and perturbations that are measured on
    backbones: tuple[str, ...]
    support_split: str | None  # that is fitted on, if any
    chooses: bool  # whether one of the methods is chosen on each draw, too

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def support(self) -> PoolReader | None:
        """What is fitted on; None where nothing is."""
        if self.support_split is None:
            return None
        prompts = self.settings.support_prompts or self.prompts
        views = self._views("learns_from_views")
        return self._reader(self.support_split, prompts, views=views)

    def _views(self, flag: str) -> tuple[str, ...]:
        """The augmented views, where a head or an ensemble looks at them."""
        methods = methods_of(self.settings).values()
        return self.settings.views if any(getattr(it, flag) for it in methods) else ()

    @property
    def candidates(self) -> list[str]:
        """The ensembles that one is chosen of."""
        return [name for name in self.settings.ensembles if not is_transductive(name)]

    @cached_property
    def targets(self) -> list[Target]:
        room = ROOM / len(self.places)
        targets = []
        for split, perturbation in self.places:
            views = self._views("needs_views") if perturbation == CLEAN.label else ()
            about = {"perturbation": perturbation, "votes": True, "views": views}
            reader = self._reader(split, self.prompts, **about)
            if self.settings.base_to_new:
                base, new = halves(len(reader.samples.class_names))
                targets += [Target(reader, room, "base", base), Target(reader, room, "new", new)]
            else:
                targets.append(Target(reader, room))
        return targets

    @cached_property
    def reader(self) -> PoolReader:
        """Of the support, or, where nothing is fitted, of a target, no sample of which is read."""
        return self.support or self.targets[0].reader

    def samples(self) -> list[SampleTable]:
        """The sample table of each target."""
        return [target.reader.samples for target in self.targets]

    def tasks(self) -> list[Task]:
        """All fits, each once: draws of the same rows share the fits that no seed changes."""
        tasks: dict[Any, tuple[Rows, list[Result]]] = {}
        for draw in self._draws():
            for head in (*self.settings.heads, *[CHOSEN] * self.chooses):
                seed = draw.seed if is_random(head, None) else None
                for name in self._names(draw, head):
                    _, results = tasks.setdefault((draw.digest, head, seed), (draw.rows, []))
                    results += self._results(draw, head, name)
        return [
            Task(self, head, seed, rows, tuple(results))
            for (_, head, seed), (rows, results) in tasks.items()
        ]

    def notes(self) -> Iterator[str]:
        """What the support lacks; raises DatasetError for too little."""
        classes = len(self.samples()[0].class_names)
        if self.settings.base_to_new and classes < 3:
            raise DatasetError(
                f"{self.dataset} has too few classes for base-to-new ({classes}), which needs two "
                "to learn and a new one: choose others with datasets=…"
            )
        yield from self._learnable.notes
        if self.support:
            samples = self.support.samples
            if not (self._labels >= 0).any():
                raise self._opened.no_labels((samples.dataset, samples.split))
            _, empty = shortfall(self._labels, None, classes)
            if empty and not self.settings.base_to_new:
                yield f"{samples.name}: {empty} of {classes} classes have no image to learn from"

    def _reader(self, split: str, prompts: str, **options: Any) -> PoolReader:
        names = self.backbones
        return PoolReader(
            self._opened, self.dataset, split, backbones=names, prompts=prompts, **options
        )

    @cached_property
    def _opened(self) -> FeatureStore:
        return FeatureStore.open(self.store)

    @cached_property
    def _data(self) -> Data:
        return Data(self._opened)

    @cached_property
    def _learnable(self) -> Learnable:
        if not self.support:
            return Learnable(self.reader.samples.labels, ())
        overlap = self.settings.allow_overlap
        return learnable(self.support.samples, self.samples(), allow_overlap=overlap)

    @cached_property
    def _labels(self) -> Labels:
        """Labels of the support split that may be learned from: not those of new classes."""
        labels = self._learnable.labels
        if not self.settings.base_to_new:
            return labels
        base, _ = halves(len(self.reader.samples.class_names))
        return np.where(np.isin(labels, base), labels, NO_LABEL).astype(np.int32)

    def _draws(self) -> Iterator[Draw]:
        """Numbers of shots that give the same rows, because no class has more images, stand under
        the largest of them: the same fit is made, and counts in a mean, once.
        """
        nothing = np.empty(0, np.intp)
        yield Draw(0, None, nothing, _digest(nothing))
        for seed in (None, *self.settings.draws) if self.support else ():
            drawn: list[Draw] = []
            for shots in sorted(self.settings.images, key=lambda k: (k is None, k)):
                if shots is None or seed is not None:
                    rows = self._drawn(shots, seed or 0)
                    digest = _digest(rows)
                    drawn = [it for it in drawn if it.digest != digest]
                    drawn.append(Draw(shots, seed, rows, digest))
            yield from drawn

    def _drawn(self, shots: int | None, seed: int) -> Rows:
        """Rows of the support: those that others have drawn, or of our own draw."""
        if shots is None or not (self.settings.coop and self.support):
            return few_shot(self._labels, shots, seed)
        given = read_indices(self.settings.coop, self.support.samples, shots, seed)
        return given[self._learnable.labels[given] >= 0]

    def _names(self, draw: Draw, head: str) -> list[str | None]:
        """The ensembles to measure on a draw, with None for the backbones on their own.

        Each is measured once: what learns nothing, without a draw. On each draw a backbone is
        chosen, and what learns nothing gets its gain over that one there.
        """
        if head == CHOSEN:
            return [] if draw.seed is None else [CHOSEN]
        oracle = [ORACLE] * (len(self.backbones) > 1)
        names = list(dict.fromkeys([None, *oracle, *self.settings.ensembles, BEST_SINGLE]))
        if draw.shots == 0:
            return [name for name in names if not learns(head, name)]
        names = [name for name in names if name is not None or learns(head, None)]
        if draw.shots is None:
            return [name for name in names if is_random(head, name) == (draw.seed is not None)]
        return names

    def _results(self, draw: Draw, head: str, name: str | None) -> Iterator[Result]:
        for at, target in enumerate(self.targets):
            for backbone in self.reader.backbones if name is None else [None]:
                about = self._about(draw, head, target, name, backbone)
                yield Result(at, name, backbone, about)

    def _about(
        self, draw: Draw, head: str, target: Target, ensemble: str | None, backbone: str | None
    ) -> Row:
        """All columns of a result but its numbers."""
        reader, is_fitted, support = target.reader, draw.shots != 0, None
        if is_fitted:
            of = _origin(self.reader, backbone)
            support = {"of": of, "rows": draw.digest, "seed": draw.seed}
        about: Row = {
            "dataset": reader.samples.dataset,
            "split": reader.samples.split,
            "perturbation": reader.perturbation,
            "head": head,
            "ensemble": ensemble or SINGLE,
            "backbones": [backbone] if backbone else list(reader.backbones),
            "prompts": reader.prompts,
            "classes": target.classes,
            "support": self.reader.samples.split if is_fitted else None,
            "support_prompts": self.reader.prompts if is_fitted else None,
            "shots": FULL if draw.shots is None else str(draw.shots),
            "seed": draw.seed,
        }
        about["data"] = self._data.of(about)
        asked = self.settings  # a choice is made from all of them
        pairs = [(head, ensemble)]
        if head == CHOSEN:
            pairs = [(of, to) for of in asked.heads for to in self.candidates]
        about["fingerprint"] = fingerprint(
            {
                "methods": [[of, to, *versions(of, to)] for of, to in pairs],
                "target": _origin(reader, backbone),
                "support": support,
                **{name: about[name] for name in ("classes", "head", "ensemble", "shots", "data")},
            }
        )
        return about


def _digest(rows: Rows) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def _origin(reader: PoolReader, backbone: str | None) -> dict[str, Any]:
    return reader.origin if backbone is None else reader.origin_of(backbone)


def methods_of(settings: ProtocolSettings) -> dict[str, Estimator]:
    """The heads and ensembles that are asked for, by the text that asks."""
    of_heads = {name: from_text(HEADS, name) for name in settings.heads}
    return of_heads | {name: from_text(ENSEMBLES, name) for name in settings.ensembles}


@cache
def versions(head: str, ensemble: str | None) -> list[str]:
    """Versions of clipsyn, and of other packages that the head or the ensemble come from."""
    of_head = HEADS.package(head.partition(":")[0])
    of_ensemble = ENSEMBLES.package((ensemble or ORACLE).partition(":")[0])
    return [__version__, *filter(None, (of_head, of_ensemble))]


@cache
def learns(head: str, name: str | None) -> bool:
    """Whether a method learns from labelled samples."""
    return head == CHOSEN or any(estimator.learns for estimator in _parts(head, name))


@cache
def is_random(head: str, name: str | None) -> bool:
    """Whether a seed changes a method that is fitted on the whole support."""
    if head == CHOSEN:
        return True
    pairs = zip(_parts(head, name, 0), _parts(head, name, 1), strict=True)
    return any(one.get_params() != other.get_params() for one, other in pairs)


def _parts(head: str, name: str | None, seed: int | None = None) -> Iterator[Any]:
    yield from_text(HEADS, head, seed)
    if name is not None and name != ORACLE:
        yield from_text(ENSEMBLES, name, seed)

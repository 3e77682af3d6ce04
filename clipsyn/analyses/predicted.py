"""What the backbones of a store predict, a group of cells at a time.

Most analyses need predictions and labels alone: two bytes a sample and backbone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.spec import Selection
from clipsyn.errors import DatasetError, UsageError
from clipsyn.results.frame import Measured, Row, row
from clipsyn.schema import NO_PREDICTION
from clipsyn.specs import FeatureKey, fingerprint, parse_perturbation
from clipsyn.store.alike import alike_notes
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import replaced_meanwhile
from clipsyn.store.pools import PoolReader
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import groups

ALL = "all"  # what stands for the perturbation of numbers about several

_LOG = logging.getLogger("clipsyn")


@dataclass(frozen=True)
class Predicted:
    """All backbones on one dataset, split, perturbation and prompt set."""

    store: FeatureStore
    samples: SampleTable
    keys: tuple[FeatureKey, ...]  # of one group: they differ in the backbone alone
    prompts: str

    @cached_property
    def predictions(self) -> NDArray[np.uint16]:
        """(backbone, sample); NO_PREDICTION where an image could not be read.

        Raises StaleCell where another command replaces a cell while they are read.
        """
        before = self.fingerprints
        found = np.stack([self.store.predictions(key, self.prompts) for key in self.keys])
        if self._fingerprints() != before:
            raise replaced_meanwhile(self.store.path, self.samples.name)
        return found

    @property
    def labels(self) -> NDArray[np.int32]:
        """(sample,), negative where there is none."""
        return self.samples.labels

    @property
    def n_classes(self) -> int:
        return len(self.samples.class_names)

    @property
    def backbones(self) -> tuple[str, ...]:
        return tuple(key.backbone for key in self.keys)

    @property
    def perturbation(self) -> str:
        return self.keys[0].perturbation

    @property
    def severity(self) -> int | None:
        return parse_perturbation(self.perturbation).severity

    def has_logits(self, key: FeatureKey) -> bool:
        return self.store.has_logits(key)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of the cell of each backbone, as they are before it is read."""
        return self._fingerprints()

    def _fingerprints(self) -> dict[str, str]:
        return {key.backbone: self.store.fingerprint(key, self.prompts) for key in self.keys}

    def reader(
        self, split: str | None = None, perturbation: str | None = None, *, votes: bool = False
    ) -> PoolReader:
        """Pools of the same backbones and prompts, of this or another split or perturbation."""
        return PoolReader(
            self.store,
            self.samples.dataset,
            split or self.samples.split,
            perturbation=perturbation or self.perturbation,
            backbones=self.backbones,
            prompts=self.prompts,
            votes=votes,
        )

    def row(
        self, measured: Measured, backbones: tuple[str, ...], ensemble: str | None = None
    ) -> Row:
        """A row of results about some of the backbones, with zero-shot logits."""
        of = [self.fingerprints[name] for name in backbones]
        return row(
            measured,
            dataset=self.samples.dataset,
            split=self.samples.split,
            perturbation=self.perturbation,
            severity=self.severity,
            ensemble=ensemble,
            backbones=list(backbones),
            prompts=self.prompts,
            fingerprint=(of[0] if len(of) == 1 else fingerprint({"cells": of})) if of else None,
        )


@dataclass(frozen=True)
class Pooled(Predicted):
    """The same backbones under several conditions, of which each image was shown under one."""

    parts: tuple[Predicted, ...]

    @classmethod
    def of(cls, parts: Sequence[Predicted]) -> Pooled:
        """Raises UsageError where the parts have other backbones or an image twice."""
        first = parts[0]
        for part in parts:
            if odd := sorted(set(first.backbones) ^ set(part.backbones)):
                raise UsageError(
                    f"{first.samples.name} has {odd[0]} either under "
                    f"{first.perturbation} or under {part.perturbation}, not both, so they cannot "
                    "be pooled: choose with backbones=… or perturbations=…"
                )
        return cls(first.store, first.samples, first.keys, first.prompts, tuple(parts))

    @cached_property
    def predictions(self) -> NDArray[np.uint16]:
        found = np.stack([part.predictions for part in self.parts])
        if ((found != NO_PREDICTION).sum(axis=0) > 1).any():
            raise UsageError(
                f"{self.samples.name} has the same images under several "
                "perturbations: what can be pooled is conditions, each image shown under one"
            )
        pooled: NDArray[np.uint16] = found.min(axis=0)  # NO_PREDICTION is the largest number
        return pooled

    @property
    def perturbation(self) -> str:
        return ALL

    @property
    def severity(self) -> None:
        return None

    def has_logits(self, key: FeatureKey) -> bool:
        """Logits are not pooled."""
        return False

    def _fingerprints(self) -> dict[str, str]:
        of = {name: [part.fingerprints[name] for part in self.parts] for name in self.backbones}
        return {name: fingerprint({"cells": cells}) for name, cells in of.items()}


def predicted(
    store: FeatureStore,
    selection: Selection,
    *,
    pooled: bool = False,
) -> Iterator[Predicted]:
    """Every group of cells that passes the filters, clean images first.

    pooled: one group for all
    perturbations of a dataset, split and prompt set, where each image was shown under one (else
    UsageError). Unlabelled datasets are left out unless they are asked for by name. Raises
    MissingCell with the extract line that helps, UnknownName with near matches, and DatasetError
    where nothing has labels.
    """
    keys = selection.keys(store)
    unlabelled, any_labels = [], False
    said: set[str] = set()
    for (dataset, split), cells in groupby(keys, key=lambda key: (key.dataset, key.split)):
        samples = store.samples(dataset, split)
        if not (samples.labels >= 0).any():
            unlabelled.append(f"{dataset}/{split}")
            continue
        any_labels = True
        found = [
            Predicted(store, samples, tuple(group), prompt_set)
            for (_, prompt_set), group in groups(store, cells, selection.prompts)
        ]
        _say_alike(found, said)
        yield from _pooled(found) if pooled else found
    if unlabelled and (selection.datasets is not None or not any_labels):
        raise DatasetError(
            f"{', '.join(unlabelled)} has no labels, so nothing can be right or wrong: extract a "
            "labelled folder or a manifest with a label column"
        )


def _say_alike(found: Sequence[Predicted], said: set[str]) -> None:
    """Which classes backbones cannot tell apart, once for each dataset and prompt set."""
    backbones: dict[str, tuple[str, ...]] = {}
    for group in found:
        backbones.setdefault(group.prompts, group.backbones)
    for prompts, names in backbones.items():
        dataset = found[0].samples.dataset
        if f"{dataset}/{prompts}" not in said:
            said.add(f"{dataset}/{prompts}")
            for note in alike_notes(found[0].store, dataset, prompts, names):
                _LOG.info("note: %s", note)


def _pooled(found: Sequence[Predicted]) -> Iterator[Predicted]:
    by_prompts: dict[str, list[Predicted]] = {}
    for group in found:
        by_prompts.setdefault(group.prompts, []).append(group)
    for parts in by_prompts.values():
        yield Pooled.of(parts)

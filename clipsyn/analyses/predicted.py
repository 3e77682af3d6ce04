"""What the backbones of a store predict, a group of cells at a time.

Most analyses need nothing but predictions, two bytes a sample and backbone, and labels. Those that
fit or choose on a support need `clipsyn.analyses.fitted`, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import UsageError
from clipsyn.evaluation import Selection
from clipsyn.evaluation.results.frame import ALL, Measured, Row, row
from clipsyn.methods.numerics import Labels, Mask, Rows
from clipsyn.methods.numerics.logits import NO_PREDICTION
from clipsyn.methods.numerics.metrics import judge, scored
from clipsyn.methods.pool import Pool
from clipsyn.names import FeatureKey, fingerprint
from clipsyn.settings import SINGLE
from clipsyn.stats.images import Images
from clipsyn.store.cell import Look
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import replaced_meanwhile
from clipsyn.store.overlap import alike_notes
from clipsyn.store.pools import PoolReader
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import groups
from clipsyn.text import LOG


@dataclass(frozen=True)
class Predicted:
    """All backbones on one dataset, split, perturbation and prompt set."""

    store: FeatureStore
    samples: SampleTable
    keys: tuple[FeatureKey, ...]  # of one group: they differ in the backbone alone
    prompts: str
    looks: dict[FeatureKey, Look] = field(default_factory=dict, kw_only=True)  # at derived logits

    @cached_property
    def predictions(self) -> NDArray[np.uint16]:
        """(backbone, sample); NO_PREDICTION where an image could not be read.

        Raises StaleCell where another command replaces a cell while they are read.
        """
        before = self.fingerprints
        read = np.stack([self._predictions(key) for key in self.keys])
        if self._fingerprints() != before:
            raise replaced_meanwhile(self.store.path, self.samples.name)
        return read

    def _predictions(self, key: FeatureKey) -> NDArray[np.uint16]:
        return self.store.cell(key).predictions(self.prompts, self.looks.get(key))

    @property
    def labels(self) -> Labels:
        """(sample,), negative where there is none."""
        return self.samples.labels

    @cached_property
    def counted(self) -> Mask:
        """(sample,) whether it has a label and a prediction of every backbone."""
        return scored(self.predictions, self.labels)

    @cached_property
    def images(self) -> Images:
        """What the samples that count show."""
        return self.samples.images.take(self.counted)

    @property
    def n_classes(self) -> int:
        return len(self.samples.class_names)

    @property
    def backbones(self) -> tuple[str, ...]:
        return tuple(key.backbone for key in self.keys)

    @property
    def perturbation(self) -> str:
        return self.keys[0].perturbation

    def has_logits(self, key: FeatureKey) -> bool:
        return self.store.cell(key).has_logits

    def confidences(self, key: FeatureKey, rows: Rows) -> Sequence[float | None]:
        """(row,) of one backbone, how sure it is; None where it has answers alone."""
        if self.has_logits(key):
            pool = self.alone(key, rows)
            return [*map(float, judge(pool.logits[:, 0], pool.labels).confidence)]
        if self.store.cell(key).has_confidences:
            return [*map(float, self.store.cell(key).confidences(self.prompts)[rows])]
        return [None] * len(rows)

    def alone(self, key: FeatureKey, rows: Rows) -> Pool:
        """Logits (row, 1, class) of one backbone, and their scale where it is known."""
        return replace(self, keys=(key,)).reader().read(rows, embeddings=False)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Backbone -> fingerprint of its cell, before it is read."""
        return self._fingerprints()

    @cached_property
    def _of_all(self) -> str:
        """The fingerprint of all backbones together, made once for all rows."""
        return fingerprint({"cells": list(self.fingerprints.values())})

    def _fingerprints(self) -> dict[str, str]:
        return {key.backbone: self.store.cell(key).fingerprint(self.prompts) for key in self.keys}

    def reader(self, split: str | None = None, perturbation: str | None = None) -> PoolReader:
        """Pools of the same backbones and prompts, of this or another split or perturbation."""
        return PoolReader(
            self.store,
            self.samples.dataset,
            split or self.samples.split,
            perturbation=perturbation or self.perturbation,
            backbones=self.backbones,
            prompts=self.prompts,
        )

    def row(
        self, measured: Measured, backbones: tuple[str, ...], ensemble: str | None = None
    ) -> Row:
        """A row of results about some of the backbones, with zero-shot logits.

        Its fingerprint is that of all backbones, which decide together which samples count.
        """
        return row(
            measured,
            dataset=self.samples.dataset,
            split=self.samples.split,
            perturbation=self.perturbation,
            ensemble=ensemble or (SINGLE if len(backbones) == 1 else None),
            backbones=list(backbones),
            prompts=self.prompts,
            fingerprint=self._of_all,
        )


@dataclass(frozen=True)
class Pooled(Predicted):
    """The same backbones under several perturbations, where each image was shown under one."""

    parts: tuple[Predicted, ...]

    @classmethod
    def of(cls, parts: Sequence[Predicted]) -> Pooled:
        """Raises UsageError where the parts have other backbones than each other."""
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
        """(backbone, sample); raises UsageError where an image was shown under several."""
        read = np.stack([part.predictions for part in self.parts])
        if ((read != NO_PREDICTION).sum(axis=0) > 1).any():
            raise UsageError(
                f"{self.samples.name} has the same images under several perturbations: what can be "
                "pooled is conditions, each image shown under one"
            )
        pooled: NDArray[np.uint16] = read.min(axis=0)  # NO_PREDICTION is the largest number
        return pooled

    @property
    def perturbation(self) -> str:
        return ALL

    def has_logits(self, key: FeatureKey) -> bool:
        """Logits are not pooled."""
        return False

    def confidences(self, key: FeatureKey, rows: Rows) -> Sequence[float | None]:
        """Nor are confidences."""
        return [None] * len(rows)

    def _fingerprints(self) -> dict[str, str]:
        return {
            name: fingerprint({"cells": [part.fingerprints[name] for part in self.parts]})
            for name in self.backbones
        }


def predicted(
    store: FeatureStore, selection: Selection, *, pooled: bool = False, unlabelled: bool = False
) -> Iterator[Predicted]:
    """Every group of cells that passes the filters, clean images first.

    pooled: all perturbations of a dataset, split and prompt set are one group, see `Pooled`.
    Unlabelled datasets are left out, unless `unlabelled`. Raises MissingCell with the
    extract line that helps, UnknownName with near matches, DatasetError where nothing has labels,
    and UsageError for what cannot be pooled.
    """
    keys = selection.keys(store)
    bare, any_labels = [], False
    noted: set[str] = set()
    for (dataset, split), cells in groupby(keys, key=lambda key: (key.dataset, key.split)):
        samples = store.samples(dataset, split)
        if not unlabelled and not (samples.labels >= 0).any():
            bare.append((dataset, split))
            continue
        any_labels = True
        conditions = [
            Predicted(store, samples, tuple(group), prompts)
            for (_, prompts), group in groups(store, cells, selection.prompts)
        ]
        by_prompts: dict[str, list[Predicted]] = {}
        for condition in conditions:
            by_prompts.setdefault(condition.prompts, []).append(condition)
        for first, *_ in by_prompts.values():
            _note_alike(first, noted)
        yield from map(Pooled.of, by_prompts.values()) if pooled else conditions
    if bare and (selection.datasets is not None or not any_labels):
        raise store.no_labels(*bare)


def _note_alike(group: Predicted, noted: set[str]) -> None:
    """Say which backbones are one, and which classes they cannot tell apart, each thing once."""
    for note in alike_notes(group.store, group.samples.dataset, group.prompts, group.backbones):
        if note not in noted:
            noted.add(note)
            LOG.info("note: %s", note)

"""What the backbones of a store predict, a group of cells at a time.

Most analyses need predictions and labels alone: two bytes a sample and backbone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError
from clipsyn.evaluate.results import Measured, Row
from clipsyn.specs import FeatureKey, fingerprint, parse_perturbation
from clipsyn.store.features import FeatureStore, replaced_meanwhile
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import Names, groups, select


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
            raise replaced_meanwhile(self.store.path, self.samples.dataset, self.samples.split)
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

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of the cell of each backbone, as they are before it is read."""
        return self._fingerprints()

    def _fingerprints(self) -> dict[str, str]:
        return {key.backbone: self.store.fingerprint(key, self.prompts) for key in self.keys}

    def row(
        self, measured: Measured, backbones: tuple[str, ...], ensemble: str | None = None
    ) -> Row:
        """A row of results about some of the backbones, with zero-shot logits."""
        interval = measured.interval
        of = [self.fingerprints[name] for name in backbones]
        return {
            "dataset": self.samples.dataset,
            "split": self.samples.split,
            "perturbation": self.perturbation,
            "severity": parse_perturbation(self.perturbation).severity,
            "head": "zero-shot",
            "ensemble": ensemble,
            "backbones": "+".join(backbones),
            "prompts": self.prompts,
            "classes": "all",
            "support": None,
            "shots": 0,
            "seed": None,
            "metric": measured.metric,
            "value": measured.score.value,
            "ci_low": interval.low if interval else None,
            "ci_high": interval.high if interval else None,
            "n": measured.score.n,
            "fingerprint": (of[0] if len(of) == 1 else fingerprint({"cells": of})) if of else None,
        }


def predicted(
    store: FeatureStore,
    *,
    datasets: Names = None,
    splits: Names = ("test",),
    perturbations: Names = None,
    backbones: Names = None,
    prompts: Names = None,
) -> Iterator[Predicted]:
    """Every group of cells that passes the filters, clean images first.

    Filters are names or patterns with ``*``; None takes all there is. Unlabelled datasets are
    left out unless they are asked for by name. Raises MissingCell with the extract line that
    helps, UnknownName with near matches, and DatasetError where nothing has labels.
    """
    keys = select(
        store, dataset=datasets, split=splits, perturbation=perturbations, backbone=backbones
    )
    unlabelled, any_labels = [], False
    for (dataset, split), cells in groupby(keys, key=lambda key: (key.dataset, key.split)):
        samples = store.samples(dataset, split)
        if not (samples.labels >= 0).any():
            unlabelled.append(f"{dataset}/{split}")
            continue
        any_labels = True
        for (_, prompt_set), group in groups(store, cells, prompts):
            yield Predicted(store, samples, tuple(group), prompt_set)
    if unlabelled and (datasets is not None or not any_labels):
        raise DatasetError(
            f"{', '.join(unlabelled)} has no labels, so nothing can be right or wrong: extract a "
            "labelled folder or a manifest with a label column"
        )

"""What `evaluate` is asked for, against what the store has: methods and cells."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

from clipsyn.ensembles import ENSEMBLES
from clipsyn.errors import DatasetError, UsageError
from clipsyn.estimator import from_text
from clipsyn.evaluate.study import Protocol, Shots
from clipsyn.heads import HEADS
from clipsyn.registry import Registry
from clipsyn.specs import FeatureKey
from clipsyn.store.features import FeatureStore
from clipsyn.store.select import Names, groups, select

ALL = "all"  # stands for every head, or every ensemble
_MOST_SHOTS = 1_000_000
_LOG = logging.getLogger("clipsyn")
Place = tuple[str, str]  # split, perturbation


def read_shots(texts: Sequence[str] | None) -> tuple[Shots, ...]:
    """Numbers of images a class; "full" is the whole support split."""
    try:
        return tuple(None if text == "full" else int(text) for text in texts or ())
    except ValueError:
        raise UsageError(
            f"shots are numbers or full, such as 1,2,4,full; not {', '.join(texts or ())}"
        ) from None


def spread(texts: Sequence[str], registry: Registry) -> tuple[str, ...]:
    """Each name once; "all" stands for all of the registry."""
    names = (name for text in texts for name in (registry if text == ALL else [text]))
    return tuple(dict.fromkeys(names))


def usable(
    protocol: Protocol, by_name: Collection[str], lacking: Sequence[str] = ()
) -> tuple[Protocol, list[str]]:
    """The protocol without what cannot work here, and what is to be said of it.

    by_name: heads and ensembles that stay, so that they are refused. lacking: backbones without
    embeddings.
    """
    bound: dict[str, set[str]] = {}
    learning = {text for text in protocol.heads if from_text(HEADS, text).learns}
    ensembles = {text: from_text(ENSEMBLES, text) for text in protocol.ensembles}
    if protocol.base_to_new:
        knowing = (text for text, of in ensembles.items() if of.knows_classes)
        bound["base-to-new cannot use what learns the classes"] = learning.union(knowing)
    if lacking:
        needing = (text for text, of in ensembles.items() if of.needs_embeddings)
        bound[f"there are no embeddings of {', '.join(lacking)}"] = learning.union(needing)
    notes, kept = [], protocol
    for why, texts in bound.items():
        out = [t for t in (*kept.heads, *kept.ensembles) if t in texts and t not in by_name]
        if out:
            notes.append(f"{', '.join(out)} left out: {why}")
        kept = replace(
            kept,
            heads=tuple(text for text in kept.heads if text not in out),
            ensembles=tuple(text for text in kept.ensembles if text not in out),
        )
    return kept, notes


def check(protocol: Protocol) -> None:
    """Refuse names and combinations that cannot work before anything is read."""
    heads = {text: from_text(HEADS, text) for text in protocol.heads}
    ensembles = {text: from_text(ENSEMBLES, text) for text in protocol.ensembles}
    if not heads:
        raise UsageError("no head is asked for: name some, such as zero-shot")
    _check_shots(protocol.shots)
    if not protocol.base_to_new:
        return
    if learned := [text for text, head in heads.items() if head.learns]:
        raise UsageError(
            f"base-to-new needs a head for classes it has never seen: {learned[0]} learns the "
            "classes, leave it out"
        )
    if bound := [text for text, ensemble in ensembles.items() if ensemble.knows_classes]:
        raise UsageError(
            f"base-to-new cannot use {bound[0]}, which learns the classes: leave it out"
        )


def _check_shots(shots: Sequence[Shots]) -> None:
    numbers = [number for number in shots if number is not None]
    if numbers and min(numbers) < 1:
        raise UsageError(f"shots are images of a class, at least 1, or full; not {min(numbers)}")
    if numbers and max(numbers) > _MOST_SHOTS:
        raise UsageError(
            f"{max(numbers)} shots are more images than any class has: give full for the whole "
            "support split"
        )


class Unit(NamedTuple):
    """What is measured together: one dataset and prompt set."""

    dataset: str
    places: tuple[Place, ...]
    backbones: tuple[str, ...]
    prompts: str
    lacking: tuple[str, ...]  # backbones without embeddings


@dataclass(frozen=True)
class Choice:
    """Which datasets, splits, perturbations, backbones and prompt sets the filters leave."""

    store: FeatureStore
    splits: Names
    perturbations: Names
    backbones: Names
    prompts: Names
    support: str

    def units(self, datasets: Names) -> Iterator[Unit]:
        for dataset, of_dataset in groupby(self._cells(datasets), key=lambda key: key.dataset):
            places: dict[str, list[Place]] = {}  # by prompt set
            cells: dict[str, FeatureKey] = {}  # by backbone
            for split, of_split in groupby(of_dataset, key=lambda key: key.split):
                for (perturbation, prompt_set), keys in groups(self.store, of_split, self.prompts):
                    places.setdefault(prompt_set, []).append((split, perturbation))
                    cells |= {key.backbone: key for key in keys}
            lacking = tuple(name for name in sorted(cells) if self.store.imported(cells[name]))
            for prompt_set in sorted(places):
                of = tuple(places[prompt_set])
                yield Unit(dataset, of, tuple(sorted(cells)), prompt_set, lacking)

    def _cells(self, datasets: Names) -> list[FeatureKey]:
        """Those of labelled splits, of datasets whose support has labels too."""
        keys = select(
            self.store,
            dataset=datasets,
            split=self.splits,
            perturbation=self.perturbations,
            backbone=self.backbones,
        )
        if any(key.split == self.support for key in keys):
            raise UsageError(
                f"{self.support} is both fitted on and measured on: give another --support or "
                "--split"
            )
        bare = self._bare((key.dataset, key.split) for key in keys)
        left = [key for key in keys if (key.dataset, key.split) not in bare]
        bare |= self._bare((key.dataset, self.support) for key in left)
        left = [key for key in left if (key.dataset, self.support) not in bare]
        names = ", ".join("/".join(place) for place in sorted(bare))
        if bare and (datasets is not None or not left):
            raise DatasetError(no_labels(names))
        if bare:
            _LOG.info("note: %s left out: no labels", names)
        return left

    def _bare(self, places: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of the datasets and splits that have no label."""
        return {
            place for place in set(places) if not (self.store.samples(*place).labels >= 0).any()
        }


def no_labels(where: str) -> str:
    return (
        f"{where} has no labels, so nothing can be learned or judged: extract a labelled folder or "
        "a manifest with a label column"
    )

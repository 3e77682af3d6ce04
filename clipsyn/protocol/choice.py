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
from clipsyn.heads import HEADS
from clipsyn.protocol.study import Protocol, Shots
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


class Unit(NamedTuple):
    """What is measured together: one dataset and prompt set."""

    dataset: str
    places: tuple[Place, ...]
    backbones: tuple[str, ...]
    prompts: str
    support: str | None  # the split that is fitted on, if any
    lacking: tuple[str, ...]  # backbones without embeddings
    silent: tuple[str, ...]  # backbones of which there are predictions alone
    unsure: tuple[str, ...]  # of these the ones without confidences


def learning(protocol: Protocol) -> set[str]:
    """The heads and ensembles that need labelled samples to learn from."""
    heads = {text for text in protocol.heads if from_text(HEADS, text).learns}
    return heads | {text for text in protocol.ensembles if from_text(ENSEMBLES, text).learns}


def usable(
    protocol: Protocol, by_name: Collection[str], unit: Unit | None = None
) -> tuple[Protocol, list[str]]:
    """The protocol without what cannot work (in a unit), and what is to be said of it.

    by_name: heads and ensembles that stay, so that they are refused. Of predictions alone what can
    be made is: it is an error only where nothing is left.
    """
    heads = {text for text in protocol.heads if from_text(HEADS, text).learns}
    ensembles = {text: from_text(ENSEMBLES, text) for text in protocol.ensembles}
    bound: dict[str, set[str]] = {}
    if protocol.base_to_new:
        knowing = {text for text, of in ensembles.items() if of.knows_classes}
        bound["base-to-new cannot use what learns the classes"] = (heads | knowing) - set(by_name)
    if unit and unit.lacking:
        needing = {text for text, of in ensembles.items() if of.needs_embeddings}
        why = f"there are no embeddings of {', '.join(unit.lacking)}"
        bound[why] = (heads | needing) - set(by_name)
    if unit and unit.support is None:
        bound["there are no labelled images to learn from (support=…)"] = learning(protocol)
    if unit and unit.unsure:
        needing = {text for text, of in ensembles.items() if of.needs_confidences}
        bound[f"there are no confidences of {', '.join(unit.unsure)}"] = needing
    if unit and unit.silent:
        needing = {text for text, of in ensembles.items() if of.needs_logits}
        bound[f"there are predictions alone of {', '.join(unit.silent)}"] = heads | needing
    notes, kept = [], protocol
    for why, texts in bound.items():
        if out := [text for text in (*kept.heads, *kept.ensembles) if text in texts]:
            notes.append(f"{', '.join(out)} left out: {why}")
        kept = replace(
            kept,
            heads=tuple(text for text in kept.heads if text not in texts),
            ensembles=tuple(text for text in kept.ensembles if text not in texts),
        )
    if unit and unit.silent:
        _check_silent(unit, protocol, kept)
    return kept, notes


def _check_silent(unit: Unit, asked: Protocol, kept: Protocol) -> None:
    """Refuse what predictions alone cannot do at all."""
    every = {name: from_text(ENSEMBLES, name) for name in ENSEMBLES}
    needing = {name for name, of in every.items() if unit.unsure and of.needs_confidences}
    votes = [name for name, of in every.items() if not of.needs_logits and name not in needing]
    if asked.base_to_new or not kept.heads or (asked.ensembles and not kept.ensembles):
        raise UsageError(
            f"of {', '.join(unit.silent)} on {unit.dataset} there are predictions alone: they can "
            f"be compared and combined by {', '.join(votes)}, on the zero-shot head, and nothing "
            "else; import logits, or choose other cells with backbones=…"
        )


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


@dataclass(frozen=True)
class Choice:
    """Which datasets, splits, perturbations, backbones and prompt sets the filters leave.

    support: the split to learn from, None where nothing learns. optional: what learns may be left
    out where no dataset has such a split.
    """

    store: FeatureStore
    splits: Names
    perturbations: Names
    backbones: Names
    prompts: Names
    support: str | None
    optional: bool

    def units(self, datasets: Names) -> Iterator[Unit]:
        cells, support = self._cells(datasets)
        for dataset, of_dataset in groupby(cells, key=lambda key: key.dataset):
            places: dict[str, list[Place]] = {}  # by prompt set
            found: dict[str, FeatureKey] = {}  # by backbone
            for split, of_split in groupby(of_dataset, key=lambda key: key.split):
                for (perturbation, prompt_set), keys in groups(self.store, of_split, self.prompts):
                    places.setdefault(prompt_set, []).append((split, perturbation))
                    found |= {key.backbone: key for key in keys}
            names = tuple(sorted(found))
            chosen = [self.store.cell(found[name]) for name in names]
            lacking = tuple(cell.key.backbone for cell in chosen if not cell.has_embeddings)
            silent = tuple(cell.key.backbone for cell in chosen if not cell.has_logits)
            unsure = tuple(cell.key.backbone for cell in chosen if not cell.has_confidences)
            for prompt_set in sorted(places):
                of = tuple(places[prompt_set])
                yield Unit(dataset, of, names, prompt_set, support, lacking, silent, unsure)

    def _cells(self, datasets: Names) -> tuple[list[FeatureKey], str | None]:
        """Those of labelled splits, of datasets whose support has labels too; and that support."""
        keys = select(
            self.store,
            dataset=datasets,
            split=self.splits,
            perturbation=self.perturbations,
            backbone=self.backbones,
        )
        if any(key.split == self.support for key in keys):
            raise UsageError(
                f"{self.support} is both fitted on and measured on: choose another support=… "
                "or splits=…"
            )
        bare = self._bare((key.dataset, key.split) for key in keys)
        left = [key for key in keys if (key.dataset, key.split) not in bare]
        support = self._support_of(left)
        if support is not None:
            bare |= self._bare((key.dataset, support) for key in left)
            left = [key for key in left if (key.dataset, support) not in bare]
        names = ", ".join("/".join(place) for place in sorted(bare))
        if bare and (datasets is not None or not left):
            raise DatasetError(no_labels(names))
        if bare:
            _LOG.info("note: %s left out: no labels", names)
        return left, support

    def _support_of(self, keys: Sequence[FeatureKey]) -> str | None:
        """The support split, unless no dataset has labels in it and none are needed."""
        if self.support is None or not self.optional:
            return self.support
        of = {(key.dataset, self.support) for key in keys}
        there = {place for place in of if self.store.samples_path(*place).exists()}
        return self.support if there - self._bare(there) else None

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

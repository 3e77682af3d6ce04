"""The same backbones on the same samples, clean and perturbed: what robustness is measured on.

Reads predictions and labels alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.predicted import ALL, Predicted, predicted
from clipsyn.analyses.robustness.measures import corruption_error, families
from clipsyn.errors import MissingCell, UsageError
from clipsyn.evaluation.results.frame import Measured, Row
from clipsyn.evaluation.selection import Selection
from clipsyn.methods.numerics.metrics import (
    class_accuracy,
    correctness,
    independent_oracle,
    ratio,
    scored,
)
from clipsyn.names import CLEAN, FeatureKey, parse_perturbation
from clipsyn.stats.images import Images
from clipsyn.store.features import FeatureStore
from clipsyn.store.select import Names, matching, terms_of

_Place = tuple[str, str]  # dataset, split


class ByImage(NamedTuple):
    """What the numbers of a condition are means of: for each dataset an array (method, sample)."""

    right: list[NDArray[np.float64]]  # accuracies
    error: list[NDArray[np.float64]] | None = None  # how far ce, or mce, goes with each sample


class Condition(NamedTuple):
    """Clean images, one perturbation at one severity, or a mean over several: arrays (method,)."""

    label: str
    severity: int | None  # None for a mean
    images: Images  # that count
    accuracy: NDArray[np.float64]
    error: NDArray[np.float64] | None = None  # of a mean: ce, or mce
    by_image: ByImage = ByImage([])

    @property
    def n(self) -> int:
        return len(self.images)

    def metrics(self, clean: Condition) -> dict[str, NDArray[np.float64]]:
        """(method,) of each metric that every method has, from its accuracy here and on clean."""
        metrics = {"acc1": self.accuracy}
        if self.label != clean.label:
            metrics["drop"] = clean.accuracy - self.accuracy
            metrics["relative_robustness"] = ratio(self.accuracy, clean.accuracy)
        if self.error is not None:
            metrics["mce" if self.label == ALL else "ce"] = self.error
        return metrics


@dataclass(frozen=True)
class Trial:
    """The backbones on one dataset, split and prompt set, clean and under perturbations.

    Or their mean accuracies over several datasets, the `members`; `clean` is then the first one's.
    A sample counts under a perturbation where it has a label and a prediction of every backbone.
    Mostly those are the same samples everywhere; imported studies may show each image once.
    """

    clean: Predicted
    labels: tuple[str, ...]  # of the perturbations, clean first
    columns: NDArray[np.bool_]  # (perturbation, method + 1, sample): who is right, what counts
    marks: NDArray[np.uint64]  # (sample,) of their content, without samples that count nowhere
    accuracy: NDArray[np.float64]  # (perturbation, method): backbones, then oracle
    independent: dict[str, float]  # by condition: oracle of errors independent within a class
    cells: list[str]  # fingerprints of all that is read
    members: tuple[Trial, ...] = ()

    @classmethod
    def of(cls, groups: Sequence[Predicted]) -> Trial:
        """From one group for each perturbation, clean images first."""
        labels = groups[0].labels
        counted = np.stack([scored(group.predictions, labels) for group in groups])
        somewhere = np.asarray(counted.any(axis=0))
        counted = counted[:, somewhere]
        right = np.stack([group.predictions[:, somewhere] for group in groups]) == labels[somewhere]
        right &= counted[:, None]
        columns = np.concatenate([right, right.any(axis=1, keepdims=True), counted[:, None]], 1)
        hits = columns.sum(axis=-1)
        return cls(
            groups[0],
            tuple(group.perturbation for group in groups),
            columns,
            groups[0].samples.marks[somewhere],
            ratio(hits[:, :-1], hits[:, -1:]),
            _independent(groups, labels),
            [cell for group in groups for cell in group.fingerprints.values()],
        )

    @classmethod
    def mean(cls, members: Sequence[Trial]) -> Trial:
        """Over datasets, of equal weight, that have the same backbones and perturbations."""
        first = members[0]
        return cls(
            first.clean,
            first.labels,
            np.concatenate([trial.columns for trial in members], axis=-1),
            np.concatenate([trial.marks for trial in members]),
            np.mean([trial.accuracy for trial in members], axis=0),
            {
                label: float(np.mean([trial.independent[label] for trial in members]))
                for label in first.independent
            },
            [cell for trial in members for cell in trial.cells],
            tuple(members),
        )

    @property
    def dataset(self) -> str | None:
        """None for a mean over datasets."""
        return None if self.members else self.clean.samples.dataset

    @property
    def backbones(self) -> tuple[str, ...]:
        return self.clean.backbones

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.clean.samples.split}"

    def row(self, measured: Measured, names: tuple[str, ...], ensemble: str | None) -> Row:
        return self.clean.row(measured, names, ensemble) | {"dataset": self.dataset}

    def measured(self, reference: int) -> Iterator[Condition]:
        """`conditions` of the backbones and their oracle, with what they are means of."""
        conditions = self.conditions(self.accuracy, reference)
        for condition, by_image in zip(conditions, self._by_image(reference), strict=True):
            yield condition._replace(by_image=by_image)

    def conditions(self, accuracy: NDArray[np.float64], reference: int) -> Iterator[Condition]:
        """Clean images, every perturbation, their means over severities, and the mean of those.

        accuracy: (perturbation, method), in the order of `labels`; reference: index of a method.
        """
        for label, row in zip(self.labels, accuracy, strict=True):
            yield Condition(label, parse_perturbation(label).severity, self.shown([label]), row)
        means, errors = [], []
        for name, members in families(self.labels).items():
            several = accuracy[[self.labels.index(label) for label in members]]
            means.append(several.mean(axis=0))
            errors.append(corruption_error(several, reference))
            yield Condition(name, None, self.shown(members), means[-1], errors[-1])
        overall = np.mean(means, axis=0), np.mean(errors, axis=0)
        yield Condition(ALL, None, self.shown(self.labels[1:]), *overall)

    def _by_image(self, reference: int) -> Iterator[ByImage]:
        """Of each of the `conditions`, in their order; those of errors to first order."""
        sets = self.members or (self,)
        for label in self.labels:
            yield ByImage([trial._right(label) for trial in sets])
        every = []
        for members in families(self.labels).values():
            right = [_mean_of([trial._right(label) for label in members]) for trial in sets]
            errors = 1 - np.mean([rows.mean(axis=1) for rows in right], axis=0)
            of_family = ratio(errors, errors[reference])[:, None]
            error = [
                ratio(1 - rows - of_family * (1 - rows[reference]), errors[reference])
                for rows in right
            ]
            every.append(ByImage(right, error))
            yield every[-1]
        parts = zip(*(of.right for of in every), strict=True)
        errors_of = zip(*(of.error for of in every if of.error), strict=True)
        yield ByImage([*map(_mean_of, parts)], [*map(_mean_of, errors_of)])

    def _right(self, label: str) -> NDArray[np.float64]:
        """(method, sample) of one dataset, whose means are the accuracies under a perturbation.

        A sample that does not count there has the accuracy itself.
        """
        place = self.labels.index(label)
        *right, counts = self.columns[place]
        accuracy = self.accuracy[place][:, None]
        apart = (right - accuracy * counts) * (len(counts) / max(1, counts.sum()))
        return np.asarray(accuracy + apart)

    @cached_property
    def images(self) -> list[Images]:
        """What the samples of each dataset show."""
        return Images.of_sets([trial.marks for trial in self.members or (self,)])

    def shown(self, labels: Sequence[str]) -> Images:
        """What the samples show that count under any of these perturbations."""
        places = [self.labels.index(label) for label in labels]
        number = np.concatenate([of.number for of in self.images])
        return Images.of(number[self.columns[places, -1].any(axis=0)])


def trials(store: FeatureStore, selection: Selection) -> list[Trial]:
    """One for every dataset, split and prompt set that has perturbed images.

    Clean images are always taken. Raises MissingCell with the extract line where clean images, or a
    backbone under a perturbation, are missing; UnknownName with near matches; DatasetError
    without labels.
    """
    places = _places(store, selection)
    _refuse_gaps(store, places, selection.backbones)
    if selection.perturbations is not None:
        wanted = (*terms_of("perturbation", selection.perturbations), CLEAN.label)
        selection = selection.replaced(perturbations=wanted)
    by_prompts: dict[tuple[_Place, str], list[Predicted]] = {}
    for group in predicted(store, selection):
        place = group.samples.dataset, group.samples.split
        if place in places:
            by_prompts.setdefault((place, group.prompts), []).append(group)
    if not by_prompts:
        raise store.no_labels(*places)
    for groups in by_prompts.values():
        _refuse_mixed(groups)
    return [Trial.of(groups) for groups in by_prompts.values()]


def means(single: Sequence[Trial]) -> list[Trial]:
    """For each split and prompt set the mean over datasets, over the most that can be compared."""
    alike: dict[tuple[str, str], dict[tuple[tuple[str, ...], ...], list[Trial]]] = {}
    for trial in single:
        kinds = alike.setdefault((trial.clean.samples.split, trial.clean.prompts), {})
        kinds.setdefault((trial.backbones, trial.labels), []).append(trial)
    most = (max(kinds.values(), key=len) for kinds in alike.values())
    return [Trial.mean(members) for members in most if len(members) > 1]


def _places(store: FeatureStore, selection: Selection) -> dict[_Place, list[str]]:
    """Where there are perturbed images of what is asked for, and their perturbations and clean."""
    keys, datasets = selection.keys(store), selection.datasets
    places: dict[_Place, list[str]] = {}
    for key in keys:
        if key.perturbation != CLEAN.label:
            labels = places.setdefault((key.dataset, key.split), [CLEAN.label])
            labels += [key.perturbation] if key.perturbation not in labels else []
    perturbed = {dataset for dataset, _ in places}
    for term in ["*"] if datasets is None else terms_of("dataset", datasets):
        if not matching(term, perturbed):
            clean = next(key for key in keys if matching(term, [key.dataset]))
            raise MissingCell(
                f"{store.path} has clean images only of {clean.dataset}/{clean.split}: run "
                f"`{store.extract_line(clean, '--perturb', 'jpeg:3')}`"
            )
    return places


def _refuse_gaps(store: FeatureStore, places: dict[_Place, list[str]], backbones: Names) -> None:
    """Every backbone is needed on clean images and under every perturbation of a place."""
    terms = ("*",) if backbones is None else terms_of("backbone", backbones)
    there = set(store.keys())
    for (dataset, split), labels in places.items():
        names = {
            key.backbone
            for key in store.keys(dataset=[dataset], split=[split], perturbation=labels)
            if any(matching(term, [key.backbone]) for term in terms)
            and store.cell(key).has_predictions
        }
        for label in labels:
            for name in sorted(names):
                key = FeatureKey(dataset, split, label, name)
                if key not in there:
                    raise MissingCell(
                        f"{store.path} has no {key}, so that backbone cannot be compared: run "
                        f"`{store.extract_line(key)}`, or choose with backbones=… and "
                        "perturbations=…"
                    )


def _refuse_mixed(groups: Sequence[Predicted]) -> None:
    """Cells of one backbone that were extracted and imported may have other prompt sets."""
    first = groups[0]
    where = f"{first.samples.name} with prompts {first.prompts}"
    if first.perturbation != CLEAN.label:
        raise UsageError(f"{where} has no clean images to compare with: choose with prompts=…")
    for group in groups:
        if odd := sorted(set(first.backbones) ^ set(group.backbones)):
            raise UsageError(
                f"{where} has {odd[0]} either clean or under {group.perturbation}, not both: "
                "choose with backbones=…, perturbations=… or prompts=…"
            )


def _independent(groups: Sequence[Predicted], labels: NDArray[np.int32]) -> dict[str, float]:
    """By condition: each perturbation, the means over severities, and the mean of those."""
    marks = {}
    for group in groups:
        right = correctness(group.predictions, labels)
        accuracy = class_accuracy(right, labels[scored(group.predictions, labels)])
        marks[group.perturbation] = independent_oracle(*accuracy)
    over_severities = {
        name: float(np.mean([marks[label] for label in members]))
        for name, members in families(marks).items()
    }
    return marks | over_severities | {ALL: float(np.mean(list(over_severities.values())))}


def _mean_of(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray(np.mean(parts, axis=0))

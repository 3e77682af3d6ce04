"""The same backbones on the same samples, clean and perturbed, as arrays.

Reads predictions and labels alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.predicted import Predicted
from clipsyn.evaluation.results.frame import ALL
from clipsyn.methods.numerics import Array, Doubles, Labels, Mask
from clipsyn.methods.numerics.metrics import (
    class_accuracy,
    correctness,
    independent_oracle,
    ratio,
    scored,
)
from clipsyn.names import CLEAN, Perturbation, parse_perturbation
from clipsyn.stats.images import Images

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Trial:
    """The backbones on one dataset, split and prompt set, clean and under perturbations.

    A sample counts under a perturbation where it has a label and a prediction of every backbone.
    Mostly those are the same samples everywhere; imported studies may show each image once.
    """

    clean: Predicted
    labels: tuple[str, ...]  # of the perturbations, clean first
    columns: Mask  # (perturbation, method + 1, sample): who is right, what counts
    marks: NDArray[np.uint64]  # (sample,) of their content, without samples that count nowhere
    # (perturbation, method): backbones, oracle, oracle of errors independent within each class
    accuracy: Doubles
    cells: list[str]  # fingerprints of all that is read

    @classmethod
    def of(cls, groups: Sequence[Predicted]) -> Trial:
        """From one group for each perturbation, clean images first."""
        labels = groups[0].labels
        counted = np.stack([scored(group.predictions, labels) for group in groups])
        somewhere = np.asarray(counted.any(axis=0))
        independent = [_independent(group.predictions, labels) for group in groups]
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
            np.column_stack([ratio(hits[:, :-1], hits[:, -1:]), independent]),
            [cell for group in groups for cell in group.fingerprints.values()],
        )

    @property
    def backbones(self) -> tuple[str, ...]:
        return self.clean.backbones

    def right(self, label: str) -> Doubles:
        """(method, sample) of backbones and oracle, whose means are their accuracies.

        A sample that does not count under the perturbation has the accuracy itself.
        """
        place = self.labels.index(label)
        *right, counts = self.columns[place]
        accuracy = self.accuracy[place, :-1, None]
        apart = (right - accuracy * counts) * (len(counts) / max(1, counts.sum()))
        return np.asarray(accuracy + apart)


def _independent(predictions: NDArray[np.uint16], labels: Labels) -> float:
    right = correctness(predictions, labels)
    return independent_oracle(*class_accuracy(right, labels[scored(predictions, labels)]))


Trials = Sequence[Trial]  # one dataset, or those that a mean is over, of equal weight


class Condition(NamedTuple):
    """Clean images, one perturbation at one severity, or a mean over several.

    Arrays are (method,), those of lists (method, sample), one for each dataset.
    """

    label: str
    severity: int | None  # None for a mean
    images: list[Images]  # of each dataset
    shown: Images  # that count
    accuracy: Doubles
    right: list[Doubles]  # what accuracies are means of
    error: Doubles = np.empty(0)  # of a mean: ce, or mce
    lost: Sequence[Doubles] = ()  # how far errors go with each sample

    @property
    def n(self) -> int:
        return len(self.shown)

    def metrics(self, clean: Condition) -> dict[str, Doubles]:
        """(method,) of each metric that every method has, from its accuracy here and on clean."""
        metrics = {"acc1": self.accuracy}
        if self.label != clean.label:
            metrics["drop"] = clean.accuracy - self.accuracy
            metrics["relative_robustness"] = ratio(self.accuracy, clean.accuracy)
        if len(self.error):
            metrics["mce" if self.label == ALL else "ce"] = self.error
        return metrics


def conditions(
    trials: Trials, reference: int, accuracy: Doubles | None = None
) -> Iterator[Condition]:
    """Clean images, every perturbation, their means over severities, and the mean of those.

    accuracy: (perturbation, method) of methods whose answers are not known; None: that of
    backbones and oracles. reference: index of the method that errors are divided by.

    The corruption error of Hendrycks & Dietterich 2019, section 3.3, is
    ``sum_s error_s / sum_s error_s of the reference``, s the severities of one perturbation; its
    mean over perturbations is their mCE. NaN where the reference makes no error. What it is a mean
    of is to first order.
    """
    labels = trials[0].labels
    table = mean_of([it.accuracy for it in trials]) if accuracy is None else accuracy
    images = Images.of_sets([trial.marks for trial in trials])
    number = np.concatenate([of.number for of in images])
    counts = np.concatenate([trial.columns[:, -1] for trial in trials], axis=-1)
    at = {label: place for place, label in enumerate(labels)}

    def shown(some: Iterable[str]) -> Images:
        return Images.of(number[counts[[at[label] for label in some]].any(axis=0)])

    def right(label: str) -> list[Doubles]:
        return [trial.right(label) for trial in trials] if accuracy is None else []

    for label in labels:
        severity = parse_perturbation(label).severity
        yield Condition(label, severity, images, shown([label]), table[at[label]], right(label))
    means: list[Condition] = []
    for name, members in families(labels).items():
        mean = table[[at[label] for label in members]].mean(axis=0)
        each = [mean_of(parts) for parts in zip(*map(right, members), strict=True)]
        errors = _exact(1 - mean)
        error = ratio(errors, errors[reference])
        lost = [
            ratio(1 - rows - error[: len(rows), None] * (1 - rows[reference]), errors[reference])
            for rows in each
        ]
        means.append(Condition(name, None, images, shown(members), mean, each, error, lost))
        yield means[-1]
    yield Condition(
        ALL,
        None,
        images,
        shown(labels[1:]),
        mean_of([of.accuracy for of in means]),
        [mean_of(parts) for parts in zip(*(of.right for of in means), strict=True)],
        mean_of([of.error for of in means]),
        [mean_of(parts) for parts in zip(*(of.lost for of in means), strict=True)],
    )


def families(labels: Iterable[str]) -> dict[str, list[str]]:
    """Labels of perturbations by the perturbation without its severity, in order of severity.

    "jpeg-3" and "jpeg-5" are "jpeg"; "jpeg-3-seed1" is "jpeg-seed1". Clean images are left out.
    """
    members: dict[str, list[Perturbation]] = {}
    for label in labels:
        perturbation = parse_perturbation(label)
        if perturbation != CLEAN:
            name = label.replace(f"-{perturbation.severity}", "", 1)
            members.setdefault(name, []).append(perturbation)
    return {
        name: [one.label for one in sorted(family, key=lambda one: one.severity)]
        for name, family in sorted(members.items())
    }


def kendall_tau(first: Array, second: Array) -> float:
    """Kendall's tau-b of two rankings (backbone,).

        tau_b = sum_{i<j} sgn(x_i - x_j) sgn(y_i - y_j) / sqrt(n_x n_y)

    with n_x and n_y the numbers of pairs that are not tied (Kendall 1945). 1 is the same order, -1
    the opposite; NaN where a ranking ties all, or there are fewer than two backbones. Accuracies
    that differ by rounding alone are tied.
    """
    i, j = np.triu_indices(len(first), 1)
    x, y = (np.sign(_exact(values[i] - values[j])) for values in (first, second))
    return float(ratio((x * y).sum(), np.sqrt(np.abs(x).sum() * np.abs(y).sum())))


def _exact(values: Array) -> Array:
    """The values, 0 where they are no more than rounding."""
    return np.where(np.abs(values) < _ROUNDING, 0, values)


def mean_of(parts: Sequence[Doubles]) -> Doubles:
    return np.asarray(np.mean(parts, axis=0))

"""Support and test are disjoint: images that are measured on are taken out of what is fitted on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import LeakError
from clipsyn.pool import NO_LABEL
from clipsyn.store.samples import SampleTable

_SHARED = 20  # of so many that are measured on one may be shared; more are splits made wrongly


class Learnable(NamedTuple):
    """What may be learned from a split."""

    labels: NDArray[np.int32]  # (sample,) NO_LABEL where there is none, or an image is measured on
    notes: tuple[str, ...]  # on what was taken out, or could not be compared


def learnable(
    support: SampleTable, measured: Iterable[SampleTable], *, allow_overlap: bool
) -> Learnable:
    """The labels of `support` without those of images that `measured` hold too, by their content.

    allow_overlap: whether that may be more than a twentieth of what is measured on. Raises
    LeakError where it is more, for the test split, and where no label is left.
    """
    if support.split == "test":
        raise LeakError(
            f"the test split of {support.dataset} is never fitted on: choose another support=…, or "
            "divide images that have no splits with `clipsyn split`"
        )
    tables = list({table.name: table for table in measured}.values())
    shared = np.zeros(len(support), np.bool_)
    for table in tables:
        shared |= held(support.marks, table.marks) | (support.name == table.name)
    left = np.where(shared, np.int32(NO_LABEL), support.labels)
    if not (left >= 0).any() and (support.labels >= 0).any():
        raise LeakError(
            f"every labelled image of {support.name} is measured on too ({_names(tables)}), so "
            "that nothing is left to fit on: choose another support=…, or divide the images with "
            "`clipsyn split`"
        )
    for table in () if allow_overlap else tables:
        _check(support, table)
    return Learnable(left, tuple(_notes(support, tables, int(np.count_nonzero(shared)))))


def held(marks: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(sample,) whether an image is one of the others; never for one that nobody has read."""
    return np.asarray((marks != 0) & np.isin(marks, others))


def _check(support: SampleTable, table: SampleTable) -> None:
    count = int(np.count_nonzero(held(table.marks, support.marks)))
    if _SHARED * count > len(table):
        raise LeakError(
            f"{count:,} of the {len(table):,} images of {table.name} are in {support.name} too, "
            "which is fitted on: divide the images with `clipsyn split`, or leave these out of the "
            "fit with allow_overlap=True"
        )


def _notes(support: SampleTable, tables: Sequence[SampleTable], shared: int) -> Iterable[str]:
    names = _names(tables)
    if shared:
        yield f"{support.name}: {shared:,} images are not fitted on, because {names} has them too"
    if tables and any((table.marks == 0).any() for table in [support, *tables]):
        yield (
            f"whether images of {support.name} are in {names} too is not known: some were imported "
            "without their content"
        )


def _names(tables: Sequence[SampleTable]) -> str:
    return " or ".join(table.name for table in tables)

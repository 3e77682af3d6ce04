"""Which images are in two sets: of support and test, of several datasets.

Support and test are disjoint: images that are measured on are taken out of what is fitted on.
Datasets that share images count them more than once in means and tests over datasets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import LeakError
from clipsyn.methods.pool import NO_LABEL
from clipsyn.stats.images import Images, copies_note
from clipsyn.store.near import allowed_bits, near, near_pairs
from clipsyn.store.samples import SampleTable
from clipsyn.text import printable

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.store.features import FeatureStore

COPY = ("dataset", "split", "image", "copy", "of_split", "of")  # the columns of `copies`
_SHARED = 20  # of so many that are measured on one may be shared; more are splits made wrongly


class Learnable(NamedTuple):
    """What may be learned from a split."""

    labels: NDArray[np.int32]  # (sample,) NO_LABEL where there is none, or an image is measured on
    notes: tuple[str, ...]  # on what was taken out, or could not be compared


def learnable(
    support: SampleTable, measured: Iterable[SampleTable], *, allow_overlap: bool
) -> Learnable:
    """The labels of `support` without those of images that `measured` hold too, by their content.

    Of images that it holds several times the first alone is learned from: in folds, which choose
    and judge, a copy would be known before it is asked for.

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
    again = _again(np.where(left >= 0, support.marks, 0).astype(np.uint64))
    left[again] = NO_LABEL
    notes = [*_notes(support, tables, int(np.count_nonzero(shared)))]
    if len(again):
        notes.append(f"{support.name}: copies are fitted on once ({len(again):,} left out)")
    notes += filter(None, (_near_note(support, left, table) for table in tables))
    return Learnable(left, tuple(notes))


def _again(marks: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Rows of the images that stand before, too, but for those that nobody has read."""
    rows = np.flatnonzero(marks)
    return np.delete(rows, np.unique(marks[rows], return_index=True)[1])


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


def _near_note(support: SampleTable, left: NDArray[np.int32], table: SampleTable) -> str | None:
    fitted = left >= 0
    alike = near(table.looks, table.labels, support.looks[fitted], left[fitted])
    if not (count := int(np.count_nonzero(alike))):
        return None
    return (
        f"{count:,} of the {len(table):,} images of {table.name} look like one of {support.name}: "
        "where these are near copies, what is measured is too good; `clipsyn ls STORE --copies` "
        "names them"
    )


def _names(tables: Sequence[SampleTable]) -> str:
    return " or ".join(table.name for table in tables)


def sample_tables(store: FeatureStore, frame: DataFrame) -> list[SampleTable]:
    """The sample tables of the datasets and splits in a frame of results."""
    places = frame.filter(frame["dataset"].is_not_null()).select("dataset", "split").unique()
    return [store.samples(*place) for place in sorted(places.rows())]


def copies(tables: Sequence[SampleTable]) -> Iterator[tuple[str, ...]]:
    """A row with `COPY` for each image of a dataset's splits that an earlier one equals or is like.

    copy: exact, of the same content, or near. of: the first such image.
    """
    names = [(table.split, name) for table in tables for name in table.ids]
    looks = np.concatenate([table.looks for table in tables])
    labels, like = np.concatenate([table.labels for table in tables]), np.arange(len(names))
    number = np.concatenate([shown.number for shown in _images(tables)])
    _, first, which = np.unique(number, return_index=True, return_inverse=True)
    equal = first[which]
    most = allowed_bits(looks[first], labels[first], looks[first], labels[first])
    for rows, columns, bits in near_pairs(looks, looks):
        np.minimum.at(like, rows[bits <= most], columns[bits <= most])
    for row in np.flatnonzero(np.minimum(equal, like) < np.arange(len(names))):
        kind, of = ("exact", equal[row]) if equal[row] < row else ("near", like[row])
        yield tables[0].dataset, *names[row], kind, *names[of]


def shared_images(tables: Sequence[SampleTable]) -> dict[str, int]:
    """By dataset/split: how many of its images others hold too; sets without such are left out."""
    images = [shown.number.tolist() for shown in _images(tables)]
    holders = Counter(image for numbers in images for image in set(numbers))
    counts = {
        table.name: sum(holders[image] > 1 for image in numbers)
        for table, numbers in zip(tables, images, strict=True)
    }
    return {name: count for name, count in counts.items() if count}


def _images(tables: Sequence[SampleTable]) -> list[Images]:
    return Images.of_sets([table.marks for table in tables]) if tables else []


def sharing(tables: Sequence[SampleTable]) -> dict[str, frozenset[str]]:
    """By dataset: the others that hold an image of it, in any split, where there are any."""
    held: dict[str, set[int]] = {}
    for table, shown in zip(tables, _images(tables), strict=True):
        held.setdefault(table.dataset, set()).update(shown.number.tolist())
    found = {
        name: frozenset(
            other for other in held if other != name and not own.isdisjoint(held[other])
        )
        for name, own in held.items()
    }
    return {name: others for name, others in found.items() if others}


def apart(tables: Sequence[SampleTable]) -> list[SampleTable]:
    """Sets that share no image: while any two do, the one that shares the most is left out."""
    left = list(tables)
    while shared := shared_images(left):
        most = max(shared, key=lambda name: shared[name])
        left = [table for table in left if table.name != most]
    return left


def image_notes(tables: Sequence[SampleTable], *, shared: bool = True) -> list[str]:
    """What to say beside numbers about images of which some have copies, in a set or in others.

    shared: whether there are means over datasets.
    """
    copied = copies_note((table.name, len(table), table.images.count) for table in tables)
    sizes = {table.name: len(table) for table in tables}
    counts = shared_images(tables) if shared else {}
    several = [f"{name} ({n:,} of {sizes[name]:,})" for name, n in counts.items()]
    notes = [copied] if copied else []
    if several:
        notes.append(
            f"images stand in several of these sets, {', '.join(several)}: means and "
            "correlations over datasets count them more than once"
        )
    return [printable(f"note: {note}") for note in notes]

"""Which images are in two sets, and what else is there twice: classes and backbones that are one.

Support and test are disjoint: images that are measured on are taken out of what is fitted on.
Datasets that share images count them more than once in means and tests over datasets.

Near copies have 64-bit hashes of what they look like (`clipsyn.images.source`) that differ in few
bits; 0 is none. Plain pictures, as of clothes on black, have near hashes though they are no
copies. That shows in images of different classes, which are none: only so many bits are allowed, 4
at most, that at most one image in 200 looks like one of another class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import LeakError, StoreError
from clipsyn.methods.pool import NO_LABEL
from clipsyn.names import CLEAN
from clipsyn.stats.images import Images, copies_note
from clipsyn.store.arrays import Layout
from clipsyn.store.samples import SampleTable
from clipsyn.text import LOG, few, printable

if TYPE_CHECKING:
    from polars import DataFrame

    from clipsyn.store.features import FeatureStore

COPY = ("dataset", "split", "image", "copy", "of_split", "of")  # the columns of `copies`
_SHARED = 20  # of so many that are measured on one may be shared; more are splits made wrongly
FARTHEST = 4  # bits in which near copies differ, at most
_CHANCE = 200  # of so many images one may look like one of another class
_PAIRS = 1 << 21  # compared at a time
_ONES = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


Ints = NDArray[np.int32]
_EQUAL = 1e-5  # of elements of unit-norm embeddings: how far rounding alone can move them
_DIRECTIONS = 4


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
    rows = np.flatnonzero((left >= 0) & (support.marks != 0))
    again = np.delete(rows, np.unique(support.marks[rows], return_index=True)[1])
    left[again] = NO_LABEL
    notes = _notes(support, tables, int(np.count_nonzero(shared)), len(again))
    near_notes = (_near_note(support, left, table) for table in tables)
    return Learnable(left, (*notes, *filter(None, near_notes)))


def labels_to_learn(
    support: SampleTable, measured: Iterable[SampleTable], *, allow_overlap: bool
) -> NDArray[np.int32]:
    """The labels of `learnable`, whose notes are said; raises what it does."""
    labels, notes = learnable(support, measured, allow_overlap=allow_overlap)
    for note in notes:
        LOG.info("note: %s", note)
    return labels


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


def _notes(
    support: SampleTable, tables: Sequence[SampleTable], shared: int, again: int
) -> Iterable[str]:
    names = _names(tables)
    if shared:
        yield f"{support.name}: {shared:,} images are not fitted on, because {names} has them too"
    if tables and any((table.marks == 0).any() for table in [support, *tables]):
        yield (
            f"whether images of {support.name} are in {names} too is not known: some were imported "
            "without their content"
        )
    if again:
        yield f"{support.name}: copies are fitted on once ({again:,} left out)"


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


def image_notes(tables: Sequence[SampleTable], *, shared: bool = True) -> list[str]:
    """What to say beside numbers about images of which some have copies, in a set or in others.

    shared: whether there are means over datasets.
    """
    copied = copies_note((table.name, len(table), table.images.count) for table in tables)
    sizes = {table.name: len(table) for table in tables}
    counts = shared_images(tables) if shared else {}
    several = ", ".join(f"{name} ({n:,} of {sizes[name]:,})" for name, n in counts.items())
    twice = (
        f"images stand in several of these sets, {several}: means and correlations over datasets "
        "count them more than once, and the intervals that evaluate and report give to means take "
        "them for different images"
    )
    notes = (copied, twice if several else "")
    return [printable(f"note: {note}") for note in notes if note]


# Near copies


def near(
    looks: NDArray[np.uint64], labels: Ints, others: NDArray[np.uint64], theirs: Ints
) -> NDArray[np.bool_]:
    """(sample,) whether an image is a near copy of one of the others, whose labels are `theirs`."""
    found = np.zeros(len(looks), np.bool_)
    most = allowed_bits(looks, labels, others, theirs)
    for rows, _, bits in near_pairs(looks, others):
        found[rows[bits <= most]] = True
    return found


def allowed_bits(
    looks: NDArray[np.uint64], labels: Ints, others: NDArray[np.uint64], theirs: Ints
) -> int:
    """In how many bits near copies may differ; -1 where hashes say nothing. A label of -1: none."""
    nearest = np.full(len(looks), FARTHEST + 1)  # of another class
    for rows, columns, bits in near_pairs(looks, others):
        one, other = labels[rows], theirs[columns]
        differ = (one != other) & (one >= 0) & (other >= 0)
        np.minimum.at(nearest, rows[differ], bits[differ])
    by_chance = [int(np.count_nonzero(nearest <= bits)) for bits in range(FARTHEST + 1)]
    return sum(count <= max(1, len(looks) // _CHANCE) for count in by_chance) - 1


def near_pairs(
    looks: NDArray[np.uint64], others: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]]:
    """Row numbers of all pairs that differ in at most 4 bits, and in how many, some at a time.

    A pair may come more than once. Hashes that differ in 4 bits are equal in one of 5 parts. Each
    part has every fifth bit, so that what is empty in most images makes no part equal.
    """
    mine, theirs = np.flatnonzero(looks), np.flatnonzero(others)
    for part in range(FARTHEST + 1):
        mask = np.uint64(sum(1 << bit for bit in range(part, 64, FARTHEST + 1)))
        theirs = theirs[np.argsort(others[theirs] & mask, kind="stable")]
        keys, wanted = others[theirs] & mask, looks[mine] & mask
        start, stop = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, side="right")
        before = np.append(0, np.cumsum(stop - start))  # candidates of the rows before
        cuts = np.unique(np.searchsorted(before, np.arange(0, before[-1], _PAIRS)))
        for first, last in pairwise([*cuts.tolist(), len(mine)]):
            counts = (stop - start)[first:last]
            step = np.arange(counts.sum()) + before[first]
            place = step + np.repeat(start[first:last] - before[first:last], counts)
            rows, columns = np.repeat(mine[first:last], counts), theirs[place]
            bits = _distance(looks[rows], others[columns])
            alike = bits <= FARTHEST
            yield rows[alike], columns[alike], bits[alike]


def _distance(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.intp]:
    """In how many bits numbers differ, pair by pair."""
    ones = _ONES[(one ^ other).view(np.uint16)].reshape(-1, 4)
    return np.asarray(ones.sum(axis=1, dtype=np.intp))


# Classes and backbones


def alike(embeddings: NDArray[Any]) -> list[tuple[int, int]]:
    """Pairs of rows that are equal to 1e-5: embeddings (class, embed), unit norm.

    Each class that equals an earlier one is paired with the first such class. Only rows that are
    close in a few random directions are compared, so thousands of classes take milliseconds.
    """
    values = np.asarray(embeddings, np.float64)
    directions = np.random.default_rng(0).normal(size=(values.shape[1], _DIRECTIONS))
    along = values @ directions
    order = np.argsort(along[:, 0], kind="stable")
    within = _EQUAL * np.abs(directions).sum(axis=0)  # the most by which equal rows can differ
    first = np.arange(len(values))
    for step in range(1, len(values)):
        left, right = order[:-step], order[step:]
        if not (along[right, 0] - along[left, 0] <= within[0]).any():
            break
        near = (np.abs(along[right] - along[left]) <= within).all(axis=1)
        left, right = left[near], right[near]
        equal = (np.abs(values[left] - values[right]) <= _EQUAL).all(axis=1)
        low, high = np.minimum(left, right)[equal], np.maximum(left, right)[equal]
        np.minimum.at(first, high, low)
    return [(int(one), other) for other, one in enumerate(first) if one != other]


def alike_notes(
    store: FeatureStore, dataset: str, prompts: str, backbones: Sequence[str]
) -> Iterator[str]:
    """Sentences about backbones that are one, and about classes that some cannot tell apart.

    Accuracies on such classes depend on how ties are broken. Backbones without class embeddings,
    such as imported ones, are passed over there.
    """
    yield from twin_notes(store, dataset, backbones)
    pairs: dict[tuple[int, int], list[str]] = {}
    names: Sequence[str] = ()
    for backbone in backbones:
        path = store.at("classes", dataset, prompts, backbone)
        if store.tree.exists(path):
            for pair in alike(store.class_embeddings(dataset, prompts, backbone)[0]):
                pairs.setdefault(pair, []).append(backbone)
            names = names or store.group(path)["identity"]["class_names"]
    if pairs:
        concerned = len({index for pair in pairs for index in pair})
        unsure = sorted({backbone for by in pairs.values() for backbone in by})
        shown = few([f"{names[one]} = {names[other]}" for one, other in pairs])
        yield (
            f"{dataset} (prompts {prompts}): {concerned} of {len(names)} classes cannot be told "
            f"apart by {', '.join(unsure)}, whose class embeddings are equal ({shown}): accuracies "
            "depend on which of them comes first; other class names or prompts would tell them "
            "apart"
        )


def twin_notes(
    store: FeatureStore, dataset: str, backbones: Collection[str] | None = None
) -> list[str]:
    """A sentence for each set of backbones with equal numbers for all images of a split.

    Embeddings are compared, or imported predictions, by their checksums. None: of all backbones.
    """
    same: dict[tuple[str, str, Layout], list[str]] = {}
    shown: dict[str, str] = {}  # the perturbation that is looked at, by split: clean, if there
    keys = store.keys(dataset=[dataset], backbone=backbones)
    for key in sorted(keys, key=lambda key: key.perturbation != CLEAN.label):
        if shown.setdefault(key.split, key.perturbation) == key.perturbation:
            with suppress(StoreError):  # who reads the cell is told what is wrong with it
                group = store.cell(key).group()
                array = "image_embedding" if group.kind == "features" else "prediction"
                same.setdefault((key.split, array, group.arrays[array]), []).append(key.backbone)
    twins = {tuple(names): what for what, names in same.items() if len(names) > 1}
    return [
        f"{dataset}: {' and '.join(names)} have the same {array.replace('_', ' ')} for every image "
        f"of {split}, as one backbone under two names has: their agreement says nothing, and they "
        "count twice where backbones are combined"
        for names, (split, array, _) in twins.items()
    ]

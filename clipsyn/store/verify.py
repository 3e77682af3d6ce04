"""Whether a store is whole: reads all of it again, and finds what is left of lost groups."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import ClipsynError, StaleCell, StoreError
from clipsyn.methods.numerics.logits import NO_PREDICTION, predictions, zero_shot_logits
from clipsyn.names import FeatureKey
from clipsyn.store import arrays, files
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import ON_DISK, Group
from clipsyn.store.inventory import GroupPath
from clipsyn.store.rows import content_digest
from clipsyn.store.schema import ANSWERS, KINDS, arrays_of, folder_name


class Stale(str):
    """A problem of what is whole, but was made of others than are there now."""


def debris(store: FeatureStore, groups: Collection[GroupPath]) -> Iterator[str]:
    """One sentence for every group that lacks a part without which it cannot be read.

    groups: all groups of the store. This reads folders and no chunk.
    """
    for group in groups:
        try:
            if not store.tree.seen(group.path) and store.tree.exists(group.path):
                yield f"{_where(store, group)}: {group.path / arrays.METADATA} is missing"
        except StoreError as error:
            yield f"{_where(store, group)}: {error}"
    there = {(group.kind, *group.names.values()) for group in groups}
    there |= {names[:2] for names in there if names[0] == "samples"}  # a dataset has some
    for group in groups:
        for what, *names in _sources(store, group, there):
            if (what, *names) in there:
                continue
            source = store.path.joinpath(what, *map(folder_name, names))
            if not store.tree.exists(source) and store.tree.exists(
                group.path
            ):  # not removed meanwhile
                yield f"{_where(store, group)}: the {what} that it needs are lost"
    if store.tree is ON_DISK:
        yield from _strays(store.path)


def refused(store: FeatureStore, groups: Iterable[GroupPath]) -> Iterator[str]:
    """One sentence for every cell that readers refuse by its metadata, a Stale one if it is whole.

    groups: all groups of the store. No array is read; what is published at a URL was compared when
    it was pushed.
    """
    for group in groups if store.tree is ON_DISK else ():
        try:
            _check_current(store, group, with_answers=True)
        except ClipsynError as error:
            if store.tree.exists(group.path):  # not removed meanwhile
                where = f"{_where(store, group)}: {error}"
                yield Stale(where) if isinstance(error, StaleCell) else where


def _check_current(store: FeatureStore, group: GroupPath, *, with_answers: bool) -> None:
    """Raise what a reader raises of a cell that is of others than are there.

    with_answers: also of stored logits and predictions, with the embeddings that they follow from.
    """
    if group.kind in ("samples", "classes"):
        return
    cell = store.cell(_key(group))
    if group.kind == "features" or cell.sets:
        cell.holding("valid", group.names.get("prompts"))
    for prompts in cell.prompt_sets() if group.kind == "features" else ():
        paths = {kind: store.at(kind, *cell.key.names, prompts) for kind in ANSWERS}
        there = [kind for kind in ANSWERS if store.tree.exists(paths[kind])]
        if with_answers or not there:
            for kind in there or ["logits"]:
                cell.stored(kind, prompts)


def _strays(store: Path) -> Iterator[str]:
    """What lies between groups and is no part of a store."""
    yield from _wrong_metadata(store.resolve())
    for entry in files.entries(store):
        if entry.name in KINDS:
            yield from _between(store, entry, len(KINDS[entry.name]))
        elif files.exists(Path(entry, arrays.METADATA)):
            yield f"{entry.name}: a folder that is no part of a store: was it renamed?"


def _between(store: Path, entry: os.DirEntry[str], depth: int) -> Iterator[str]:
    """Of an entry that should be a folder, `depth` levels above a group."""
    path = Path(entry)
    if not entry.is_dir(follow_symlinks=False):
        yield f"{path.relative_to(store)}: no folder, where groups belong: remove it"
    elif depth:
        yield from _wrong_metadata(path)
        with suppress(StoreError):  # one that may not be read was named when groups were looked for
            for below in files.entries(path):
                if below.name != arrays.METADATA and not below.name.startswith("."):
                    yield from _between(store, below, depth - 1)


def _wrong_metadata(folder: Path) -> Iterator[str]:
    """Where the metadata of a folder above groups cannot be read; without them it is read, too."""
    try:
        if files.exists(folder / arrays.METADATA):
            arrays.read_attributes(folder)
    except StoreError as error:
        yield f"{error}: remove this file, and what writes there makes it again"


def _where(store: FeatureStore, group: GroupPath) -> str:
    return str(group.path.relative_to(store.path))


def _sources(
    store: FeatureStore, group: GroupPath, there: Collection[tuple[str, ...]]
) -> Iterator[tuple[str, ...]]:
    """Kind and names of the groups that a group needs; of a dataset's splits any one will do."""
    names = group.names
    if group.kind == "classes":
        yield "samples", names["dataset"]
    elif group.kind != "samples":
        yield "samples", names["dataset"], names["split"]
    if group.kind not in ANSWERS:
        return
    features = ("features", *_key(group).names)
    if features in there or not store.is_imported(group.path):
        yield features
        yield "classes", names["dataset"], names["prompts"], names["backbone"]


def _key(group: GroupPath) -> FeatureKey:
    return FeatureKey(*(group.names[dimension] for dimension in KINDS["features"]))


def damage(store: FeatureStore, group: GroupPath, *, deep: bool = False) -> Iterator[str]:
    """One sentence for everything in a group that was altered, a Stale one where nothing was.

    With `deep`, logits and predictions are computed again and compared, too.
    """
    try:
        looked_at = store.tree.seen(group.path)
        problems = list(_problems(store, group, deep))
        if problems and group.kind == "samples":  # unless labels are being corrected
            with files.locked(group.path, shared=True):
                problems = list(_problems(store, group, deep))
        gone = not store.tree.exists(group.path) or store.tree.seen(group.path) != looked_at
    except StoreError as error:
        problems, gone = [str(error)], False
    if not gone:  # else replaced or removed meanwhile: no damage
        where = _where(store, group)
        for problem in dict.fromkeys(problems):  # errors of readers name the group themselves
            named = problem.startswith(f"{where} in ")
            yield problem if named else type(problem)(f"{where}: {problem}")


def _problems(store: FeatureStore, group: GroupPath, deep: bool) -> Iterator[str]:
    try:
        stored = store.group(group.path)
        damaged = list(_wrong_bytes(store, group, stored))
        yield from damaged or _wrong_numbers(store, group, stored, deep)
    except ClipsynError as error:
        if f"{store.path}/" not in str(error) or _where(store, group) in str(error):
            # else it is of another group, which says so itself
            yield Stale(error) if isinstance(error, StaleCell) else str(error)


def _wrong_bytes(store: FeatureStore, group: GroupPath, stored: Group) -> Iterator[str]:
    """Altered chunks, and folders that were never part of the group."""
    known = {spec.name for spec in arrays_of(stored.kind, stored["identity"])}
    for name in store.tree.folders(group.path):
        if name not in known:  # one that is not listed yet may be being written
            yield f"folder {name} is no part of it: was it moved there?"
    for name, listed in stored.arrays.items():
        yield from store.tree.damage(group.path, name, listed)


def _wrong_numbers(
    store: FeatureStore, group: GroupPath, stored: Group, deep: bool
) -> Iterator[str]:
    """Intact arrays that contradict the identity, or do not follow from their sources."""
    _check_current(store, group, with_answers=False)
    if group.kind in ANSWERS:
        store.predictions(_key(group), group.names["prompts"])
    elif group.kind == "classes":
        stored.read("class_embedding")
    elif group.kind == "samples":
        samples = store.samples(group.names["dataset"], group.names["split"])
        if samples.digest != stored["identity"]["samples"]:
            yield "ids and content hashes do not match the digest"
    if stored.imported and group.kind != "classes" and deep:
        values = {name: stored.read(name) for name in stored.arrays}
        if content_digest(values) != stored["identity"]["content"]:
            yield "its arrays do not match the digest of its content"
    if deep and "logit" in stored.arrays:
        yield from _wrong_logits(store, group, stored)
    elif deep and group.kind == "predictions" and not stored.imported:
        yield from _wrong_predictions(store, group, stored)


def _wrong_logits(store: FeatureStore, group: GroupPath, stored: Group) -> Iterator[str]:
    """Blocks whose logits do not follow from the embeddings, or predictions from the logits.

    Another processor may add the terms of a product in another order: see `_rounding`.
    """
    blocks = stored.arrays["logit"].blocks
    for number in range(blocks.count):
        rows = blocks.range(number)
        where = f"block {number} (rows {rows.start}-{rows.stop - 1})"
        logits = stored.read("logit", rows)
        if not np.array_equal(predictions(logits), stored.read("prediction", rows)):
            yield f"{where}: predictions are not the largest logits"
        if not stored.imported and not _follow(store, group, logits, rows):
            yield f"{where}: logits do not follow from the stored embeddings"


def _wrong_predictions(store: FeatureStore, group: GroupPath, stored: Group) -> Iterator[str]:
    """Blocks whose predictions are not the largest logits of the embeddings, to rounding."""
    blocks = stored.arrays["prediction"].blocks
    for number in range(blocks.count):
        rows = blocks.range(number)
        there, (logits, within) = stored.read("prediction", rows), _again(store, group, rows)
        known, largest = there < logits.shape[1], logits.max(axis=1)
        ours = np.take_along_axis(logits, np.where(known, there, 0)[:, None], axis=1)[:, 0]
        none = (there == NO_PREDICTION) & np.isnan(largest)
        if not np.where(known, ours >= largest - 2 * within, none).all():
            where = f"block {number} (rows {rows.start}-{rows.stop - 1})"
            yield f"{where}: predictions do not follow from the stored embeddings"


def _follow(
    store: FeatureStore, group: GroupPath, logits: NDArray[np.float32], rows: range
) -> bool:
    again, within = _again(store, group, rows)
    if logits.tobytes() == again.tobytes():
        return True
    return bool(np.allclose(logits, again, rtol=0, atol=within, equal_nan=True))


def _again(store: FeatureStore, group: GroupPath, rows: range) -> tuple[NDArray[np.float32], float]:
    """Logits computed again, and the most by which another processor's may differ."""
    key, prompts = _key(group), group.names["prompts"]
    store.cell(key).stored(group.kind, prompts)  # raises StaleCell where they are of others
    classes, scale = store.class_embeddings(key.dataset, prompts, key.backbone)
    again = zero_shot_logits(store.embeddings(key, rows), classes, scale, rows=len(rows))
    return again, _rounding(classes.shape[1], scale)


def _rounding(width: int, scale: float) -> float:
    """The most that two orders of summation may differ by: each errs by width x 2^-24 at most.

    Of a product of vectors of unit norm in float32; Higham, Accuracy and Stability of Numerical
    Algorithms, 2nd edition, section 3.1.
    """
    return 2 * width * 2.0**-24 * scale

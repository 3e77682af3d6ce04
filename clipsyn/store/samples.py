"""The tables of a split, frozen before anything is encoded: which images, and which captions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from operator import eq
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.errors import DatasetError
from clipsyn.methods.numerics.logits import NO_CLASS
from clipsyn.methods.pool import NO_LABEL, as_labels
from clipsyn.names import Identity
from clipsyn.stats.images import Images
from clipsyn.store import arrays, files
from clipsyn.store.arrays import LONGEST_TEXT, Layout
from clipsyn.store.files import IDENTITY_VERSION, LOOK
from clipsyn.store.groups import Group, sealed
from clipsyn.text import few

MOST_IDS = 1 << 16  # read at once


class Ids(Sequence[str]):
    """The ids of a stored split, read when they are asked for, some at a time: most readers ask for
    none, and millions of texts take more memory than what is measured.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        chunk = group.arrays["sample_id"].rows
        self._each = chunk * max(1, MOST_IDS // chunk)  # whole chunks: none is read twice
        self._last: tuple[int, tuple[str, ...]] = -1, ()

    def __len__(self) -> int:
        return self._group.sizes["sample"]

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[str, ...]: ...
    def __getitem__(self, at: int | slice) -> str | tuple[str, ...]:
        rows = range(len(self))[at]
        if isinstance(rows, int):
            start = rows - rows % self._each
            if self._last[0] != start:
                self._last = start, self[start : start + self._each]
            return self._last[1][rows - start]
        if rows.step != 1 or not rows:
            return tuple(self[row] for row in rows)
        return tuple(self._group.read("sample_id", rows).tolist())

    def __iter__(self) -> Iterator[str]:
        starts = range(0, len(self), self._each)
        return chain.from_iterable(self[start : start + self._each] for start in starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))


@dataclass(frozen=True, eq=False)
class SampleTable:
    """One row an image; the row number is the image's place in every array of the split.

    ids: unique names, (sample,). labels: class indices, -1 where there is none, (sample,) int32.
    content: SHA-256 of each image, (sample, 32) uint8. A class is its index, never its name. looks:
    64 bits of what each looks like, (sample,), see `clipsyn.images.source`; 0 where not known.
    """

    dataset: str
    split: str
    ids: Sequence[str]
    labels: NDArray[np.int32]
    content: NDArray[np.uint8]
    class_names: tuple[str, ...] = ()
    metric: str = "acc1"
    licence: str = ""
    looks: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))

    def __post_init__(self) -> None:
        check_samples(self.name, self.ids, self.labels, len(self.class_names) or None)
        if not len(self.looks):
            object.__setattr__(self, "looks", np.zeros(len(self.ids), np.uint64))

    @property
    def name(self) -> str:
        """Its dataset and split, as messages and tables name them."""
        return f"{self.dataset}/{self.split}"

    @classmethod
    def of(
        cls,
        dataset: str,
        split: str,
        ids: Sequence[str],
        labels: ArrayLike | None = None,
        class_names: Sequence[str] = (),
    ) -> SampleTable:
        """A table of images that are not here: ids, and labels (sample,) as class indices.

        Raises DatasetError, or InputError for labels that are texts.

        >>> from clipsyn import SampleTable
        >>> SampleTable.of("pets", "test", ["a.png", "b.png"], [1, 0], ["cat", "dog"]).labels
        array([1, 0], dtype=int32)
        """
        ids = tuple(map(str, ids))
        given = np.full(len(ids), NO_LABEL, np.int32) if labels is None else as_labels(labels)
        if given.shape != (len(ids),):
            raise DatasetError(f"{dataset}/{split}: {len(ids):,} ids have labels {given.shape}")
        unseen = np.zeros((len(ids), 32), np.uint8)  # no image was read
        return cls(dataset, split, ids, given, unseen, tuple(class_names))

    @classmethod
    def read(cls, dataset: str, split: str, group: Group) -> SampleTable:
        return cls(
            dataset=dataset,
            split=split,
            ids=Ids(group),
            labels=group.read("label"),
            content=group.read("content_hash"),
            class_names=tuple(group["class_names"]),
            metric=group["metric"],
            licence=group["licence"],
            looks=group.read(LOOK) if LOOK in group.arrays else np.zeros(0, np.uint64),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids and contents, not labels: a corrected label re-runs no backbone."""
        hasher = hashlib.sha256()
        width = self.content.shape[1]
        for start in range(0, len(self), MOST_IDS):
            some = slice(start, start + MOST_IDS)
            content = self.content[some].tobytes()
            parts = (
                f"{len(name)}:{name}".encode() + content[at * width : (at + 1) * width]
                for at, name in enumerate(self.ids[some])
            )
            hasher.update(b"".join(parts))
        return hasher.hexdigest()

    @property
    def marks(self) -> NDArray[np.uint64]:
        """(sample,) equal for equal images: 64 bits of their content; 0 where none was read."""
        return np.ascontiguousarray(self.content[:, :8]).view("<u8").ravel().astype(np.uint64)

    @cached_property
    def images(self) -> Images:
        """Which samples show the same image, where that is known."""
        return Images.of_sets([self.marks])[0]

    def identity(self) -> Identity:
        return {
            "format": IDENTITY_VERSION,
            "dataset": self.dataset,
            "split": self.split,
            "samples": self.digest,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are stored of it, by name."""
        ids = np.array(self.ids, object)
        given = {"sample_id": ids, "label": self.labels, "content_hash": self.content}
        return given | ({LOOK: self.looks} if self.looks.any() else {})

    def attributes(self) -> dict[str, Any]:
        """Facts about the samples beside their identity; they may be corrected at any time."""
        return {
            "class_names": list(self.class_names),
            "metric": self.metric,
            "licence": self.licence,
        }


def check_samples(
    where: str, ids: Sequence[str], labels: NDArray[np.int32], classes: int | None
) -> None:
    """Raise DatasetError for no image, for an id of two images, and for a label that is no class.

    classes: how many there are; None where that is not known.
    """
    if not ids:
        raise DatasetError(f"{where}: there is no image in it")
    if not isinstance(ids, Ids) and is_any_twice(ids):  # those of a store were looked at
        name, count = Counter(ids).most_common(1)[0]
        raise DatasetError(f"{where}: the id '{name}' occurs {count} times; ids are unique")
    low, high = int(labels.min()), int(labels.max())
    if low < NO_LABEL:
        raise DatasetError(f"{where}: label {low} is negative; unlabelled is {NO_LABEL}")
    if (most := max(high + 1, classes or 0)) > NO_CLASS:
        raise DatasetError(
            f"{where}: it has {most:,} classes, and a prediction is one of at most {NO_CLASS:,}"
        )
    if classes is not None and high >= classes:
        raise DatasetError(
            f"{where}: label {high} of sample '{ids[int(labels.argmax())]}' is beyond the "
            f"{classes} class names (labels count from 0)"
        )


def is_any_twice(names: Sequence[str]) -> bool:
    """Their hashes are enough where all differ: a set of millions of texts takes half a GB."""
    hashes = np.sort(np.fromiter(map(hash, names), np.int64, len(names)))
    return bool((hashes[1:] == hashes[:-1]).any()) and len(set(names)) < len(names)


def check_fits(tables: Iterable[SampleTable], given: SampleTable, store: Path) -> None:
    """Raise DatasetError for samples that do not go with those that a store has of the dataset."""
    for there in tables:
        names = there.class_names != given.class_names
        if there.split != given.split:
            if names:
                raise DatasetError(
                    f"{given.name}: other classes than {there.name} has in {store}: the splits of "
                    "a dataset have the same"
                )
        elif given.digest != there.digest:
            raise DatasetError(
                f"{given.name} has other samples in {store} ({changed_samples(there, given)}): "
                f"take store.samples('{given.dataset}', '{given.split}'), and its order of rows"
            )
        elif names or not np.array_equal(given.labels, there.labels):
            raise DatasetError(
                f"{given.name} has other labels or class names in {store}: take "
                f"store.samples('{given.dataset}', '{given.split}'), or correct these with "
                "store.annotate"
            )


def correct(group: Group, table: SampleTable, scratch: Path) -> None:
    """Update labels and attributes of a published table.

    Attributes go first: a table left between the two is refused by readers, and the same command
    mends it.
    """
    label = arrays.relisted(group.arrays["label"], table.labels)
    listed = {**group["arrays"], "label": label.json()}
    attributes = sealed({**group.attributes, **table.attributes(), "arrays": listed})
    if attributes != group.attributes:
        arrays.write_attributes(group.path, attributes, scratch)
    if arrays.damage(group.path / "label", label):
        _write(group.path / "label", label, table.labels, scratch)


def add_looks(group: Group, looks: NDArray[np.uint64], scratch: Path) -> None:
    """Add what the images of a published table look like, unless it is there.

    Nobody reads it before all of it is written and the attributes list it, so that an extraction
    may be killed at any time.
    """
    path, layout = group.path / LOOK, replace(group.arrays["label"], dtype=looks.dtype.name)
    if LOOK not in group.arrays and files.exists(path):
        _write(path, layout, looks, scratch)
        listed = {**group["arrays"], LOOK: arrays.listing(path, layout).json()}
        attributes = sealed({**group.attributes, "arrays": listed})
        arrays.write_attributes(group.path, attributes, scratch)


def _write(path: Path, layout: Layout, values: NDArray[Any], scratch: Path) -> None:
    for block in range(layout.blocks.count):
        arrays.write_block(path, layout, block, layout.part(values, block), scratch)


def changed_samples(old: SampleTable, new: SampleTable) -> str:
    """Say in words which images of `old` are added, gone or altered in `new`."""
    before = dict(zip(old.ids, map(bytes, old.content), strict=True))
    after = dict(zip(new.ids, map(bytes, new.content), strict=True))
    kinds = {
        "added": [name for name in after if name not in before],
        "gone": [name for name in before if name not in after],
        "changed": [name for name in after if name in before and before[name] != after[name]],
    }
    parts = [f"{len(names)} {kind} ({few(names)})" for kind, names in kinds.items() if names]
    return ", ".join(parts) or "the order of the images changed"


@dataclass(frozen=True, eq=False)
class CaptionTable:
    """One row a caption; the row number is its place in every array of text embeddings.

    ids: unique names, (caption,). texts: (caption,), none is empty. images: the row in the sample
    table of the image that each is of, (caption,) int32; an image has any number of them.

    Raises DatasetError for what cannot be.
    """

    dataset: str
    split: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    images: NDArray[np.int32]

    def __post_init__(self) -> None:
        counts = len(self.ids), len(self.texts), len(self.images)
        if len({*counts}) > 1 or not self.ids:
            raise self._refused("there are {:,} ids, {:,} texts and {:,} images".format(*counts))
        name, count = Counter(self.ids).most_common(1)[0]
        if count > 1:
            raise self._refused(f"the id '{name}' occurs {count} times; ids are unique")
        for name, text in zip(self.ids, self.texts, strict=True):
            if not text.strip():
                raise self._refused(f"caption '{name}' is empty")
            content = text.encode(errors="ignore")
            if len(content) > LONGEST_TEXT or content.decode() != text:
                raise self._refused(f"caption '{name}' is no text of at most {LONGEST_TEXT} bytes")

    @classmethod
    def of(cls, samples: SampleTable, texts: Sequence[str | Sequence[str]]) -> CaptionTable:
        """The captions of a split: for each of its samples one text, or several, or none (``[]``).

        The n-th of an image, from 0, is called ``<id of the image>#n``, as in Flickr30k.

        >>> from clipsyn import CaptionTable, SampleTable
        >>> samples = SampleTable.of("pets", "test", ["a.png", "b.png"])
        >>> CaptionTable.of(samples, [["a cat", "a tom"], "a dog"]).ids
        ('a.png#0', 'a.png#1', 'b.png#0')
        """
        if len(texts) != len(samples):
            raise DatasetError(
                f"{samples.name}: {len(samples):,} images have captions for {len(texts):,}: give "
                "a list for each, which may be empty"
            )
        each = [(own,) if isinstance(own, str) else tuple(own) for own in texts]
        counts = [len(own) for own in each]
        named = (
            f"{name}#{n}"
            for name, count in zip(samples.ids, counts, strict=True)
            for n in range(count)
        )
        images = np.repeat(np.arange(len(each), dtype=np.int32), counts)
        return cls(samples.dataset, samples.split, tuple(named), tuple(chain(*each)), images)

    @classmethod
    def read(cls, dataset: str, split: str, group: Group) -> CaptionTable:
        ids, texts = (tuple(group.read(name)) for name in ("caption_id", "text"))
        return cls(dataset, split, ids, texts, group.read("image"))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids, texts and the rows of their images."""
        hasher = hashlib.sha256()
        for name, text, row in zip(self.ids, self.texts, self.images, strict=True):
            hasher.update(f"{len(name)}:{name}{len(text)}:{text}".encode() + row.tobytes())
        return hasher.hexdigest()

    def identity(self, samples: SampleTable) -> Identity:
        """Raises DatasetError for captions of images that are none of the samples."""
        if (self.dataset, self.split) != (samples.dataset, samples.split):
            raise self._refused(f"these are no captions of {samples.name}")
        if outside := self.images[(self.images < 0) | (self.images >= len(samples))].tolist():
            raise self._refused(
                f"row {outside[0]} is none of the {len(samples):,} images (they count from 0)"
            )
        return {**samples.identity(), "captions": self.digest}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are stored of it, by name."""
        ids, texts = (np.array(column, object) for column in (self.ids, self.texts))
        return {"caption_id": ids, "text": texts, "image": self.images}

    def _refused(self, why: str) -> DatasetError:
        return DatasetError(f"captions of {self.dataset}/{self.split}: {why}")

"""The captions of a split: texts, each of one of its images, frozen before anything is encoded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError
from clipsyn.names import Identity
from clipsyn.store.arrays import LONGEST_TEXT
from clipsyn.store.groups import Group
from clipsyn.store.samples import SampleTable


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

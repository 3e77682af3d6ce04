"""Datasets that share images: means over them count those twice, and tests take them for evidence
twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipsyn.printable import printable
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable

if TYPE_CHECKING:
    from polars import DataFrame


def sample_tables(store: FeatureStore, frame: DataFrame) -> list[SampleTable]:
    """Of the datasets and splits in a frame of results."""
    places = frame.filter(frame["dataset"].is_not_null()).select("dataset", "split").unique()
    return [store.samples(*place) for place in sorted(places.rows())]


def image_numbers(contents: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.intp]]:
    """(sample,) of each set's contents (sample, 32): the same number for the same image.

    An image that was never seen, of an imported set, has no content and is like no other.
    """
    keys = np.ascontiguousarray(np.concatenate(contents)).view("S32").ravel()
    distinct, number = np.unique(keys, return_inverse=True)
    unseen = np.flatnonzero(keys == b"")
    number[unseen] = len(distinct) + np.arange(len(unseen))
    return np.split(number, np.cumsum([len(content) for content in contents])[:-1])


def linked(images: Sequence[NDArray[np.intp]]) -> list[list[int]]:
    """Places of the sets that share images with each other, if only by way of a third."""
    found: list[tuple[set[int], list[int]]] = []
    for place, numbers in enumerate(images):
        held, places, others = set(numbers.tolist()), [place], []
        for other in found:
            if held.isdisjoint(other[0]):
                others.append(other)
            else:
                held, places = held | other[0], other[1] + places
        found = [*others, (held, places)]
    return sorted(sorted(places) for _, places in found)


def shared_images(tables: Sequence[SampleTable]) -> dict[str, int]:
    """By dataset/split: how many of its images others hold too, by content; those that have any."""
    images = [numbers.tolist() for numbers in image_numbers([table.content for table in tables])]
    holders = Counter(image for numbers in images for image in set(numbers))
    counts = {
        table.name: sum(holders[image] > 1 for image in numbers)
        for table, numbers in zip(tables, images, strict=True)
    }
    return {name: count for name, count in counts.items() if count}


def apart(tables: Sequence[SampleTable]) -> list[SampleTable]:
    """Those left when, while any two share images, the one that shares the most is left out."""
    left = list(tables)
    while shared := shared_images(left):
        most = max(shared, key=lambda name: shared[name])
        left = [table for table in left if table.name != most]
    return left


def notes(tables: Sequence[SampleTable]) -> list[str]:
    """A sentence, where any images are shared: for all that is shown over datasets."""
    sizes = {table.name: len(table) for table in tables}
    shared = [f"{name} ({n:,} of {sizes[name]:,})" for name, n in shared_images(tables).items()]
    if not shared:
        return []
    sentence = (
        f"note: images stand in several of these sets, {', '.join(shared)}: means and correlations "
        "over datasets count them more than once"
    )
    return [printable(sentence)]

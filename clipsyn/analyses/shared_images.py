"""Datasets that share images, which means and tests over datasets count more than once."""

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
    """The sample tables of the datasets and splits in a frame of results."""
    places = frame.filter(frame["dataset"].is_not_null()).select("dataset", "split").unique()
    return [store.samples(*place) for place in sorted(places.rows())]


def image_numbers(contents: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.intp]]:
    """For each set's contents (sample, 32) an array (sample,): equal numbers are equal images.

    An image of an imported set, which nobody has read, has no content and is like no other.
    """
    keys = np.ascontiguousarray(np.concatenate(contents)).view("S32").ravel()
    distinct, number = np.unique(keys, return_inverse=True)
    unseen = np.flatnonzero(keys == b"")
    number[unseen] = len(distinct) + np.arange(len(unseen))
    return np.split(number, np.cumsum([len(content) for content in contents])[:-1])


def linked(images: Sequence[NDArray[np.intp]]) -> list[list[int]]:
    """Indices of the sets that share images with each other, if only by way of a third."""
    clusters: list[tuple[set[int], list[int]]] = []  # images, indices of the sets
    for index, numbers in enumerate(images):
        held, members, others = set(numbers.tolist()), [index], []
        for cluster in clusters:
            if held.isdisjoint(cluster[0]):
                others.append(cluster)
            else:
                held, members = held | cluster[0], cluster[1] + members
        clusters = [*others, (held, members)]
    return sorted(sorted(members) for _, members in clusters)


def shared_images(tables: Sequence[SampleTable]) -> dict[str, int]:
    """By dataset/split: how many of its images others hold too; sets without such are left out."""
    images = [numbers.tolist() for numbers in image_numbers([table.content for table in tables])]
    holders = Counter(image for numbers in images for image in set(numbers))
    counts = {
        table.name: sum(holders[image] > 1 for image in numbers)
        for table, numbers in zip(tables, images, strict=True)
    }
    return {name: count for name, count in counts.items() if count}


def sharing(tables: Sequence[SampleTable]) -> dict[str, frozenset[str]]:
    """By dataset: the others that hold an image of it, in any split, where there are any."""
    held: dict[str, set[int]] = {}
    images = image_numbers([table.content for table in tables]) if tables else []
    for table, numbers in zip(tables, images, strict=True):
        held.setdefault(table.dataset, set()).update(numbers.tolist())
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


def notes(tables: Sequence[SampleTable]) -> list[str]:
    """What to say beside means and correlations over datasets: nothing where no image is shared."""
    sizes = {table.name: len(table) for table in tables}
    shared = [f"{name} ({n:,} of {sizes[name]:,})" for name, n in shared_images(tables).items()]
    if not shared:
        return []
    sentence = (
        f"note: images stand in several of these sets, {', '.join(shared)}: means and correlations "
        "over datasets count them more than once"
    )
    return [printable(sentence)]

"""Datasets that share images: means over them count those twice, and tests take them for evidence
twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable


def sample_tables(store: FeatureStore, places: Sequence[tuple[str, str]]) -> list[SampleTable]:
    """Of places (dataset, split), each once."""
    return [store.samples(*place) for place in dict.fromkeys(places)]


def shared_images(tables: Sequence[SampleTable]) -> dict[str, int]:
    """By dataset/split: how many of its images others hold too, by content; those that have any."""
    holders = Counter(image for table in tables for image in set(_contents(table)))
    counts = {
        f"{table.dataset}/{table.split}": sum(holders[image] > 1 for image in _contents(table))
        for table in tables
    }
    return {name: count for name, count in counts.items() if count}


def apart(tables: Sequence[SampleTable]) -> list[SampleTable]:
    """Those left when, while any two share images, the one that shares the most is left out."""
    left = list(tables)
    while shared := shared_images(left):
        most = max(shared, key=lambda name: shared[name])
        left = [table for table in left if f"{table.dataset}/{table.split}" != most]
    return left


def said(tables: Sequence[SampleTable]) -> str | None:
    """A sentence, where any images are shared."""
    sizes = {f"{table.dataset}/{table.split}": len(table) for table in tables}
    shared = [f"{name} ({n:,} of {sizes[name]:,})" for name, n in shared_images(tables).items()]
    if not shared:
        return None
    return (
        f"images stand in several of these sets, {', '.join(shared)}: means over datasets count "
        "them more than once"
    )


def _contents(table: SampleTable) -> list[bytes]:
    return [bytes(row) for row in table.content]

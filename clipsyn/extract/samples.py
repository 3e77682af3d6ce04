"""The sample table of a source of images: every image read and hashed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from clipsyn.extract.budget import returned
from clipsyn.extract.sources.base import ImageSource
from clipsyn.numerics.blocks import usable_cores
from clipsyn.progress import Progress
from clipsyn.store.samples import SampleTable

_HASHED_TOGETHER = 64  # a task for every image would need 1.6 KB of memory for each


def sample_table(source: ImageSource, progress: Progress) -> SampleTable:
    """The source's sample table, every image read and hashed."""
    counter = progress.add(f"{source.name}/{source.split}: reading", len(source))

    digest = returned()(source.digest)

    def digests(part: range) -> bytes:
        content = b"".join(map(digest, part))
        progress.advance(counter, len(part))
        return content

    rows = range(len(source))
    parts = [rows[start : start + _HASHED_TOGETHER] for start in rows[::_HASHED_TOGETHER]]
    with ThreadPoolExecutor(usable_cores()) as pool:
        content = b"".join(pool.map(digests, parts))
    progress.finish(counter)
    return SampleTable(
        dataset=source.name,
        split=source.split,
        ids=source.ids,
        labels=source.labels,
        content=np.frombuffer(content, np.uint8).reshape(-1, 32),
        class_names=source.class_names,
        metric=source.metric,
        licence=source.licence,
    )

"""`clipsyn.images.sources.base`: a sample table of what a source holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from clipsyn.images.sources.base import sample_table


def test_the_sample_table_has_every_image_s_hash(fakes: Any) -> None:
    source, quiet = fakes.Source(count=300), fakes.Quiet()
    table = sample_table(source, quiet)
    assert table.ids == source.ids
    assert np.array_equal(table.labels, source.labels)
    assert [bytes(row) for row in table.content] == [source.digest(row) for row in range(300)]
    assert (table.class_names, table.metric, table.licence) == (fakes.classes, "acc1", "CC0")
    assert quiet.counters == [("toy/test: reading", 300)]
    assert quiet.counts == [300]

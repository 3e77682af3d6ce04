"""When two groups are the same, how they differ, and what `ls` shows of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.store.features import FeatureStore


def every(store: FeatureStore) -> dict[str, str]:
    """The content of each group, by its path."""
    groups = (store.group(store.at(*place)) for place in store.places())
    return {group.name: group.content for group in groups}


def test_content_is_the_same_wherever_and_whenever_it_was_made(tmp_path: Path, fakes: Any) -> None:
    one = fakes.fill(tmp_path / "one")
    two = fakes.fill(tmp_path / "elsewhere" / "two")
    path = "features/toy/test/clean/fake--one/zarr.json"
    assert (one.path / path).read_bytes() != (two.path / path).read_bytes()  # provenance
    assert every(one) == every(two)


@pytest.mark.parametrize("changes", [{"labels": [0] * 20}, {"licence": "CC-BY"}, {"metric": "x"}])
def test_corrections_change_the_content_of_samples_alone(
    tiny_store: FeatureStore, changes: dict[str, Any]
) -> None:
    before = every(tiny_store)
    table = tiny_store.samples("toy", "test")
    if "labels" in changes:
        changes = {"labels": np.array(changes["labels"], np.int32)}
    tiny_store.annotate(replace(table, **changes))
    after = every(FeatureStore.open(tiny_store.path))
    assert {name for name in after if after[name] != before[name]} == {"samples/toy/test"}


# Facts

"""When two groups are the same, how they differ, and what `ls` shows of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.remote.publishing import content_of, differing
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import cell_rows, find_groups
from clipsyn.store.samples import SampleTable


def every(store: FeatureStore) -> dict[str, str]:
    """The content of each group, by its path."""
    groups = (store.group(group.path) for group in find_groups(store, {}))
    return {group.name: content_of(group) for group in groups}


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


def test_facts_and_arrays_that_differ_are_named(tiny_store: FeatureStore) -> None:
    path = tiny_store.samples_path("toy", "test")
    before = dict(tiny_store.group(path).attributes)
    table = tiny_store.samples("toy", "test")
    labels = np.zeros(20, np.int32)
    tiny_store.annotate(replace(table, labels=labels, licence="none", class_names=("a", "b", "c")))
    after = FeatureStore.open(tiny_store.path).group(path).attributes
    assert differing(before, after) == ["class_names", "licence", "values of label"]


# Facts


def test_facts_are_what_ls_shows_of_extracted_cells(tmp_path: Path, fakes: Any) -> None:
    source = fakes.Source(bad={3: "cut short"})
    store = fakes.fill(tmp_path / "store", [fakes.Encoder()], [source], max_bad=0.5)
    check_rows(store)


def test_facts_are_what_ls_shows_of_imported_cells(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "store")
    table = SampleTable.of("toy", "test", ["a", "b", "c"], [0, 1, 0], ["cat", "dog"])
    known = np.array([True, False, True])
    with store.writer(table, "answers") as cell:
        cell.predictions([0, 1, 1], valid=known)
    with store.writer(table, "scores", prompts="simple") as cell:
        cell.logits(np.eye(3, 2))
    with store.writer(table, "vectors") as cell:
        cell.classes("simple", np.eye(2), scale=10.0)
        cell.embeddings(np.eye(3, 2)[[0, 1, 0]])
    check_rows(store)
    classes = store.group(store.classes_path("toy", "simple", "vectors"))
    assert classes.facts == {"imported": "embeddings"}
    samples = store.group(store.samples_path("toy", "test"))
    assert samples.facts == {"images": 3, "classes": 2}


def check_rows(store: FeatureStore) -> None:
    """The facts of each cell equal the row that `ls` makes by reading it."""
    rows = cell_rows(store)
    assert rows
    for row in rows:
        names = {name: row[name] for name in ("dataset", "split", "perturbation", "backbone")}
        groups = [
            group
            for group in find_groups(store, {name: [value] for name, value in names.items()})
            if group.kind == "features" or "imported" in group.facts
            if group.kind != "classes"
        ]
        assert groups
        for group in groups:
            facts = store.group(group.path).facts
            for name in ("images", "bad", "embed", "imported"):
                assert facts.get(name) == row[name]

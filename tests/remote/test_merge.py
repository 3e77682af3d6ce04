"""Merging is for stores on disk: a published one is pulled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipsyn.errors import StoreError, UsageError
from clipsyn.names import Location
from clipsyn.store.features import FeatureStore
from clipsyn.store.merge import plan_merge
from tests.remote.copying import push


def test_what_is_published_is_pulled(tiny_store: FeatureStore, tmp_path: Path, fakes: Any) -> None:
    published = tmp_path / "published"
    push(tiny_store, published.as_uri())
    own = fakes.fill(tmp_path / "own").path
    for name in (published, Location.of(published.as_uri())):
        with pytest.raises(UsageError, match=f"published store: run `clipsyn pull .* {own}` inst"):
            plan_merge(own, [name])
        with pytest.raises(StoreError, match="is only read: `clipsyn pull"):
            plan_merge(name, [own])


def test_a_file_url_may_be_of_a_store_on_disk(tiny_store: FeatureStore, tmp_path: Path) -> None:
    url = Location.of(tiny_store.path.as_uri())
    assert plan_merge(tmp_path / "lab", [url]).offers[0].counts()["features"] == 8

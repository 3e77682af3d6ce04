from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipsyn.errors import StoreError
from clipsyn.remote.published import cache_folder
from clipsyn.store.features import FeatureStore
from tests.kills import problems
from tests.remote.publish import published


def test_what_cannot_be_written_is_an_error(tiny_store, tmp_path, cache):
    cache.touch()
    with pytest.raises(StoreError):
        FeatureStore.open(published(tiny_store.path, tmp_path / "published"))


@pytest.mark.parametrize("tags", [True, False])  # False: as of Python's own server
def test_offline_what_was_read_is_read_again(tags, tiny_store, tmp_path, serve, monkeypatch):
    server = serve(published(tiny_store.path, tmp_path / "published"))
    server.tags = tags
    expected = FeatureStore.open(server.url).pool("toy", "test").logits
    monkeypatch.setenv("CLIPSYN_OFFLINE", "1")
    server.requests.clear()
    store = FeatureStore.open(server.url)
    assert store.keys() == tiny_store.keys()
    with pytest.raises(StoreError, match=f"{server.url}/.*/train/.* is not in the cache"):
        store.pool("toy", "train")
    assert problems(store)  # what lies there was not looked at, and the cache stays as it is
    np.testing.assert_array_equal(store.pool("toy", "test").logits, expected)
    with pytest.raises(StoreError):
        FeatureStore.open(f"{server.url}/another")
    assert server.requests == []


def test_no_secret_of_a_url_is_in_the_cache(tiny_store, tmp_path, cache, serve):
    server = serve(published(tiny_store.path, tmp_path / "published"))
    FeatureStore.open(server.url.replace("//", "//me:secret@"))
    assert not [path for path in cache.rglob("*") if "secret" in path.name]


def test_the_environment_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIPSYN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "clipsyn"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_folder() == Path("/var/cache/clipsyn")
    monkeypatch.setenv("CLIPSYN_CACHE", "/scratch/me")
    assert cache_folder() == Path("/scratch/me")

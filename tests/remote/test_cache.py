from __future__ import annotations

from pathlib import Path

import pytest

from clipsyn.errors import StoreError
from clipsyn.remote.published import cache_folder
from clipsyn.store.features import FeatureStore
from tests.remote.publish import published


def test_what_cannot_be_written_is_an_error(tiny_store, tmp_path, cache):
    cache.touch()
    with pytest.raises(StoreError):
        FeatureStore.open(published(tiny_store.path, tmp_path / "published"))


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

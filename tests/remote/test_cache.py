from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from clipsyn.errors import DamagedStore, StoreError
from clipsyn.names import Location
from clipsyn.remote.index import Index
from clipsyn.remote.published import Cache
from clipsyn.remote.transport import Answer

DAY = 86_400


def cache_of(tmp_path: Path, **groups: int) -> Cache:
    """A cache of groups that were read so many days ago."""
    cache = Cache(tmp_path / "cache")
    for name, days in groups.items():
        cache.write(cache.folder(name) / "array" / "c.0", bytes(300))
        at = time.time() - DAY * days
        os.utime(cache.folder(name), (at, at))
    return cache


def test_what_nobody_has_read_for_long_goes(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, a=30, b=20, c=1)
    assert [group.digest for group in cache.groups()] == ["c", "b", "a"]
    assert [group.digest for group in cache.prune(25 * DAY)] == ["a"]
    cache.use("b")
    assert cache.prune(10 * DAY) == []
    assert [group.digest for group in cache.prune(0)] == ["b", "c"]
    assert cache.groups() == []


class Server:
    """Says an index, with an ETag where it has one."""

    shown = "https://lab/store"

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.known: list[str | None] = []

    def get(self, path: str, known: str | None, most: int) -> Answer:
        self.known.append(known)
        return self.answers.pop(0)


def test_an_index_is_kept_with_its_etag(tmp_path: Path) -> None:
    cache, location = Cache(tmp_path / "cache"), Location.of("https://me:secret@lab/store")
    one, two = (Index({"format": "2.0", "chunk_rows": rows}) for rows in (1, 2))
    told = [Answer(one.dumps(), "e1"), Answer(b"", "e1"), Answer(two.dumps(), "e2")]
    server = Server(*told, Answer(one.dumps(), None), Answer(b"", "e3"))
    assert [cache.index(server, location) for _ in range(4)] == [one, one, two, one]  # type: ignore[arg-type]
    with pytest.raises(DamagedStore):
        cache.index(server, location)  # type: ignore[arg-type]
    assert server.known == [None, "e1", "e1", "e2", "e2"]
    (entry,) = (tmp_path / "cache" / "indexes").iterdir()
    assert "lab" not in entry.name  # a URL may have a secret in it
    entry.write_bytes(b"")
    server.answers = [Answer(two.dumps(), "e2")]
    assert cache.index(server, location) == two  # type: ignore[arg-type]
    assert server.known[-1] is None


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(StoreError):
        Cache(tmp_path / "cache").write(tmp_path / "cache" / "a", b"")


def test_the_environment_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIPSYN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert Cache.of_user().root == tmp_path / "home" / ".cache" / "clipsyn"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert Cache.of_user().root == Path("/var/cache/clipsyn")
    monkeypatch.setenv("CLIPSYN_CACHE", "/scratch/me")
    assert Cache.of_user().root == Path("/scratch/me")

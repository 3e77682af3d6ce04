from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from clipsyn.errors import UsageError
from clipsyn.remote.cache import Cache, parse_size


def cache_of(tmp_path: Path, **groups: int) -> Cache:
    """A cache of groups of so many bytes, the first not used for longest."""
    cache = Cache(tmp_path / "cache", 1000)
    for age, (name, size) in enumerate(reversed(groups.items())):
        cache.keep(name, "array/c.0", bytes(size))
        cache.label(name, "https://lab/store", f"features/{name}")
        at = time.time() - 100 * age - 10
        os.utime(tmp_path / "cache" / "groups" / name, (at, at))
    return Cache(tmp_path / "cache", 1000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", 500),
        ("500 MB", 500_000_000),
        ("20GB", 20_000_000_000),
        ("1.5 tb", 1_500_000_000_000),
        (" 3k ", 3000),
        ("0", 0),
    ],
)
def test_a_size_has_a_unit(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-5 GB", "5 GiB", "5 XB", "GB", "1e9", "nan"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no size: write it as 500 MB"):
        parse_size(text)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, a=300, b=300, c=300)
    each = cache.kept()[0].bytes  # with its label
    assert [kept.folder.name for kept in cache.kept()] == ["c", "b", "a"]
    assert [kept.name for kept in cache.prune(2 * each)] == ["features/a"]
    cache.folder("b")  # is a use
    assert [kept.name for kept in cache.prune(each)] == ["features/c"]
    assert [kept.name for kept in cache.kept()] == ["features/b"]
    cache.prune(0)
    assert cache.kept() == []


def test_what_this_process_reads_stays(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, a=900, b=900, c=900)
    cache.folder("a")
    cache.keep("d", "array/c.0", bytes(900))
    cache.make_room()
    assert {kept.folder.name for kept in cache.kept()} == {"a", "d"}


def test_files_appear_when_they_are_whole(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, a=300)
    there = [path.name for path in (tmp_path / "cache" / "groups" / "a").rglob("*")]
    assert sorted(there) == ["array", "c.0", "from.json"]
    cache.forget("a")
    assert list((tmp_path / "cache" / "groups").iterdir()) == []


def test_debris_of_killed_processes_goes(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, a=300)
    groups = tmp_path / "cache" / "groups"
    (groups / ".trash-1" / "array").mkdir(parents=True)
    old, new = groups / "a" / ".partial-1", groups / "a" / "array" / ".partial-2"
    old.write_bytes(b"half")
    new.write_bytes(b"being written")
    os.utime(old, (0, 0))
    cache.prune(10**6)
    assert not old.exists()
    assert not (groups / ".trash-1").exists()
    assert new.exists()


def test_an_index_is_kept_with_its_etag(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1000)
    assert cache.index("https://lab/store") is None
    cache.keep_index("https://lab/store", '"e1"', b"{}\n\n")
    assert cache.index("https://lab/store") == ('"e1"', b"{}\n\n")
    assert cache.index("https://lab/other") is None
    (entry,) = (tmp_path / "cache" / "indexes").iterdir()
    entry.write_bytes(b"")
    assert cache.index("https://lab/store") is None
    assert "lab" not in entry.name  # a URL may have a secret in it


def test_the_environment_says_where_and_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLIPSYN_CACHE", "CLIPSYN_CACHE_SIZE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert Cache.of_user().root == tmp_path / "home" / ".cache" / "clipsyn"
    assert Cache.of_user().most == 20_000_000_000
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert Cache.of_user().root == Path("/var/cache/clipsyn")
    monkeypatch.setenv("CLIPSYN_CACHE", "/scratch/me")
    monkeypatch.setenv("CLIPSYN_CACHE_SIZE", "2 GB")
    assert (Cache.of_user().root, Cache.of_user().most) == (Path("/scratch/me"), 2_000_000_000)
    monkeypatch.setenv("CLIPSYN_CACHE_SIZE", "much")
    with pytest.raises(UsageError, match="CLIPSYN_CACHE_SIZE: 'much' is no size"):
        Cache.of_user()

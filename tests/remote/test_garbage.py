"""Groups that no index names: what killed pushes leave goes, what running ones need stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clipsyn.errors import DamagedStore, StoreError
from clipsyn.names import Location
from clipsyn.remote import push as pushing
from clipsyn.remote.garbage import collect, left_over
from clipsyn.remote.index import parse_part
from clipsyn.remote.transport import Remote
from clipsyn.store.features import FeatureStore
from tests.kills import problems
from tests.remote.bucket import Bucket
from tests.remote.copying import Names, push
from tests.remote.publish import PROBE, part_of

ONE, TWO = {"backbone": ["fake/one"]}, {"backbone": ["fake/two"]}
DAY = 86_400


@pytest.fixture
def tiny_store(fakes: Any, tmp_path: Path) -> FeatureStore:
    """Two backbones and one split: each file is a request."""
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    store: FeatureStore = fakes.fill(tmp_path / "tiny", encoders)
    return store


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Function (store, url, filters): a push that sends all and writes no index."""

    def run(store: FeatureStore, url: str, filters: Names | None = None) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(pushing, "add_to_index", interrupt)
            with pytest.raises(KeyboardInterrupt):
                push(store, url, filters)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    return run


def folders_of(bucket: Bucket) -> set[str]:
    """Of all groups that are there whole."""
    ends = "/zarr.json"
    return {path.removesuffix(ends) for path in bucket.paths() if path.endswith(ends)}


def named(bucket: Bucket) -> set[str]:
    part = parse_part(bucket.read(part_of("toy")), bucket.url, "toy")
    return {entry.folder for entry in part.values()}


def test_what_no_index_names_is_found_and_removed(bucket, tiny_store, killed, tmp_path):
    push(tiny_store, bucket.url, ONE)
    before = bucket.paths()
    killed(tiny_store, bucket.url, TWO)
    new = folders_of(bucket) - named(bucket)
    found = left_over(Location.of(bucket.url))
    assert [one.what for one in found] == [
        f"{folder}, which no index names" for folder in sorted(new)
    ]
    assert len(new) == 3  # classes, features, logits
    sent = [path for path in bucket.paths() if path not in before]
    assert sum(one.bytes for one in found) == sum(len(bucket.read(path)) for path in sent)
    assert collect(Location.of(bucket.url), found) == len(new)
    assert bucket.paths() == before
    assert left_over(Location.of(bucket.url)) == []
    assert problems(bucket.url) == []


def test_what_is_no_published_group_stays(bucket, tiny_store, killed):
    killed(tiny_store, bucket.url)
    group = next(iter(folders_of(bucket)))
    names = group.rpartition("/")[0]
    others = [
        f"{names}/notes.txt",
        f"{names}/0123456789abcdeg/c.0",
        f"{names}/0123456789abcdef0/c.0",
        f"{names}/more/0123456789abcdef/c.0",
        "features/0123456789abcdef/c.0",
        "models/toy/test/clean/fake--one/0123456789abcdef/c.0",  # a kind of a later version
        "0123456789abcdef/c.0",
    ]
    for path in others:
        bucket.write(path, b"mine")
    location = Location.of(bucket.url)
    assert collect(location, left_over(location)) == len(tiny_store.places())
    assert bucket.paths() == sorted([*others, PROBE])


def test_a_push_that_goes_on_keeps_what_it_found(bucket, tiny_store, killed):
    """It writes to it, so that it is no longer as old as it was when it was listed."""
    push(tiny_store, bucket.url, ONE)
    killed(tiny_store, bucket.url, TWO)
    location = Location.of(bucket.url)
    found = left_over(location)
    time.sleep(1.1)  # S3 tells whole seconds
    killed(tiny_store, bucket.url, TWO)
    assert collect(location, found) == 0
    assert folders_of(bucket) >= {one.what.partition(",")[0] for one in found}


def test_what_is_named_meanwhile_stays(bucket, tiny_store, killed):
    push(tiny_store, bucket.url, ONE)
    killed(tiny_store, bucket.url, TWO)
    location = Location.of(bucket.url)
    found = left_over(location)
    push(tiny_store, bucket.url, TWO)
    found = [replace(one, written=one.written + DAY) for one in found]  # whatever its age
    assert collect(location, found) == 0
    assert problems(bucket.url) == []


def test_what_gc_removes_of_a_running_push_is_said_and_sent_again(bucket, tiny_store, monkeypatch):
    """It may have listed a group just before the push wrote to it, or the push has taken a day."""
    push(tiny_store, bucket.url, ONE)
    add = pushing.add_to_index

    def late(remote: Remote, *rest: Any, **how: Any) -> Any:
        location = Location.of(bucket.url)
        assert collect(location, left_over(location)) == 3
        return add(remote, *rest, **how)

    with monkeypatch.context() as patched:
        patched.setattr(pushing, "add_to_index", late)
        with pytest.raises(DamagedStore):
            push(tiny_store, bucket.url)
    push(tiny_store, bucket.url, replace=True)
    assert folders_of(bucket) == named(bucket)
    assert problems(bucket.url) == []


@pytest.mark.parametrize("lost", ["index.json.gz", part_of("toy")])
def test_a_lost_index_is_no_reason_to_remove_all(bucket, tiny_store, lost):
    push(tiny_store, bucket.url)
    Remote(bucket.url).delete(lost)
    with pytest.raises(StoreError):
        left_over(Location.of(bucket.url))

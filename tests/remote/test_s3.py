"""Push and pull through a real S3 client: throttled, failing, and raced by other publishers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from clipsyn.errors import StaleCell, StoreError
from clipsyn.remote.push import Push
from clipsyn.store.features import FeatureStore
from tests.remote.bucket import Bucket
from tests.remote.copying import pull, push
from tests.remote.publish import PROBE, objects_of, part_of, read_groups

CELL = {"backbone": ["fake/one"], "perturbation": ["clean"], "split": ["test"]}


def test_throttling_errors_and_lost_answers_are_overcome(bucket, tiny_store, tmp_path, fakes):
    bucket.fail_now_and_then(every=7)
    push(tiny_store, bucket.url)
    assert bucket.failed > 10
    pull(bucket.url, tmp_path / "back")
    assert fakes.unlike(tiny_store.path, tmp_path / "back") == []


def test_server_that_only_fails_is_an_error_and_nothing_is_visible(bucket, tiny_store, monkeypatch):
    from clipsyn.remote import transport

    monkeypatch.setattr(transport, "_RETRIES", 1)
    bucket.fault = lambda method, path: "500" if "logits" in path and method == "PUT" else None
    with pytest.raises(StoreError, match="500") as caught:
        push(tiny_store, bucket.url)
    assert "a-secret-key" not in str(caught.value)
    assert "index.json.gz" not in bucket.paths()
    with pytest.raises(StoreError, match="no published store"):
        pull(bucket.url, Path("nowhere"))
    bucket.fault = lambda method, path: None
    sent = set(bucket.paths())
    bucket.requests.clear()
    push(tiny_store, bucket.url)
    again = {path.partition("/lab/")[2] for method, path in bucket.requests if method == "PUT"}
    assert len(sent) > 10
    data = {path for path in again & sent if not path.endswith("zarr.json")}  # these say: in use
    assert data == {PROBE}  # by which the bucket is tried
    check_consistent(bucket)


def check_consistent(bucket: Bucket) -> None:
    """Everything in the bucket belongs to the index, and all that the index names is there."""
    expected = {PROBE, "index.json.gz", part_of("toy")}
    for group in read_groups(bucket.read):
        prefix = f"/{group['manifest'][:16]}/zarr.json"
        (manifest,) = [key for key in bucket.paths() if key.endswith(prefix)]
        folder = manifest.removesuffix("zarr.json")
        expected |= {manifest, *(folder + name for name in objects_of(bucket.read(manifest)))}
    assert set(bucket.paths()) == expected


@pytest.mark.parametrize("ignored", [{"if-match"}, {"if-none-match"}])
def test_a_bucket_that_heeds_no_conditions_is_refused(bucket, tiny_store, ignored):
    """Two who push would lose each other's cells there."""
    bucket.ignored = ignored
    with pytest.raises(StoreError):
        push(tiny_store, bucket.url, CELL)
    assert bucket.paths() == [PROBE]  # by which it was tried


# Several publishers at once


def together(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results, or exceptions, of functions that start at the same moment."""
    barrier = Barrier(len(works))

    def start(work: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return work()
        except StoreError as error:
            return error

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(start, works))


def other_content(path: Path, fakes: Any) -> FeatureStore:
    """A store in which a backbone of a known name has other weights."""
    return fakes.fill(path, [fakes.Encoder(weights="other")], perturbations=["clean"])


def test_publishers_of_different_cells_lose_nothing(bucket, tiny_store):
    parts = [
        {"backbone": [backbone], "perturbation": [perturbation], "split": [split]}
        for backbone in ("fake/one", "fake/two")
        for perturbation in ("clean", "jpeg-3")
        for split in ("test", "train")
    ]
    results = together([lambda part=part: push(tiny_store, bucket.url, part) for part in parts])
    assert all(isinstance(result, Push) for result in results)
    assert len(read_groups(bucket.read)) == len(tiny_store.places())
    check_consistent(bucket)


def test_of_two_contents_under_one_name_the_first_stays(bucket, tiny_store, tmp_path, fakes):
    other = other_content(tmp_path / "other", fakes)
    one, two = together(
        [lambda: push(tiny_store, bucket.url, CELL), lambda: push(other, bucket.url, CELL)]
    )
    assert {type(one), type(two)} == {Push, StaleCell}
    winner = tiny_store if isinstance(one, Push) else other
    pull(bucket.url, tmp_path / "back")
    features = "features/toy/test/clean/fake--one"
    assert fakes.unlike(winner.path / features, tmp_path / "back" / features) == []


def test_of_two_that_replace_the_last_stays_whole(bucket, tiny_store, tmp_path, fakes):
    push(tiny_store, bucket.url, CELL)
    other = other_content(tmp_path / "other", fakes)
    for _ in range(3):
        together(
            [
                lambda: push(other, bucket.url, CELL, replace=True),
                lambda: push(tiny_store, bucket.url, CELL, replace=True),
            ]
        )
    pull(bucket.url, tmp_path / "back")
    features = "features/toy/test/clean/fake--one"
    assert any(
        fakes.unlike(store.path / features, tmp_path / "back" / features) == []
        for store in (tiny_store, other)
    )

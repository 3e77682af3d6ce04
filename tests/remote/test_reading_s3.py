"""A published store is read from S3, which throttles now and then."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipsyn.errors import StoreError
from clipsyn.remote.transport import MissingObject, Remote
from clipsyn.store.features import FeatureStore
from tests.remote.bucket import Bucket
from tests.remote.publish import published


@pytest.fixture
def filled(bucket: Bucket, tiny_store: FeatureStore, tmp_path: Path) -> Bucket:
    """A bucket with the store, published in it."""
    folder = published(tiny_store.path, tmp_path / "published")
    remote = Remote(bucket.url)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        remote.put(file.relative_to(folder).as_posix(), file.read_bytes())
    bucket.requests.clear()
    return bucket


def test_no_bucket_is_a_sentence_without_secrets(filled, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    with pytest.raises(StoreError, match="no such bucket") as error:
        FeatureStore.open("s3://no-such-bucket/x")
    assert not isinstance(error.value, MissingObject)
    assert "s3cret" not in str(error.value)


def test_a_bucket_that_sends_no_parts_sends_all(filled: Bucket) -> None:
    filled.ignored = {"range"}
    whole, _ = Remote(filled.url).get("index.json.gz")
    assert Remote(filled.url).get("index.json.gz", span=(10, 30))[0] == whole[10:30]


def test_rights_that_lack_are_told_from_what_is_not_there(filled: Bucket) -> None:
    for code in ("AccessDenied", "InvalidAccessKeyId", "ExpiredToken"):
        filled.fault = lambda method, path, code=code: f"403 {code}"
        with pytest.raises(StoreError, match="credentials"):
            FeatureStore.open(filled.url)
        with pytest.raises(StoreError, match="listed: you may not"):
            Remote(filled.url).list("features")

"""A published store behind a real web server."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from clipsyn.store.features import FeatureStore
from tests.remote.copying import push
from tests.remote.nginx import Nginx


@pytest.fixture
def url(tiny_store: FeatureStore, nginx: Nginx, tmp_path: Path) -> str:
    push(tiny_store, f"file://{tmp_path}/www")
    return nginx.serving(tmp_path / "www")


def test_a_store_is_read_over_http(url: str, tiny_store: FeatureStore, nginx: Nginx) -> None:
    there = FeatureStore.open(url)
    assert there.keys() == tiny_store.keys()
    key = there.keys()[0]
    pool, same = (store.pool(key.dataset, key.split) for store in (there, tiny_store))
    np.testing.assert_array_equal(pool.logits, same.logits)
    time.sleep(0.2)  # the last answers come before their lines in the log
    before = len(nginx.requests())
    FeatureStore.open(url).pool(key.dataset, key.split)
    again = nginx.requests(more_than=before)[before:]
    assert [(path.rpartition("/")[2], status) for _, path, status, _ in again] == [
        ("index.json.gz", 304)
    ]


def test_a_server_that_refuses_and_hangs_up_now_and_then_is_read(
    url: str, tiny_store: FeatureStore, nginx: Nginx, tmp_path: Path
) -> None:
    there = FeatureStore.open(nginx.serving(tmp_path / "www", unsure=True))
    keys = tiny_store.keys()
    for key in keys:
        np.testing.assert_array_equal(there.embeddings(key), tiny_store.embeddings(key))
        np.testing.assert_array_equal(there.logits(key, "simple"), tiny_store.logits(key, "simple"))
    unsure = [status for _, path, status, _ in nginx.requests() if path.startswith("/unsure/")]
    assert {200, 503, 444} <= set(unsure)

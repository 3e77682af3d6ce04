"""push and pull killed at random moments: nothing half-visible, and the same command completes.

The environment variable CLIPSYN_TEST_KILLS says how many times each is killed, 5 by default.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from clipsyn.remote.index import parse_part
from clipsyn.remote.manifest import Manifest
from clipsyn.store.features import FeatureStore
from tests.kills import assert_sound, number_of_kills
from tests.remote.bucket import Bucket, in_front_of
from tests.remote.copying import pull, push
from tests.remote.publish import part_of

KILLS = range(number_of_kills(5))
CELLS = ("--backbones", "fake/one", "--perturb", "clean", "--split", "test")
FILTERS = {"backbone": ["fake/one"], "perturbation": ["clean"], "split": ["test"]}
ROOT = Path(__file__).parents[2]


class Killer:
    """Kills a command of `clipsyn` when it makes its request of a number, or a moment later."""

    def __init__(self, after: int, later: float) -> None:
        self._left, self._later = after, later
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.killed = False

    def run(self, *words: object, environment: dict[str, str] | None = None) -> int:
        """The exit status, negative where it was killed."""
        command = [sys.executable, "-m", "clipsyn", *map(str, words)]
        env = {**os.environ, **(environment or {}), "PYTHONPATH": str(ROOT)}
        with self._lock:
            self._process = subprocess.Popen(
                command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        _, said = self._process.communicate()
        assert self.killed or self._process.returncode == 0, said.decode()
        return self._process.returncode

    def count(self, *_: str) -> None:
        """Of a server: a request has come."""
        with self._lock:
            self._left -= 1
            if self._left == 0 and self._process:
                time.sleep(self._later)
                self._process.kill()
                self.killed = True


def killers(requests: int) -> Iterator[Killer]:
    """One for each kill, at another number of the requests that the command makes."""
    for number in KILLS:
        rng = random.Random(number)
        yield Killer(rng.randrange(1, requests), rng.choice([0, 0, rng.uniform(0, 0.02)]))


def test_push_killed(moto_port, tiny_store, monkeypatch):
    with in_front_of(Bucket("whole", moto_port), monkeypatch) as reference:
        push(tiny_store, reference.url, FILTERS)
        expected = {path: reference.read(path) for path in reference.paths()}
        requests = len(reference.requests)
    visible = 0
    for number, killer in enumerate(killers(requests)):
        with in_front_of(Bucket(f"killed-{number}", moto_port), monkeypatch) as bucket:
            bucket.fault = killer.count
            killer.run("push", tiny_store.path, bucket.url, *CELLS)
            bucket.fault = lambda method, path: None
            visible += check_published(bucket)
            push(tiny_store, bucket.url, FILTERS)
            assert {path: bucket.read(path) for path in bucket.paths()} == expected
    assert visible < len(KILLS)  # or none was killed in the middle


def check_published(bucket: Bucket) -> bool:
    """Whether there is an index. What it names is there, and so is what each manifest names."""
    paths = set(bucket.paths())
    for path in paths:
        if path.endswith("/zarr.json"):
            folder = path.removesuffix("zarr.json")
            manifest = Manifest(**json.loads(bucket.read(path))["attributes"]["published"])
            for name, (there, start) in manifest.places.items():
                size, digest = manifest.files[name]
                data = bucket.read(folder + there)[start : start + size]
                assert (len(data), hashlib.sha256(data).hexdigest()) == (size, digest)
    if part_of("toy") in paths:
        part = parse_part(bucket.read(part_of("toy")), bucket.url, "toy")
        assert all(f"{entry.folder}/zarr.json" in paths for entry in part.values())
    if "index.json.gz" not in paths:
        return False
    assert part_of("toy") in paths
    return True


def test_pull_killed(tiny_store, tmp_path, fakes, serve, monkeypatch):
    monkeypatch.setattr("clipsyn.remote.manifest._INLINE", 0)  # so that chunks travel one by one
    push(tiny_store, tmp_path / "published", FILTERS)
    server = serve(tmp_path / "published")
    pull(server.url, tmp_path / "whole")
    requests = len(server.requests)
    seen = []
    for number, killer in enumerate(killers(requests)):
        path = tmp_path / f"killed-{number}"
        server.fault = killer.count
        killer.run("pull", server.url, path)
        server.fault = lambda path: None
        seen.append(assert_sound(path) if (path / "clipsyn.json").exists() else 0)
        pull(server.url, path)
        assert fakes.unlike(tmp_path / "whole", path) == []
        assert list((path / ".wip").glob("pull-*")) == []
    whole = len(FeatureStore.open(tmp_path / "whole").places())
    assert min(seen) < whole  # or none was killed in the middle

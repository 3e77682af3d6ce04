from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.remote.bucket import Bucket, in_front_of
from tests.remote.server import Server, serving
from tests.slurm import slurm

__all__ = ["slurm"]
_NUMBERS = itertools.count()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Server]]:
    """Serve a folder by a web server until the test ends."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(serving(folder))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a cache of its own, with nothing in it that another has read."""
    monkeypatch.setenv("CLIPSYN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials of who runs the tests are not read."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(("AWS_", "HF_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    """Moto's server, for all tests of the session."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        lacking = f"S3: {error}; `pip install 'clipsyn[test]'` brings moto's server"
        if os.environ.get("CLIPSYN_TEST_SERVERS") == "1":
            pytest.fail(lacking)
        pytest.skip(lacking)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def bucket(moto_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty S3 bucket, and an environment with the keys to it."""
    with in_front_of(Bucket(f"bucket-{next(_NUMBERS)}", moto_port), monkeypatch) as made:
        yield made

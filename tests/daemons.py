"""Servers that tests start: they listen on loopback only, and end with the tests."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running(command: Sequence[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    """A program that stays in the foreground; it ends when we do, even if we are killed."""
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as daemon:
        try:
            yield daemon
        finally:
            daemon.terminate()
            daemon.wait(30)


def until(there: Callable[[], bool], seconds: float = 120) -> None:
    """Wait; the limit is for what never comes, not a measure of speed."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def assert_on_loopback_only(port: int) -> None:
    """What listens on all addresses answers at this one, too."""
    assert answers(port)
    assert not answers(port, "127.0.0.2")

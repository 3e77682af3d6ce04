"""Whole processes: how long they take, how much processor time and memory, and what failed."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from resource import struct_rusage
from typing import IO

from common import fresh_python

EVERY = 0.01  # seconds between looks at a process


@dataclass(frozen=True)
class Ran:
    """One process that has ended: seconds of wall and processor time, bytes at its peak."""

    wall: float
    cpu: float
    peak: int
    output: str
    said: tuple[tuple[float, str], ...] = ()  # lines of stderr, each with its second
    error: str = ""  # why it failed, in one line

    @property
    def worked(self) -> bool:
        return not self.error


def of_checkout(folder: Path) -> dict[str, str]:
    """The environment in which `python -m clipsyn` is the clipsyn of another checkout.

    Python would put the current folder, which may hold a clipsyn too, before `PYTHONPATH`.
    """
    return {"PYTHONPATH": str(folder.resolve()), "PYTHONSAFEPATH": "1"}


def run(
    command: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None
) -> Ran:
    """Run a command to its end, or kill it and its children after `timeout` seconds.

    CPU time is that of the process and of its children. The peak is that of the process alone:
    VmHWM, looked at until it ends, since ru_maxrss begins with the peak of the caller.
    """
    said: list[tuple[float, str]] = []
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        assert process.stderr is not None
        listener = threading.Thread(target=_listen, args=[process.stderr, begin, said])
        listener.start()
        late = threading.Timer(timeout, _kill, [process.pid])
        late.start()
        peak, (_, status, used) = _wait(process.pid)
        late.cancel()
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        listener.join()
        process.stderr.close()
        output.seek(0)
        text = output.read()
    why = ""
    if process.returncode:
        last = ([line for _, line in said if line] or [f"exit status {process.returncode}"])[-1]
        why = f"not done after {timeout:,.0f} s" if wall >= timeout else last
    return Ran(wall, used.ru_utime + used.ru_stime, peak, text, tuple(said), why)


def _wait(process: int) -> tuple[int, tuple[int, int, struct_rusage]]:
    """Its peak in bytes, and what `os.wait4` says, at its end."""
    peak = 0
    while True:
        peak = max(peak, _peak(process))
        ended = os.wait4(process, os.WNOHANG)
        if ended[0]:
            return peak, ended
        time.sleep(EVERY)


def _peak(process: int) -> int:
    with suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _listen(stream: IO[str], begin: float, said: list[tuple[float, str]]) -> None:
    said.extend((time.perf_counter() - begin, line.rstrip()) for line in stream)


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # it leads a group of its own


def clipsyn(*arguments: str) -> list[str]:
    return fresh_python("-m", "clipsyn", *arguments)

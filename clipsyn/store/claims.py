"""Who makes what: files that workers on any machine claim before they begin.

A claim is a file with host and process, which only one can create, and which its owner touches
while it works. Claims spare work and protect nothing: what two workers make has the same bytes. So
clocks that differ, or a process number that is used again, cost time and no more.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

EXPIRES = 60.0  # seconds after which a claim that was not renewed is a dead worker's


def take(claim: Path) -> bool:
    """Claim for this process; False where a worker at work has.

    Who is gone from this machine, or has not touched its claim for a minute, has lost it.
    """
    claim.parent.mkdir(exist_ok=True)
    try:
        with claim.open("x") as file:
            file.write(_owner())
    except FileExistsError:
        if _is_held(claim):
            return False
        claim.write_text(_owner())
    return True


def _owner() -> str:
    return f"{platform.node()} {os.getpid()}"


def _is_held(claim: Path) -> bool:
    try:
        owner, written = claim.read_text(), claim.stat().st_mtime
    except FileNotFoundError:  # its owner has released it just now
        return False
    host, _, process = owner.rpartition(" ")
    if owner == _owner() or time.time() - written > EXPIRES:
        return False
    return host != platform.node() or _is_alive(int(process))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True

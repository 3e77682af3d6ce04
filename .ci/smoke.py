"""Every command answers in an install without torch: help, listings, one sentence of `extract`."""

import subprocess
import sys
from pathlib import Path

CLIPSYN = Path(sys.executable).with_name("clipsyn")


def call(*arguments: str, expected: int = 0) -> str:
    done = subprocess.run([CLIPSYN, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != expected or "Traceback" in done.stderr:
        sys.exit(f"clipsyn {' '.join(arguments)} gave {done.returncode}:\n{done.stderr}")
    return done.stdout + done.stderr


reading = ["zeroshot", "ls", "info", "status", "verify", "backbones", "datasets"]
for command in [*reading, "extract", "run", "rm"]:
    call(command, "--help")
for name in ("backbones", "datasets"):
    call(name)
assert "clipsyn[extract]" in call("extract", "store", "--dataset", "emoji-food", expected=1)
call("ls", "nowhere", expected=4)

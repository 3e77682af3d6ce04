"""Work on stores in processes of their own, as any user."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

US = {"uid": 0, "gid": 0, "umask": 0o022}


class Forker:
    """Starts functions of `forked.py` in processes, and keeps what each of them says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = 0
        self._said: dict[int, Path] = {}
        script = Path(__file__).with_name("forked.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._answer() == "ready"

    def start(self, do: str, user: dict[str, int] = US, **arguments: Any) -> int:
        """The number of the process."""
        self._started += 1
        said = self._folder / f"said-{self._started}"
        command = {"said": str(said), "user": user, "do": do, "arguments": arguments}
        process = int(self._ask(command))
        self._said[process] = said
        return process

    def wait(self, process: int) -> int:
        """Its exit code; negative for a signal."""
        return int(self._ask({"wait": process}))

    def said(self, process: int) -> str:
        return self._said[process].read_text()

    def run(self, do: str, user: dict[str, int] = US, **arguments: Any) -> tuple[int, str]:
        """Exit code, and what it said."""
        process = self.start(do, user, **arguments)
        return self.wait(process), self.said(process)

    def kill(self, do: str, after: float, **arguments: Any) -> bool:
        """Kill it after so many seconds; whether it had not ended by itself."""
        process = self.start(do, **arguments)
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
        return self.wait(process) == -signal.SIGKILL

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, command: dict[str, Any]) -> str:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command, default=str) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

"""Where time goes, threads of ours included: which line each thread is at, looked at often."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from types import FrameType

EVERY = 0.005  # seconds
_WAITING = ("threading.py", "queue.py", "thread.py", "_base.py", "selectors.py")


class Sampled:
    """Looks at all threads while it is entered; those that wait for others do not count."""

    def __init__(self) -> None:
        self.own: Counter[str] = Counter()  # by function that is at work
        self.within: Counter[str] = Counter()  # by every function on the way to it
        self.looks = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Sampled:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(EVERY):
            for thread, frame in sys._current_frames().items():
                if thread != threading.get_ident() and not _waits(frame):
                    self._count(frame)

    def _count(self, frame: FrameType) -> None:
        self.looks += 1
        self.own[f"{_place(frame)}, line {frame.f_lineno}"] += 1
        names = set()
        at: FrameType | None = frame
        while at is not None:
            names.add(_place(at))
            at = at.f_back
        self.within.update(names)

    def __str__(self) -> str:
        lines = [f"{self.looks:,} looks at threads at work", "share, alone:"]
        lines += [f"{n / self.looks:6.1%}  {name}" for name, n in self.own.most_common(15)]
        lines.append("share, with what it calls:")
        lines += [f"{n / self.looks:6.1%}  {name}" for name, n in self.within.most_common(40)]
        return "\n".join(lines)


def _waits(frame: FrameType) -> bool:
    return frame.f_code.co_filename.endswith(_WAITING)


def _place(frame: FrameType) -> str:
    file = frame.f_code.co_filename.rsplit("site-packages/", 1)[-1]
    return f"{'/'.join(file.split('/')[-3:])} {frame.f_code.co_qualname}"

"""Memory of large images: never more than there is, and nobody waits for ever."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from clipsyn.images import decode as budget
from clipsyn.images.decode import DECODED, ENCODED, UndecodableImage, decode, returned, take


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_MOST", {ENCODED: 100, DECODED: 100})


def test_threads_hold_no_more_than_there_is_unless_one_is_alone() -> None:
    lock, held, most = threading.Lock(), dict[int, int](), list[int]()

    @returned()
    def work(size: int) -> None:
        take(ENCODED, size // 2)
        take(DECODED, size)
        with lock:
            held[threading.get_ident()] = size
            most.append(sum(held.values()) if len(held) > 1 else 0)
        time.sleep(0.0005)
        with lock:
            del held[threading.get_ident()]

    sizes = np.random.default_rng(0).integers(1, 160, 200).tolist()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, sizes, timeout=30))
    assert 60 < max(most) <= 100
    assert not any(budget._TAKEN.values())


def test_a_failure_gives_back_what_was_taken() -> None:
    with pytest.raises(ZeroDivisionError):
        returned()(lambda: (take(DECODED, 100), 1 // 0))()
    assert not any(budget._TAKEN.values())


def test_who_gives_nothing_back_never_waits() -> None:
    for _ in range(3):
        take(DECODED, 100)
    assert not any(budget._TAKEN.values())


def test_decoding_takes_what_it_needs_before_it_starts() -> None:
    file = io.BytesIO()
    Image.new("RGB", (100, 100)).save(file, "PNG")
    with returned():
        decode(file.getvalue())
        assert budget._TAKEN[DECODED] > 40_000
    with returned(), pytest.raises(UndecodableImage):
        decode(b"no image")
    assert not any(budget._TAKEN.values())

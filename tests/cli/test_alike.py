"""`clipsyn extract` says which classes its backbones cannot tell apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_classes_of_one_name(
    clipsyn: Callable[..., Any],
    checkpoint: Path,
    write_images: Callable[..., Path],
    tmp_path: Path,
) -> None:
    photos = write_images(count=1, classes=("a", "b", "c"))
    (photos / "classnames.txt").write_text("crane\ncat\ncrane\n")
    line = ("extract", tmp_path / "store", "-b", f"local-dir:{checkpoint}", "-d", photos)
    said = "photos (prompts simple): 2 of 3 classes cannot be told apart by tiny"
    assert f"note: {said}" in clipsyn(*line).stderr
    assert said in clipsyn("zeroshot", tmp_path / "store").stderr

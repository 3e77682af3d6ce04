"""Where images come from: sources, decoding, splits, perturbations; what a split is asked for."""

from __future__ import annotations

from pathlib import Path

from clipsyn.names import MOST
from clipsyn.settings import NUMBER, PATH, TEXT, TEXTS, WHOLE, Settings, setting

KEEP = "keep"


class SplitSettings(Settings):
    """Settings of `clipsyn split`."""

    test: float = setting(
        0.5,
        NUMBER,
        "Share of the labelled images of each class that is for testing; the rest is train.",
        least=0.001,
        most=0.999,
    )
    seed: int = setting(0, WHOLE, "Another seed, other sides.", least=0, most=MOST)
    copies: str = setting(
        "drop",
        TEXT,
        "Whether further images of the same content are left out, or stand beside the first.",
        choices=("drop", KEEP),
    )
    unlabelled: tuple[str, ...] = setting(
        (), TEXTS, "A class that stands for no label, such as a folder unsorted. Repeated."
    )
    data_root: Path | None = setting(
        None, PATH, "A folder with images that a manifest names outside its own."
    )

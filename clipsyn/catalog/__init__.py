"""What ships: tables of backbones, datasets and prompts, the miniature zoo and its images."""

from __future__ import annotations

from pathlib import Path


def data_dir() -> Path:
    """Folder of the shipped zoo and image sets: the wheel's own, or `data/` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "data"
    return installed if installed.is_dir() else package.parent / "data"

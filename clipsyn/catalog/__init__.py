"""What ships with clipsyn: the catalogue's tables, the zoo and its images, recipes."""

from __future__ import annotations

from pathlib import Path


def data_dir() -> Path:
    """Folder of the shipped zoo and image sets."""
    return _shipped("data")


def recipes_dir() -> Path:
    """Folder of the shipped recipes."""
    return _shipped("pipelines")


def _shipped(name: str) -> Path:
    """A folder of the installed wheel, else of the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parent / name

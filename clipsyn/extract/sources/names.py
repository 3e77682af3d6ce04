"""Class names and templates that lie beside images as `classnames.txt` or `classnames.json`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clipsyn.documents import parse_json
from clipsyn.errors import DatasetError


def read_lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file, one name or template each; () if there is no such file."""
    if not path.is_file():
        return ()
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"'{path}' cannot be read: {error}") from error
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise DatasetError(f"'{path}': line {lines.index('') + 1} is empty; one name a line")
    return tuple(lines)


def find_class_names(
    candidates: Iterable[Path], dataset: str, folders: Sequence[str] = ()
) -> tuple[tuple[str, ...], Path | None]:
    """Class names from the first of `candidates` (.txt or .json) that exists, and where that is.

    JSON holds a list of names, dataset -> list, or, for `folders` of images, folder -> name.
    """
    for path in candidates:
        if path.is_file():
            is_json = path.suffix == ".json"
            return (_from_json(path, dataset, folders) if is_json else read_lines(path)), path
    return (), None


def check_count(names: Sequence[str], classes: int, path: Path, what: str) -> None:
    if len(names) != classes:
        raise DatasetError(f"'{path}' has {len(names)} class names for {classes} {what}")


def _from_json(path: Path, dataset: str, folders: Sequence[str]) -> tuple[str, ...]:
    try:
        content: Any = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"'{path}' is not JSON: {error}") from error
    if isinstance(content, dict) and dataset in content:
        content = content[dataset]
    if isinstance(content, dict) and folders:
        if missing := [folder for folder in folders if folder not in content]:
            raise DatasetError(f"'{path}' has no class name for the folder '{missing[0]}'")
        content = [content[folder] for folder in folders]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise DatasetError(
            f"'{path}' holds no class names for '{dataset}': write a list of names, or an object "
            "with one name per class folder"
        )
    return tuple(content)

"""Class names and templates in files, such as `classnames.txt` or `classnames.json`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clipsyn.errors import DatasetError
from clipsyn.text import foreign, parse_json, read_text


def read_lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file, one name or template each; blank lines may stand at its end."""
    with foreign(lambda reason: DatasetError(f"'{path}' cannot be read: {reason}")):
        text = read_text(path)
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if "" in lines:
        raise DatasetError(f"'{path}': line {lines.index('') + 1} is empty; one name a line")
    return tuple(lines)


def imagenet_names() -> tuple[str, ...]:
    """The 1,000 classes of ImageNet-1k in the words of CLIP and open_clip."""
    return read_lines(Path(__file__).with_name("imagenet1k.txt"))


def read_class_names(path: Path, dataset: str, folders: Sequence[str] = ()) -> tuple[str, ...]:
    """Class names by index, from a text file with one a line, or from JSON.

    JSON holds a list of names, dataset -> list, or, for `folders` of images, folder -> name.
    Raises DatasetError for a file that holds no names for the dataset.
    """
    names = _from_json(path, dataset, folders) if path.suffix == ".json" else read_lines(path)
    if not names:
        raise DatasetError(f"'{path}' is empty: write class names, one a line or a JSON list")
    return names


def find_class_names(
    places: Iterable[Path], dataset: str, folders: Sequence[str] = ()
) -> tuple[tuple[str, ...], Path | None]:
    """Class names from the first file that exists, and where that is.

    places: paths that lack an ending, ``.txt`` or ``.json``.
    """
    for place in places:
        for path in (place.with_name(f"{place.name}.{kind}") for kind in ("txt", "json")):
            if path.is_file():
                return read_class_names(path, dataset, folders), path
    return (), None


def _from_json(path: Path, dataset: str, folders: Sequence[str]) -> tuple[str, ...]:
    with foreign(lambda reason: DatasetError(f"'{path}' is not JSON: {reason}")):
        content: Any = parse_json(read_text(path))
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
    names = tuple(name.strip() for name in content)
    if "" in names:
        raise DatasetError(f"'{path}': class {names.index('')} has no name")
    return names

"""Published accuracies to compare with: those that ship, and CSV files of the same columns."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from clipsyn.catalog.datasets import find_dataset
from clipsyn.errors import UsageError
from clipsyn.names import Backbone
from clipsyn.registry import unknown_name
from clipsyn.text import foreign, read_text

COLUMNS = ("dataset", "backbone", "accuracy", "source")  # needed; metric and prompts may follow
METRICS = ("acc1", "mean_per_class_recall")


class Published(NamedTuple):
    """One published number; `prompts` are the names of the prompt sets it may be compared under."""

    dataset: str
    backbone: str
    metric: str
    accuracy: float
    source: str
    prompts: tuple[str, ...]  # () for any


def references() -> dict[str, Path]:
    """The files of the references that ship, by name."""
    folder = Path(__file__).parent / "published"
    return {path.stem: path for path in sorted(folder.glob("*.csv"))}


def find_reference(text: str) -> tuple[Published, ...]:
    """The numbers of a reference that ships, or of a CSV file.

    A line that begins with # is a comment. Raises UnknownName with near matches, and UsageError
    that names the line.
    """
    path = references().get(text, Path(text))
    if not path.exists() and path.name == text and not path.suffix:
        raise unknown_name(
            "reference", text, references(), f"Or give a CSV file with {', '.join(COLUMNS)}."
        )
    return _read(path)


def _read(path: Path) -> tuple[Published, ...]:
    with foreign(lambda reason: UsageError(f"reference {path} cannot be read: {reason}")):
        lines = read_text(path).splitlines()
        kept = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
        reader = csv.DictReader((line for _, line in kept), strict=True)
        rows = [(kept[reader.line_num - 1][0], row) for row in reader]
    lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if lacking or not rows:
        raise UsageError(
            f"reference {path} has no {'column ' + ', '.join(lacking) if lacking else 'numbers'}: "
            f"write {', '.join(COLUMNS)}, and perhaps metric and prompts, and rows below"
        )
    numbers: dict[tuple[object, ...], tuple[int, Published]] = {}
    for line, row in rows:
        one = _published(row, f"reference {path}, line {line}")
        about = one.dataset, one.backbone, one.metric, one.prompts
        before, _ = numbers.setdefault(about, (line, one))
        if before != line:
            raise UsageError(
                f"reference {path} has {one.metric} of {one.backbone} on {one.dataset} twice, in "
                f"lines {before} and {line}: leave one of them out"
            )
    return tuple(one for _, one in numbers.values())


def _published(row: Mapping[str, str | None], where: str) -> Published:
    given = {name: (row.get(name) or "").strip() for name in (*COLUMNS, "metric", "prompts")}
    if empty := [name for name in COLUMNS if not given[name]]:
        raise UsageError(f"{where}: {empty[0]} is empty")
    info = find_dataset(given["dataset"])
    metric = given["metric"] or (info.metric if info else METRICS[0])
    if metric not in METRICS:
        raise UsageError(f"{where}: metric '{metric}' is neither {' nor '.join(METRICS)}")
    names = dataset_name(given["dataset"]), backbone_name(given["backbone"])
    with suppress(ValueError):
        if 0 <= (accuracy := float(given["accuracy"])) <= 1:
            return Published(
                *names, metric, accuracy, given["source"], tuple(given["prompts"].split())
            )
    said = f"accuracy '{given['accuracy']}' is no fraction: write 0.612 for 61.2 %"
    raise UsageError(f"{where}: {said}")


def dataset_name(name: str) -> str:
    """The catalogue's name of a dataset; others as they are."""
    info = find_dataset(name)
    return info.name if info else name


def backbone_name(name: str) -> str:
    """One spelling of ``RN50,openai``, ``RN50-quickgelu/openai`` and ``RN50/openai``."""
    try:
        return Backbone.parse(name).name
    except UsageError:
        return name

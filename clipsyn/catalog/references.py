"""What to cite for weights, datasets and software, and published accuracies to compare with.

Publications and the terms of weights are in `citations.toml`; accuracies in CSV files, those that
ship in `published/`.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from clipsyn.catalog.datasets import find_dataset
from clipsyn.errors import UsageError
from clipsyn.names import Backbone
from clipsyn.registry import unknown_name
from clipsyn.settings import UNFITTED
from clipsyn.text import foreign, read_text

METHOD, SOFTWARE, ENCODERS = "rodriguezopazo2025synergy", "clipsyn", "ilharco2021openclip"
_ABOUT = ("weights", "datasets", "perturbations")
_SPECIAL = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_"}
_RAW = frozenset({"url", "doi", "eprint"})  # fields that BibTeX styles take as they are


@dataclass(frozen=True)
class Work:
    """A publication or a software, and what it is cited for."""

    key: str
    kind: str
    fields: Mapping[str, str]
    weights: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    perturbations: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """ "Radford et al. 2021", as a sentence has it."""
        authors = self.fields["author"].split(" and ")
        names = [author.partition(",")[0].strip("{}") for author in authors]
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        return " ".join(filter(None, [who, self.fields.get("year")]))

    @property
    def url(self) -> str:
        return self.fields.get("url", "")

    def bibtex(self) -> str:
        """The entry; ``@misc`` for software, which not every style of BibTeX knows."""
        kind = "misc" if self.kind == "software" else self.kind
        lines = [f"  {name} = {{{_tex(name, text)}}}" for name, text in self.fields.items()]
        return f"@{kind}{{{self.key},\n" + ",\n".join(lines) + "\n}"


@dataclass(frozen=True)
class Terms:
    """The licence of weights, as who publishes them says it, and where."""

    weights: tuple[str, ...]
    licence: str
    url: str = ""


def works() -> tuple[Work, ...]:
    """All that the catalogue knows, in its order."""
    return _citations()[0]


def work(key: str) -> Work:
    return next(known for known in works() if known.key == key)


def of_weights(source: str) -> tuple[Work, ...]:
    """What to cite for a backbone: ``ARCHITECTURE/TAG``, or where else its weights came from."""
    return tuple(known for known in works() if _fits(source, known.weights))


def of_dataset(name: str) -> tuple[Work, ...]:
    """What to cite for a dataset by its name in the catalogue."""
    return tuple(known for known in works() if name in known.datasets)


def of_perturbation(name: str) -> tuple[Work, ...]:
    return tuple(known for known in works() if name in known.perturbations)


def terms_of_weights(source: str) -> Terms | None:
    """Under which licence weights are published; None where the catalogue does not know."""
    return next((terms for terms in _citations()[1] if _fits(source, terms.weights)), None)


def _fits(source: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(source.lower(), pattern.lower()) for pattern in patterns)


@cache
def _citations() -> tuple[tuple[Work, ...], tuple[Terms, ...]]:
    text = (Path(__file__).parent / "citations.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    terms = tuple(
        Terms(tuple(entry["weights"]), entry["licence"], entry["url"])
        for entry in document["terms"]
    )
    return tuple(map(_work, document["work"])), terms


def _work(entry: Mapping[str, Any]) -> Work:
    about = {name: tuple(entry.get(name, ())) for name in _ABOUT}
    fields = {name: text for name, text in entry.items() if name not in (*_ABOUT, "key", "kind")}
    return Work(entry["key"], entry["kind"], fields, **about)


def _tex(name: str, text: str) -> str:
    """A field as BibTeX reads it in UTF-8, capitals of a title kept."""
    if name in _RAW:
        return text
    spelt = "".join(_SPECIAL.get(character, character) for character in text)
    return f"{{{spelt}}}" if name == "title" else spelt


COLUMNS = ("dataset", "backbone", "accuracy", "source")  # needed; these may follow
_FURTHER = ("metric", "prompts", "head", "shots")
_RECALLS = (
    f"{direction} recall_at_{k}"
    for direction in ("text-to-image", "image-to-text")
    for k in (1, 5, 10)
)
METRICS = ("acc1", "mean_per_class_recall", *_RECALLS)


class Published(NamedTuple):
    """One published number; `prompts` are the names of the prompt sets it may be compared under."""

    dataset: str
    backbone: str
    metric: str
    accuracy: float
    source: str
    prompts: tuple[str, ...]  # () for any
    head: str = "zero-shot"
    shots: str = UNFITTED  # labelled images of each class


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
    return _numbers_in(path)


def _numbers_in(path: Path) -> tuple[Published, ...]:
    with foreign(lambda reason: UsageError(f"reference {path} cannot be read: {reason}")):
        lines = read_text(path).splitlines()
        kept = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
        reader = csv.DictReader((line for _, line in kept), strict=True)
        rows = [(kept[reader.line_num - 1][0], row) for row in reader]
    lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if lacking or not rows:
        raise UsageError(
            f"reference {path} has no {'column ' + ', '.join(lacking) if lacking else 'numbers'}: "
            f"write {', '.join(COLUMNS)}, perhaps {', '.join(_FURTHER)}, and rows below"
        )
    numbers: dict[Published, tuple[int, Published]] = {}
    for line, row in rows:
        one = _published(row, f"reference {path}, line {line}")
        about = one._replace(accuracy=0, source="")
        before, _ = numbers.setdefault(about, (line, one))
        if before != line:
            raise UsageError(
                f"reference {path} has {one.metric} of {one.backbone} on {one.dataset} twice, in "
                f"lines {before} and {line}: leave one of them out"
            )
    return tuple(one for _, one in numbers.values())


def _published(row: Mapping[str, str | None], where: str) -> Published:
    given = {name: (row.get(name) or "").strip() for name in (*COLUMNS, *_FURTHER)}
    if empty := [name for name in COLUMNS if not given[name]]:
        raise UsageError(f"{where}: {empty[0]} is empty")
    info = find_dataset(given["dataset"])
    metric = given["metric"] or (info.metric if info else METRICS[0])
    if metric not in METRICS:
        raise UsageError(f"{where}: metric '{metric}' is none of {', '.join(METRICS)}")
    names = dataset_name(given["dataset"]), backbone_name(given["backbone"])
    with suppress(ValueError):
        if 0 <= (accuracy := float(given["accuracy"])) <= 1:
            fitted = given["head"] or "zero-shot", given["shots"] or UNFITTED
            prompts = tuple(given["prompts"].split())
            return Published(*names, metric, accuracy, given["source"], prompts, *fitted)
    said = f"accuracy '{given['accuracy']}' is no fraction: write 0.612 for 61.2 %"
    raise UsageError(f"{where}: {said}")


def dataset_name(name: str) -> str:
    """The catalogue's name of a dataset; others as they are."""
    info = find_dataset(name)
    return info.name if info else name


def backbone_name(name: str) -> str:
    """One spelling of ``RN50,openai``, ``RN50-quickgelu/openai``, ``RN50/openai``, and of ZLaP's
    ``RN50_openai``.
    """
    try:
        return Backbone.parse(re.sub("_openai$", "/openai", name)).name
    except UsageError:
        return name

"""The datasets clipsyn knows by name, and the texts of classes: names, and prompts for them.

Datasets are read from `datasets.toml`; nothing here opens an image. Names come from files such as
`classnames.txt`; prompts are those of the dataset, of CLIP_benchmark, of OpenAI's for ImageNet, or
of a file. CLIP_benchmark's lists are read from an installed `clip-benchmark` without importing it:
its package pulls in transformers.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clipsyn.catalog import data_dir
from clipsyn.errors import DatasetError, UnknownName, UsageError
from clipsyn.names import PromptSet, listed
from clipsyn.registry import plugin, unknown_name
from clipsyn.text import counted, few, foreign, parse_json, read_text


@dataclass(frozen=True)
class SplitInfo:
    """How many images a split holds, and how torchvision is asked for it.

    `n` is None where the count is not fixed; `args` is None where torchvision lacks the split.
    """

    n: int | None = None
    args: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """One row of the catalogue; `datasets.toml` says what the fields mean."""

    name: str
    title: str
    metric: str
    licence: str
    classes: int | None = None
    aliases: tuple[str, ...] = ()
    splits: Mapping[str, SplitInfo] = field(default_factory=dict)
    torchvision: str = ""
    folder: str = ""
    first_label: int = 0
    prompts: str = ""
    names: str = ""
    class_names: tuple[str, ...] = ()
    get: str = ""
    warning: str = ""
    shipped: bool = False
    source: str = ""  # of another package: see `open_source` in clipsyn.extract.images

    @property
    def where(self) -> str:
        """Where its images come from, if no webdataset lies in the root of data."""
        if self.shipped:
            return "shipped"
        return "torchvision" if self.torchvision else "webdataset"

    @property
    def shipped_path(self) -> Path:
        return data_dir() / "eval" / self.name

    def remarks(self, split: str, n: int, classes: int) -> list[str]:
        """What differs between the images found and those the catalogue expects."""
        remarks = []
        expected = self.splits.get(split, SplitInfo()).n
        if expected is not None and n != expected:
            remarks.append(
                f"{counted(n, 'image')} where its {split} split usually has {expected:,}"
            )
        if self.classes is not None and classes and classes != self.classes:
            remarks.append(
                f"{counted(classes, 'class', 'classes')} where it usually has {self.classes}"
            )
        advice = f" ({self.warning})" if self.warning else ""
        return [f"{self.name}: {remark}{advice}" for remark in remarks]


@cache
def catalogue() -> tuple[DatasetInfo, ...]:
    """The datasets of clipsyn's own catalogue: the paper's, then those that ship."""
    text = (Path(__file__).parent / "datasets.toml").read_text(encoding="utf-8")
    return tuple(_row(entry) for entry in tomllib.loads(text)["dataset"])


def find_dataset(name: str) -> DatasetInfo | None:
    """The dataset called `name`, an alias of it or its webdataset folder (``wds_vtab-dtd``).

    One of another package is found once `look_up` was asked for it.
    """
    return _index().get(_plain(name))


def look_up(name: str) -> DatasetInfo | None:
    """Like `find_dataset`, in other packages too: only for a name that the user gave."""
    if find_dataset(name) is None and (info := plugin("datasets", name)):
        _index()[_plain(name)] = info
    return find_dataset(name)


def unknown_dataset(name: str, hint: str = "") -> UnknownName:
    known = {alias for info in catalogue() for alias in (info.name, *info.aliases)}
    return unknown_name("dataset", name, known.union(collections()), hint)


def collections() -> dict[str, tuple[str, ...]]:
    """Names that stand for several datasets."""
    shipped = tuple(info.name for info in catalogue() if info.shipped)
    return {
        "shipped": shipped,
        "emoji": tuple(name for name in shipped if name.startswith("emoji-")),
        "paper": tuple(info.name for info in catalogue() if not info.shipped),
    }


def resolve_datasets(texts: Sequence[str]) -> list[str]:
    """Expand comma lists and collections; catalogue names in their canonical form, no repeats.

    Anything else (``[NAME=]PATH``) is passed on as it is; a path that exists is not cut at commas.
    """
    resolved: list[str] = []
    for text in texts:
        whole = bool(text.strip()) and Path(text.partition("=")[2] or text).exists()
        for name in [text.strip()] if whole else listed([text], "datasets=…"):
            info = look_up(name)
            resolved += collections().get(name, (info.name if info else name,))
    return list(dict.fromkeys(resolved))


@cache
def _index() -> dict[str, DatasetInfo]:
    index: dict[str, DatasetInfo] = {}
    for info in catalogue():
        for name in {_plain(alias) for alias in (info.name, *info.aliases)}:
            if name in index:
                raise ValueError(f"dataset name '{name}' stands twice in the catalogue")
            index[name] = info
    return index


def _plain(name: str) -> str:
    """One spelling for ``wds/vtab/dtd``, ``wds_vtab-dtd`` and ``vtab/dtd``."""
    return name.lower().removeprefix("wds/").removeprefix("wds_").replace("/", "-")


def _row(entry: dict[str, Any]) -> DatasetInfo:
    splits = {name: SplitInfo(**split) for name, split in entry.pop("splits", {}).items()}
    fields: dict[str, Any] = {
        key: tuple(x) if isinstance(x, list) else x for key, x in entry.items()
    }
    return DatasetInfo(**fields, splits=splits)


SIMPLE = PromptSet("simple", ("a photo of a {c}.",))
IMAGENET = "imagenet1k"
NAMED = ("auto", "own", "clip-benchmark", "openai", "simple")


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
    return _shipped("imagenet1k.txt")


def _shipped(name: str) -> tuple[str, ...]:
    return read_lines(Path(__file__).with_name(name))


def read_class_names(path: Path, folders: Sequence[str] = ()) -> tuple[str, ...]:
    """Class names by index, from a text file with one a line, or from JSON.

    JSON holds a list of names, or, for `folders` of images, folder -> name. Raises DatasetError
    for a file that holds no names.
    """
    names = _from_json(path, folders) if path.suffix == ".json" else read_lines(path)
    if not names:
        raise DatasetError(f"'{path}' is empty: write class names, one a line or a JSON list")
    return names


def find_class_names(
    place: Path, folders: Sequence[str] = ()
) -> tuple[tuple[str, ...], Path | None]:
    """Class names from the file of that name, to which ``.txt`` or ``.json`` is added, and it."""
    for path in (place.with_name(f"{place.name}.{kind}") for kind in ("json", "txt")):
        if path.is_file():
            return read_class_names(path, folders), path
    return (), None


def _from_json(path: Path, folders: Sequence[str]) -> tuple[str, ...]:
    with foreign(lambda reason: DatasetError(f"'{path}' is not JSON: {reason}")):
        content: Any = parse_json(read_text(path))
    if isinstance(content, dict) and folders:
        content = [content.get(folder) for folder in folders]
    if not isinstance(content, list) or not all(
        isinstance(name, str) and name.strip() for name in content
    ):
        raise DatasetError(
            f"'{path}' does not name each class: write a list of names, or an object "
            "with one name per class folder"
        )
    return tuple(name.strip() for name in content)


def resolve_prompts(
    spec: str, dataset: str, class_names: Sequence[str], own_templates: Sequence[str]
) -> tuple[PromptSet, str]:
    """The prompt set for a dataset, and a note to show ("" if there is none).

    `spec` is ``auto`` (the dataset's own templates, else clip-benchmark's, else for
    ImageNet ``openai``, else ``a photo of a {c}.``), one of these by name (``own``,
    ``clip-benchmark``, ``openai``, ``simple``), or a JSON file: a list of templates, dataset ->
    list, class -> prompts (CuPL), or dataset -> class -> prompts. Raises UsageError where the
    dataset has no such prompts.
    """
    if spec not in NAMED:
        return _from_file(spec, dataset, class_names), ""
    if spec == "simple":
        return SIMPLE, ""
    if spec in ("auto", "own") and own_templates:
        return PromptSet("own", tuple(own_templates)), ""
    if spec in ("auto", "clip-benchmark") and (templates := benchmark_templates(dataset)):
        return PromptSet("clip-benchmark", templates), ""
    info = find_dataset(dataset)
    if spec == "openai" or (spec == "auto" and info and info.name == IMAGENET):
        return PromptSet("openai", _shipped("openai_templates.txt")), ""
    if spec == "auto":
        return SIMPLE, (
            f"{dataset}: no templates of its own and none from clip-benchmark, so the only prompt "
            f"is '{SIMPLE.templates[0]}'; prompts=FILE.json gives others"
        )
    raise UsageError(
        f"there are no '{spec}' prompts for dataset '{dataset}': use prompts=auto, or a JSON file"
    )


def benchmark_templates(dataset: str) -> tuple[str, ...]:
    """clip-benchmark's English templates for a dataset; () if it has none or is not installed."""
    return _benchmark_list("en_zeroshot_classification_templates.json", dataset, "prompts")


def benchmark_class_names(dataset: str) -> tuple[str, ...]:
    """clip-benchmark's English class names where they fit torchvision's class order, else ()."""
    return _benchmark_list("en_classnames.json", dataset, "names")


def _benchmark_list(file: str, dataset: str, field: str) -> tuple[str, ...]:
    info = find_dataset(dataset)
    key = getattr(info, field) if info else ""
    return tuple(_benchmark_json(file).get(key, ())) if key else ()


@cache
def _benchmark_json(file: str) -> dict[str, list[str]]:
    spec = find_spec("clip_benchmark")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "datasets" / file
        if path.is_file():
            content: dict[str, list[str]] = parse_json(path.read_text(encoding="utf-8"))
            return content
    return {}


def _from_file(spec: str, dataset: str, class_names: Sequence[str]) -> PromptSet:
    path = Path(spec)
    if not path.is_file():
        if path.suffix or "/" in spec:
            raise UsageError(f"there is no prompt file '{spec}'")
        raise unknown_name("prompt set", spec, NAMED, "A JSON file works too.")
    with foreign(lambda reason: UsageError(f"prompt file '{spec}' is not JSON: {reason}")):
        content = parse_json(read_text(path))
    return _parse(content, path, dataset, class_names)


def _parse(content: Any, path: Path, dataset: str, class_names: Sequence[str]) -> PromptSet:
    """The prompt set of any of the four forms: a key of the dataset wins over class names."""
    if isinstance(content, dict) and (key := _dataset_key(content, dataset)) is not None:
        content = content[key]
    if _is_texts(content):
        return PromptSet(path.stem, tuple(content))
    if not isinstance(content, dict) or not all(_is_texts(value) for value in content.values()):
        raise UsageError(
            f"prompt file '{path}' holds neither templates nor prompts per class for '{dataset}': "
            'write ["a photo of a {c}."], {"' + dataset + '": [...]} or {"class name": [...]}'
        )
    return PromptSet(path.stem, per_class=_per_class(content, path, dataset, class_names))


def _per_class(
    content: dict[str, list[str]], path: Path, dataset: str, class_names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    missing = [name for name in class_names if name not in content]
    if missing and len(missing) == len(set(class_names)):
        keys = few([f"'{key}'" for key in content], 5)
        raise UsageError(
            f"prompt file '{path}' has nothing for dataset '{dataset}': its keys are {keys}"
        )
    if missing:
        raise UsageError(
            f"prompt file '{path}' has no prompts for {len(missing)} of the {len(class_names)} "
            f"classes of '{dataset}', for instance '{missing[0]}'"
        )
    return {name: tuple(content[name]) for name in class_names}


def _dataset_key(content: dict[str, Any], dataset: str) -> str | None:
    info = find_dataset(dataset)
    wanted = [dataset, *([info.name, *info.aliases, info.prompts] if info else [])]
    return next((key for key in wanted if key in content), None)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)

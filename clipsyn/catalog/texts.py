"""Texts of classes: their names, and the prompts that stand for them.

Names come from files such as `classnames.txt`; prompts are those of the dataset, of CLIP_benchmark,
of OpenAI's for ImageNet, or of a file. CLIP_benchmark's lists are read from an installed
`clip-benchmark` without importing it: its package pulls in transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clipsyn.catalog.datasets import find_dataset
from clipsyn.errors import DatasetError, UsageError
from clipsyn.names import PromptSet
from clipsyn.registry import unknown_name
from clipsyn.text import few, foreign, parse_json, read_text

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


def resolve_prompts(
    spec: str | None, dataset: str, class_names: Sequence[str], own_templates: Sequence[str]
) -> tuple[PromptSet, str]:
    """The prompt set for a dataset, and a note to show ("" if there is none).

    `spec` is None or ``auto`` (the dataset's own templates, else clip-benchmark's, else for
    ImageNet ``openai``, else ``a photo of a {c}.``), one of these by name (``own``,
    ``clip-benchmark``, ``openai``, ``simple``), or a JSON file: a list of templates, dataset ->
    list, class -> prompts (CuPL), or dataset -> class -> prompts. Raises UsageError where the
    dataset has no such prompts.
    """
    if spec is not None and spec not in NAMED:
        return _from_file(spec, dataset, class_names), ""
    if spec == "simple":
        return SIMPLE, ""
    if spec in (None, "auto", "own") and own_templates:
        return PromptSet("own", tuple(own_templates)), ""
    if spec in (None, "auto", "clip-benchmark") and (templates := benchmark_templates(dataset)):
        return PromptSet("clip-benchmark", templates), ""
    info = find_dataset(dataset)
    if spec == "openai" or (spec in (None, "auto") and info and info.name == IMAGENET):
        return PromptSet("openai", _shipped("openai_templates.txt")), ""
    if spec in (None, "auto"):
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

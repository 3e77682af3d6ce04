"""The backbones clipsyn knows by name, what they cost, and how a command's backbones are read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from clipsyn import catalog
from clipsyn.errors import UsageError
from clipsyn.names import Backbone, listed
from clipsyn.registry import unknown_name

CONFIG_FILE = "open_clip_config.json"
COLLECTIONS = ("openai", "zoo")


@dataclass(frozen=True)
class BackboneCost:
    """Facts about an architecture; None where nobody has published or measured them."""

    image_size: int
    embed_dim: int
    image_params_m: float | None = None  # millions
    text_params_m: float | None = None
    image_gflops: float | None = None  # per image, 2 FLOPs per multiply-add
    text_gflops: float | None = None  # per text at full context


@cache
def _openai() -> dict[str, BackboneCost]:
    text = files(catalog).joinpath("backbones.csv").read_text("utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {
        row.pop("name"): BackboneCost(**{field: json.loads(text) for field, text in row.items()})
        for row in rows
    }


def _zoo_folders() -> dict[str, Path]:
    """The shipped miniature backbones: every folder of data/zoo with a configuration."""
    zoo = catalog.data_dir() / "zoo"
    return {f"{c.parent.name}/zoo": c.parent for c in sorted(zoo.glob(f"*/{CONFIG_FILE}"))}


def is_shipped(name: str) -> bool:
    """Whether a backbone of the miniature zoo is called that; others are told without the disk."""
    return name.endswith("/zoo") and name in _zoo_folders()


def known_backbones() -> dict[str, list[Backbone]]:
    """Every backbone of the catalogue, by collection."""
    return {
        "openai": [Backbone.parse(name) for name in _openai()],
        "zoo": [Backbone(name, f"local-dir:{path}") for name, path in _zoo_folders().items()],
    }


def resolve_backbones(texts: Sequence[str]) -> list[Backbone]:
    """Read the backbones that a command was given, in order, duplicates dropped.

    Each text is a comma list of backbone ids (`Backbone.parse`), collections (`openai`, `zoo`) and
    names of the shipped zoo (`tiny-RN/zoo`).
    Raises UsageError for what cannot be read, and if two different sources have one name.
    """
    backbones: dict[str, Backbone] = {}
    for text in texts:
        for entry in listed([text], "backbones=…"):
            for backbone in _backbones(entry):
                other = backbones.setdefault(backbone.name, backbone)
                if other != backbone:
                    raise UsageError(
                        f"two backbones are called '{backbone.name}' ({other.source} and "
                        f"{backbone.source}): name one with NAME=SOURCE"
                    )
    if not backbones:
        raise UsageError("no backbone was given: write for instance ViT-B-32/openai or zoo")
    return list(backbones.values())


def _backbones(entry: str) -> Iterable[Backbone]:
    if entry in COLLECTIONS:
        return known_backbones()[entry]
    alias, _, source = entry.rpartition("=")
    folder = _zoo_folders().get(source)
    if folder is not None:
        return [Backbone(alias or source, f"local-dir:{folder}")]
    is_bare = bool(source) and not any(mark in source for mark in "/:@,")
    if is_bare or (source.endswith("/zoo") and source.count("/") == 1):
        known = [*COLLECTIONS, *_openai(), *_zoo_folders()]
        raise unknown_name("backbone", source, known, "Write ARCHITECTURE/TAG.")
    return [Backbone.parse(entry)]


def cost(name: str) -> BackboneCost | None:
    """What is known of a backbone or architecture: ``ViT-B-32/openai``, ``RN50``, ``tiny-RN/zoo``.

    Other weights of one architecture cost the same. None for architectures not in the catalogue.
    """
    if (folder := _zoo_folders().get(name)) is not None:
        return _zoo_cost(folder)
    architecture = name.replace(",", "/").partition("/")[0].removesuffix("-quickgelu")
    return _openai().get(f"{architecture}/openai")


def cost_of(backbone: Backbone) -> BackboneCost | None:
    """Like `cost`, looked up by the backbone's source and not by its name."""
    kind, _, place = backbone.source.partition(":")
    if kind == "hf-hub":
        return None
    if kind == "local-dir":
        return _zoo_cost(Path(place)) if Path(place) in _zoo_folders().values() else None
    return cost(backbone.source.partition("@")[0])


@cache
def _zoo_cost(folder: Path) -> BackboneCost:
    """The cost in a shipped configuration, under a key that open_clip ignores."""
    config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    model = config["model_cfg"]
    return BackboneCost(
        model["vision_cfg"]["image_size"], model["embed_dim"], **config.get("cost", {})
    )

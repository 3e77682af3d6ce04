"""The groups of a store, what they are, and how some of them are removed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clipsyn.errors import DamagedStore, MissingCell
from clipsyn.names import FeatureKey, fingerprint
from clipsyn.store.contents import Refuse, encoder_of
from clipsyn.store.drafts import discard
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import writing
from clipsyn.store.folders import KINDS, ORDER, Place, place
from clipsyn.store.groups import Group
from clipsyn.store.listing import rows_of
from clipsyn.store.schema import HELD
from clipsyn.text import advised


@dataclass(frozen=True)
class GroupPath:
    """One group, or what is left of it: its kind, its names by dimension, its path.

    It is an `IndexEntry` that reads the group when it is asked for more.
    """

    kind: str
    names: Mapping[str, str]
    path: Path
    store: FeatureStore

    @property
    def place(self) -> Place:
        return (self.kind, *self.names.values())

    @property
    def bytes(self) -> int:
        """Of its files; less while another command is removing it."""
        return self.store.tree.size(self.path)

    @property
    def fingerprint(self) -> str:
        return str(self._group["fingerprint"])

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._group.facts

    @cached_property
    def _group(self) -> Group:
        return self.store.group(self.path)


def find_groups(
    store: FeatureStore, filters: Mapping[str, Collection[str]], refuse: Refuse | None = None
) -> list[GroupPath]:
    """Groups whose names pass all filters; kinds that lack a filtered dimension are left out.

    filters: dimension of KINDS -> names. One on backbones finds features, logits and class
    embeddings, but no samples. `refuse` is told of folders that cannot be read; without it
    they are an error.
    """
    groups = []
    for kind, dimensions in KINDS.items():
        if not set(filters) <= set(dimensions):
            continue
        for names, path in store.groups(kind, refuse):
            named = dict(zip(dimensions, names, strict=True))
            if all(named[dimension] in wanted for dimension, wanted in filters.items()):
                groups.append(GroupPath(kind, named, path, store))
    return groups


def cell_rows(store: FeatureStore) -> list[dict[str, Any]]:
    """One row a cell: its names, images, width, bytes with its logits, fingerprint.

    Perturbations come in order of severity. `imported` is what an imported cell holds, None for
    one that was extracted; `embed` is None where there are no embeddings. Of a dataset that shows
    each image under one condition alone, `images` counts those of the cell's.
    """
    entries = store.tree.listed()
    try:
        return rows_of(find_groups(store, {}) if entries is None else entries)
    except DamagedStore:
        lost = map(store.cell, store.keys())
        for cell in lost:
            cell.group()  # says what is lost, and what to do
        raise


def describe(store: FeatureStore) -> dict[str, Any]:
    """The store as a whole: format, every backbone with its provenance, imports, every dataset."""
    marker = store.marker()
    backbones: dict[str, Any] = {}
    for (*_, backbone), path in store.groups("features"):
        if backbone not in backbones and not store.is_imported(path):
            group = store.group(path)
            identity, encoder = group["identity"]["backbone"], encoder_of(group)
            kept = {name: identity[name] for name in ("weights", "precision", "preprocess")}
            backbones[backbone] = {**encoder, **kept}
    imports: dict[str, Any] = {}
    for group, backbone in _imported_groups(store):
        entry = imports.setdefault(backbone, {"kinds": [], "files": []})
        for field, values in (("kinds", [HELD[group.kind]]), ("files", group["source"])):
            entry[field] += [value for value in values if value not in entry[field]]
    datasets = {}
    for (dataset, split), path in store.groups("samples"):
        group = store.group(path)
        datasets[f"{dataset}/{split}"] = {
            "images": group.sizes["sample"],
            "classes": len(group["class_names"]),
            "metric": group["metric"],
            "licence": group["licence"],
            "samples": group["identity"]["samples"],
            "imported": group.attributes.get("imported", False),
        }
    return {**marker, "backbones": backbones, "imports": imports, "datasets": datasets}


def _imported_groups(store: FeatureStore) -> Iterator[tuple[Group, str]]:
    """Each group of an imported cell, with the backbone."""
    for cell in map(store.cell, store.keys()):
        if cell.imported_as:
            for prompts in cell.sets or (None,):
                yield cell.group(prompts), cell.key.backbone


def describe_group(store: FeatureStore, name: str) -> dict[str, Any]:
    """Attributes and arrays of one group, by its path within the store."""
    path = store.path / name
    if not store.tree.seen(path) or "kind" not in store.tree.attributes(path):
        line = advised("ls", store.path)
        raise MissingCell(f"{store.path} has no group {name}: see `{line}`")
    group = store.group(path)
    shapes = {name: [str(array.numpy), *array.shape] for name, array in group.arrays.items()}
    return {**group.attributes, "arrays": shapes}


def cells_of_group(store: FeatureStore, name: str) -> list[FeatureKey]:
    """The cells that a group, by its path within the store, is or belongs to."""
    describe_group(store, name)  # says what is wrong with a name
    kind, *names = place(store.path, store.path / name)
    named = dict(zip(KINDS[kind], names, strict=True))
    named.pop("prompts", None)
    return store.keys(**{dimension: [text] for dimension, text in named.items()})


def group_digest(store: FeatureStore, group: GroupPath) -> str:
    """A digest that changes with anything a reader sees of the group, labels included."""
    if facts := store.tree.facts(group.path):
        return str(facts["content"])
    stored = store.group(group.path)
    seen = {name: stored[name] for name in stored.attributes.keys() - {"provenance", "digest"}}
    if group.kind == "samples":
        seen["labels"] = stored.read("label").tolist()
    return fingerprint(seen)


def remove(store: FeatureStore, groups: Collection[GroupPath]) -> None:
    """Remove groups from the store; each is removed as a whole or stays.

    Sources go after what is made from them, so that stopping midway leaves no half of a cell.
    """
    store.check_writable()
    with writing(store.path):
        for group in sorted(groups, key=lambda group: -ORDER.index(group.kind)):
            with suppress(FileNotFoundError):  # another command was faster
                discard(store.path, group.path)

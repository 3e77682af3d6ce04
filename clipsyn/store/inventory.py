"""What a store holds, as rows for tables; whether it is whole; and how parts of it are removed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipsyn.errors import DamagedStore, MissingCell
from clipsyn.schema import GROUPS
from clipsyn.specs import FeatureKey, by_severity, fingerprint
from clipsyn.store import arrays
from clipsyn.store.drafts import discard, leftovers, unfinished, writing
from clipsyn.store.features import FeatureStore
from clipsyn.store.folders import KINDS
from clipsyn.store.imports import ELSEWHERE, content_digest
from clipsyn.store.imports import FOLDERS as IMPORTS

Filters = Mapping[str, Collection[str]]  # dimension of KINDS -> names; a missing one is no filter


@dataclass(frozen=True)
class Group:
    """One finished group: its kind, its names by dimension, where it is."""

    kind: str
    names: Mapping[str, str]
    path: Path

    @property
    def size(self) -> int:
        """Bytes on disk; of a group that another command takes away meanwhile, what is left."""
        found = 0
        with suppress(FileNotFoundError):
            for file in self.path.rglob("*"):
                found += file.stat().st_size if file.is_file() else 0
        return found


def find_groups(store: FeatureStore, filters: Filters) -> list[Group]:
    """Groups whose names pass; a kind without a filtered dimension is passed over.

    So a filter on backbones finds features, logits and class embeddings, and leaves the samples.
    """
    found = []
    for kind, dimensions in KINDS.items():
        if not set(filters) <= set(dimensions):
            continue
        for names, path in store.groups(kind):
            named = dict(zip(dimensions, names, strict=True))
            if all(named[dimension] in wanted for dimension, wanted in filters.items()):
                found.append(Group(kind, named, path))
    return found


def cell_rows(store: FeatureStore) -> list[dict[str, Any]]:
    """One row a cell: its names, images, width, bytes with its logits, fingerprint.

    Perturbations come in order of severity. `imported` is what an imported cell holds, None for
    one that was extracted; `embed` is None where there are no embeddings. Of a dataset that shows
    each image under one condition alone, `images` counts those of the cell's.
    """
    keys = sorted(
        store.keys(),
        key=lambda key: (key.dataset, key.split, by_severity(key.perturbation), key.backbone),
    )
    return [_cell_row(store, key) for key in keys]


def _cell_row(store: FeatureStore, key: FeatureKey) -> dict[str, Any]:
    imported = store.imported(key)
    path = imported.path if imported else store.features_path(key)
    embeds = not imported or imported.kind == "embeddings"
    logits = store.path / "logits" / store.features_path(key).relative_to(store.path / "features")
    attributes = arrays.read_attributes(path)
    invalid = dict(attributes["invalid"]) if imported else {}
    elsewhere = invalid.pop(ELSEWHERE, 0)
    whole = path if path in (store.imports_path(key), store.features_path(key)) else path.parent
    bad = sum(invalid.values()) if imported else len(attributes.get("errors", {}))
    return {
        **asdict(key),
        "imported": imported.kind if imported else None,
        "prompts": store.prompt_sets(key),
        "images": arrays.layout(path / "valid").shape[0] - elsewhere,
        "bad": bad,
        "embed": arrays.layout(path / "image_embedding").shape[1] if embeds else None,
        "bytes": Group("cell", {}, whole).size
        + (0 if imported else Group("logits", {}, logits).size),
        "fingerprint": attributes["fingerprint"],
    }


def describe(store: FeatureStore) -> dict[str, Any]:
    """The store as a whole: format, every backbone with its provenance, imports, every dataset."""
    marker = store.marker()
    backbones: dict[str, Any] = {}
    for (*_, backbone), path in store.groups("features"):
        if backbone not in backbones:
            attributes = arrays.read_attributes(path)
            identity, encoder = (
                attributes["identity"]["backbone"],
                attributes["provenance"]["encoder"],
            )
            kept = {name: identity[name] for name in ("weights", "precision", "preprocess")}
            backbones[backbone] = {**encoder, **kept}
    imports: dict[str, Any] = {}
    elsewhere = [group for kind in IMPORTS for group in store.groups(kind)]
    for (_, _, _, backbone, *_), path in elsewhere:
        attributes = arrays.read_attributes(path)
        kind = attributes["identity"]["kind"]
        found = imports.setdefault(backbone, {"kinds": [], "files": []})
        for field, values in (("kinds", [kind]), ("files", attributes["source"])):
            found[field] += [value for value in values if value not in found[field]]
    datasets = {}
    for (dataset, split), path in store.groups("samples"):
        attributes = arrays.read_attributes(path)
        datasets[f"{dataset}/{split}"] = {
            "images": arrays.layout(path / "label").shape[0],
            "classes": len(attributes["class_names"]),
            "metric": attributes["metric"],
            "licence": attributes["licence"],
            "samples": attributes["identity"]["samples"],
            "imported": attributes.get("imported", False),
        }
    return {**marker, "backbones": backbones, "imports": imports, "datasets": datasets}


def describe_group(store: FeatureStore, name: str) -> dict[str, Any]:
    """Attributes and arrays of one group, by its path within the store."""
    path = store.path / name
    if not (path / arrays.METADATA).is_file() or "kind" not in arrays.read_attributes(path):
        raise MissingCell(f"{store.path} has no group {name}: see `clipsyn ls {store.path}`")
    layouts = {array: arrays.layout(path / array) for array in arrays.array_names(path)}
    shapes = {array: [str(found.dtype), *found.shape] for array, found in layouts.items()}
    return {"arrays": shapes, **arrays.read_attributes(path)}


def group_digest(group: Group) -> str:
    """Changes with whatever a reader could see of the group, corrected labels included."""
    attributes = arrays.read_attributes(group.path)
    attributes.pop("provenance", None)
    if group.kind == "samples":
        attributes["labels"] = arrays.read(group.path / "label").tolist()
    return fingerprint(attributes)


def damage(store: FeatureStore, group: Group) -> Iterator[str]:
    """One sentence for everything in a group that is not as it was written."""
    where, metadata = group.path.relative_to(store.path), group.path / arrays.METADATA
    looked_at = arrays.file_at(metadata)
    problems = list(_damaged_metadata(store, group))
    for name in arrays.array_names(group.path):
        problems += arrays.damage(group.path / name)
    if not problems and group.kind == "samples":
        problems += _wrong_digest(store, group)
    if not problems and group.kind in IMPORTS:
        problems += _wrong_content(group)
    if (
        problems and arrays.file_at(metadata) != looked_at
    ):  # replaced or removed meanwhile: no damage
        return
    yield from (f"{where}: {problem}" for problem in dict.fromkeys(problems))


def _damaged_metadata(store: FeatureStore, group: Group) -> Iterator[str]:
    """What of a group's attributes, or of its arrays' types and shapes, cannot be."""
    try:
        attributes = arrays.read_attributes(group.path)
        if fingerprint(attributes["identity"]) != attributes["fingerprint"]:
            yield "its identity does not match its fingerprint"
        sizes = {"byte": 32}
        if {"dataset", "split"} <= set(group.names):
            label = store.samples_path(group.names["dataset"], group.names["split"]) / "label"
            sizes["sample"] = arrays.layout(label).shape[0]
        kind = attributes["kind"] if group.kind in IMPORTS else group.kind
        for spec in GROUPS.get(kind, ()):
            found = arrays.layout(group.path / spec.name)
            expected = tuple(
                sizes.setdefault(dim, length)
                for dim, length in zip(spec.dims, found.shape, strict=False)
            )
            dtype = "object" if spec.dtype == "str" else spec.dtype
            if found.shape != expected or len(expected) != len(spec.dims) or found.dtype != dtype:
                yield f"array {spec.name} is {found.dtype} {found.shape}, not {dtype} {spec.dims}"
    except DamagedStore as error:
        yield str(error)


def _wrong_digest(store: FeatureStore, group: Group) -> Iterator[str]:
    samples = store.samples(group.names["dataset"], group.names["split"])
    if samples.digest != arrays.read_attributes(group.path)["identity"]["samples"]:
        yield "ids and content hashes do not match the digest"


def _wrong_content(group: Group) -> Iterator[str]:
    values = {name: arrays.read(group.path / name) for name in arrays.array_names(group.path)}
    if content_digest(values) != arrays.read_attributes(group.path)["identity"]["content"]:
        yield "its arrays do not match the digest of its content"


def remove_unfinished(store: FeatureStore) -> int:
    """Drop drafts and leftovers, even those a running command still needs; returns how many."""
    drafts, left = unfinished(store.path), leftovers(store.path)
    with writing(store.path):
        for draft in drafts:
            with suppress(FileNotFoundError):  # finished by a running command
                discard(store.path, draft.folder)  # whole, lest a marker outlive its block
        for path in left:
            with suppress(FileNotFoundError):
                discard(store.path, path) if path.is_dir() else path.unlink()
    return len(drafts) + len(left)


def remove(store: FeatureStore, groups: Collection[Group]) -> None:
    """Take groups out of the store; each goes as a whole or stays."""
    with writing(store.path):
        for group in groups:
            with suppress(FileNotFoundError):  # another command was faster
                discard(store.path, group.path)

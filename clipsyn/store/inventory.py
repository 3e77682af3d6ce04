"""What a store holds, whole: its groups, its cells as rows, and what lies unfinished in `.wip`.

A running job writes into its drafts again and again. So what nobody has written to for a day is
taken for dead: that needs no lock, and it holds for jobs on other machines, whatever the file
system.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from clipsyn.errors import MissingCell, StoreError
from clipsyn.names import FeatureKey, by_severity
from clipsyn.store import arrays, files
from clipsyn.store.drafts import discard, is_draft
from clipsyn.store.features import FeatureStore, Refuse
from clipsyn.store.groups import Group
from clipsyn.store.schema import HELD, KINDS, ORDER, Place
from clipsyn.text import advised


class GroupPath(NamedTuple):
    """One group, or what is left of it: its kind, its names by dimension, its path."""

    kind: str
    names: Mapping[str, str]
    path: Path

    @property
    def place(self) -> Place:
        return (self.kind, *self.names.values())


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
                groups.append(GroupPath(kind, named, path))
    return groups


def cell_rows(store: FeatureStore) -> list[dict[str, Any]]:
    """One row a cell: its names, images, width, bytes with its logits, fingerprint.

    Perturbations come in order of severity. `imported` is what an imported cell holds, None for
    one that was extracted; `embed` is None where there are no embeddings. Of a dataset that shows
    each image under one condition alone, `images` counts those of the cell's. Raises DamagedStore
    for what is left of a lost cell.
    """
    sets: dict[tuple[str, Path], list[str]] = {}  # one list for many cells
    rows = []
    for cell in map(store.cell, sorted(store.keys(), key=_in_order)):
        facts, source = cell.facts, (cell.key.backbone, cell.prompts_from)
        if source not in sets:
            sets[source] = cell.prompt_sets()
        rows.append(
            {
                **vars(cell.key),
                "imported": cell.imported_as,
                "prompts": sets[source] if cell.has_predictions else [],
                "images": facts.get("images", 0),
                "bad": facts.get("bad", 0),
                "embed": facts.get("embed"),
                "bytes": cell.size,
                "fingerprint": facts["fingerprint"],
            }
        )
    return rows


def _in_order(key: FeatureKey) -> tuple[Any, ...]:
    """Sorts perturbations by their severity."""
    return key.dataset, key.split, by_severity(key.perturbation), key.backbone


def describe(store: FeatureStore) -> dict[str, Any]:
    """The store as a whole: format, every backbone with its provenance, imports, every dataset."""
    marker = store.tree.marker(store.path)
    backbones: dict[str, Any] = {}
    for (*_, backbone), path in store.groups("features"):
        if backbone not in backbones and not store.is_imported(path):
            group = store.group(path)
            identity, encoder = group["identity"]["backbone"], group.provenance.get("encoder") or {}
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


def group_digest(store: FeatureStore, path: Path) -> str:
    """A digest that changes with anything a reader sees of the group, labels included."""
    facts = store.tree.facts(path)
    return str(facts["content"]) if facts else store.group(path).content


def remove(store: FeatureStore, groups: Collection[GroupPath]) -> None:
    """Remove groups from the store; each is removed as a whole or stays.

    Sources go after what is made from them, so that stopping midway leaves no half of a cell.
    """
    store.check_writable()
    with files.writing(store.path):
        for group in sorted(groups, key=lambda group: -ORDER.index(group.kind)):
            with suppress(FileNotFoundError):  # another command was faster
                discard(store.path, group.path)


# Under `.wip`


@dataclass(frozen=True)
class Leftover:
    """A draft, or a file or folder beside drafts, and when somebody has last written to it."""

    path: Path
    what: str
    written: float  # seconds since 1970
    bytes: int
    target: str = ""  # where a draft will be, and how many of its blocks are done
    done: int = 0
    total: int = 0

    @property
    def age(self) -> float:
        """Seconds."""
        return time.time() - self.written


def left_over(store: Path) -> list[Leftover]:
    """All that lies under `.wip`, drafts first; what vanishes while we look is left out."""
    files.check_folder(store / files.WIP)
    lying = [Path(entry) for entry in files.entries(store / files.WIP)]
    found = []
    for path in sorted(lying, key=lambda path: (not is_draft(path), path)):
        with suppress(FileNotFoundError):
            found.append(_look_at(store, path))
    return found


def unfinished(store: Path) -> list[Leftover]:
    """Every draft in the store, sorted by target."""
    return sorted(filter(lambda one: one.target, left_over(store)), key=lambda one: one.target)


def _look_at(store: Path, path: Path) -> Leftover:
    """That it is gone passes as OSError, unless it was a draft when its files were read."""
    size = files.size(path) if path.is_dir() else path.lstat().st_size
    written, name = _written(path), path.relative_to(store)
    try:
        if is_draft(path):
            total = arrays.group_blocks(path / "group")
            done = len(list((path / "done").glob("[0-9]*")))
            target = files.read_file(path / "target").decode()
            if is_draft(path):  # still: it may have been finished meanwhile
                what = f"{target}, {done} of {total} blocks done"
                return Leftover(path, what, written, size, target, done, total)
    except (StoreError, FileNotFoundError):
        if is_draft(path):
            return Leftover(path, f"{name}, a draft that is damaged", written, size)
    what = f"{name}, of a command that was writing or removing a group"
    return Leftover(path, what, written, size)


def _written(path: Path) -> float:
    """When something below the path was last made, written to, renamed or removed.

    That is the time of the change of its status: a copy of an old file is new.
    """
    return max(path.lstat().st_ctime for path in (path, *_below(path)))


def _below(path: Path) -> Iterator[Path]:
    for entry in files.entries(path) if path.is_dir() else ():
        yield Path(entry)
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry))


def collect(store: Path, found: Collection[Leftover]) -> int:
    """Remove them; returns how many. What somebody has written to since they were found stays."""
    count = 0
    with files.writing(store):
        for one in found:
            with suppress(FileNotFoundError):  # finished or removed by another command
                if _written(one.path) > one.written:
                    continue
                # a draft goes as a whole, lest a marker outlive its block
                discard(store, one.path) if one.path.is_dir() else one.path.unlink()
                count += 1
    return count

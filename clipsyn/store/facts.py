"""What tables of cells show of a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clipsyn.store.contents import Contents
from clipsyn.store.folders import IMPORTS, KINDS
from clipsyn.store.groups import StoredGroup

ELSEWHERE = "shown under another condition"  # why most rows of a condition have no value


@dataclass(frozen=True)
class GroupThere:
    """A group of a store on disk, of which no more is read than is asked for."""

    store: Contents
    place: tuple[str, ...]
    path: Path

    @property
    def bytes(self) -> int:
        return self.store.tree.size(self.path)

    @property
    def fingerprint(self) -> str:
        return str(self._group["fingerprint"])

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        return facts_of(self._group)

    @cached_property
    def _group(self) -> StoredGroup:
        return self.store.group(self.path)


def groups_there(store: Contents) -> Iterator[GroupThere]:
    """All groups of a store, as an index would list them."""
    for kind in KINDS:
        for names, path in store.groups(kind):
            yield GroupThere(store, (kind, *names), path)


def facts_of(group: StoredGroup) -> dict[str, Any]:
    """What `clipsyn ls` shows of a group without opening it; see `clipsyn.remote.index.Entry`."""
    kind, sizes = group.kind, group.sizes
    if kind == "samples":
        return {"images": sizes["sample"], "classes": len(group["class_names"])}
    if kind == "classes":  # those of imports are known by a name alone
        known = isinstance(group["identity"]["backbone"], Mapping)
        return {} if known else {"imported": "embeddings"}
    if kind == "features":
        bad = len(group.attributes.get("errors") or {})
        return {"images": sizes["sample"], "bad": bad, "embed": sizes["embed"]}
    if kind in IMPORTS:
        return _imported_facts(group)
    return {}


def _imported_facts(group: StoredGroup) -> dict[str, Any]:
    invalid = dict(group["invalid"])
    elsewhere = invalid.pop(ELSEWHERE, 0)
    imported = group["identity"]["kind"]
    facts = {"images": group.sizes["sample"] - elsewhere, "bad": sum(invalid.values())}
    width = {"embed": group.sizes["embed"]} if imported == "embeddings" else {}
    return {**facts, **width, "imported": imported}

"""Rows of cells from a list of groups, an index or what is on disk: no cell is opened for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Protocol

from clipsyn.errors import DamagedStore
from clipsyn.names import FeatureKey, by_severity
from clipsyn.store.folders import ANSWERS, PROMPTS

_Names = tuple[str, ...]


class ListedGroup(Protocol):
    """What an index says of one group."""

    @property
    def place(self) -> tuple[str, ...]:
        """Its kind and names."""

    @property
    def bytes(self) -> int:
        """Of its files."""

    @property
    def fingerprint(self) -> str:
        """Of its identity."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a table of cells shows of it."""


class Listing:
    """The groups of an index, by the cells that they belong to."""

    def __init__(self, groups: Iterable[ListedGroup]) -> None:
        self._cells: dict[_Names, ListedGroup] = {}  # what has no prompt set
        self._prompted: dict[_Names, dict[str, ListedGroup]] = {}
        self._answers: dict[_Names, set[str]] = {}
        self._bytes: dict[_Names, int] = {}
        self._texts: dict[tuple[str, str], dict[str, ListedGroup]] = {}  # of dataset and backbone
        self._sets: dict[str, set[str]] = {}  # of prompts, by dataset
        for group in groups:
            self._add(group, *group.place)

    def _add(self, group: ListedGroup, kind: str, *names: str) -> None:
        if kind == "classes":
            dataset, prompts, backbone = names
            self._texts.setdefault((dataset, backbone), {})[prompts] = group
            self._sets.setdefault(dataset, set()).add(prompts)
            return
        if kind == "samples":
            return
        cell = names[:4]
        self._bytes[cell] = self._bytes.get(cell, 0) + group.bytes
        if kind == "prompted":
            self._prompted.setdefault(cell, {})[names[4]] = group
        elif kind in ANSWERS:
            self._answers.setdefault(cell, set()).add(names[4])
        elif kind == "imports" or cell not in self._cells:
            self._cells[cell] = group

    @cached_property
    def _prompts_of(self) -> Mapping[str, list[str]]:
        """Of each dataset, once for its thousands of cells."""
        found = {dataset: sorted(names) for dataset, names in self._sets.items()}
        return defaultdict(lambda: [PROMPTS], found)

    def rows(self) -> list[dict[str, Any]]:
        """As `clipsyn.store.inventory.cell_rows` has them."""
        keys = (FeatureKey(*names) for names in self._bytes)
        return [self._row(key) for key in sorted(keys, key=in_order)]

    def _row(self, key: FeatureKey) -> dict[str, Any]:
        """Raises DamagedStore for what is left of a lost cell."""
        cell = key.names
        group = self._cells.get(cell)
        if (group is None or group.place[0] == "features") and cell in self._prompted:
            sets = self._prompted[cell]
            group = sets[min(sets)]
        if group is None:
            raise DamagedStore(f"{key} has predictions, but what they were made from is lost")
        facts = group.facts
        return {
            **vars(key),
            "imported": facts.get("imported"),
            "prompts": self._prompts(cell, group.place[0], facts),
            "images": facts.get("images", 0),
            "bad": facts.get("bad", 0),
            "embed": facts.get("embed"),
            "bytes": self._bytes[cell],
            "fingerprint": group.fingerprint,
        }

    def _prompts(self, cell: _Names, kind: str, facts: Mapping[str, Any]) -> list[str]:
        if kind == "prompted":
            return sorted(self._prompted[cell])
        dataset, _, _, backbone = cell
        texts = self._texts.get((dataset, backbone), {})
        if kind == "features":
            return sorted(texts.keys() | self._answers.get(cell, set()))
        if facts.get("imported") == "embeddings":
            ours = [name for name in texts if texts[name].facts.get("imported") == "embeddings"]
            return sorted(ours)
        return self._prompts_of[dataset]


def in_order(key: FeatureKey) -> tuple[Any, ...]:
    """Sorts perturbations by their severity."""
    return key.dataset, key.split, by_severity(key.perturbation), key.backbone

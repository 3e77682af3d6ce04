"""Rows of cells from a list of groups, an index or what is on disk: no cell is opened for them.

`clipsyn ls URL` needs no more than this, and neither numpy nor zarr.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from clipsyn.errors import DamagedStore
from clipsyn.names import FeatureKey, by_severity
from clipsyn.store.folders import ANSWERS, PROMPTS

if TYPE_CHECKING:
    from clipsyn.store.tree import IndexEntry

_Names = tuple[str, ...]


def rows_of(entries: Iterable[IndexEntry]) -> list[dict[str, Any]]:
    """The rows of `clipsyn.store.inventory.cell_rows`, from a list of all groups.

    Raises DamagedStore for what is left of a lost cell.
    """
    cells: dict[_Names, list[IndexEntry]] = {}
    texts: dict[tuple[str, str], dict[str, IndexEntry]] = {}  # of dataset and backbone, by prompts
    sets: defaultdict[str, set[str]] = defaultdict(set)  # of prompts, by dataset
    for entry in entries:
        kind, *names = entry.place
        if kind == "classes":
            dataset, prompts, backbone = names
            texts.setdefault((dataset, backbone), {})[prompts] = entry
            sets[dataset].add(prompts)
        elif kind != "samples":
            cells.setdefault(tuple(names[:4]), []).append(entry)
    # sorted once for the thousands of cells of a dataset
    of_dataset = defaultdict(lambda: [PROMPTS], {name: sorted(sets[name]) for name in sets})
    keys = {FeatureKey(*names): names for names in cells}
    rows = []
    for key in sorted(keys, key=_in_order):
        beside = texts.get((key.dataset, key.backbone), {})
        rows.append(_row(key, cells[keys[key]], beside, of_dataset[key.dataset]))
    return rows


def _row(
    key: FeatureKey,
    groups: Iterable[IndexEntry],
    texts: Mapping[str, IndexEntry],
    of_dataset: list[str],
) -> dict[str, Any]:
    """texts: class embeddings of its backbone, by prompt set; of_dataset: all sets there."""
    features = [entry for entry in groups if entry.place[0] == "features"]
    answers = {entry.place[5]: entry for entry in groups if entry.place[0] in ANSWERS}
    group = features[0] if features else answers[min(answers)]
    facts = group.facts
    imported = facts.get("imported")
    if not features and imported is None:
        raise DamagedStore(f"{key} has predictions, but what they were made from is lost")
    if features and imported:
        prompts = sorted(name for name in texts if texts[name].facts.get("imported"))
    elif features:
        prompts = sorted(texts.keys() | answers.keys())
    else:
        prompts = of_dataset if PROMPTS in answers else sorted(answers)
    return {
        **vars(key),
        "imported": imported,
        "prompts": prompts,
        "images": facts.get("images", 0),
        "bad": facts.get("bad", 0),
        "embed": facts.get("embed"),
        "bytes": sum(entry.bytes for entry in groups),
        "fingerprint": group.fingerprint,
    }


def _in_order(key: FeatureKey) -> tuple[Any, ...]:
    """Sorts perturbations by their severity."""
    return key.dataset, key.split, by_severity(key.perturbation), key.backbone

"""What a store holds, whether it is whole, and what lies unfinished in `.wip`.

A running job writes into its drafts again and again. So what nobody has written to for a day is
taken for dead: that needs no lock, and it holds for jobs on other machines, whatever the file
system.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import ClipsynError, MissingCell, StaleCell
from clipsyn.methods.numerics.logits import NO_PREDICTION, predictions, zero_shot_logits
from clipsyn.names import FeatureKey, Location, by_severity
from clipsyn.store import files
from clipsyn.store.cell import Cell, with_prompt_sets
from clipsyn.store.drafts import discard, is_draft
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import ANSWERS, CELLS, HELD, LOOK, ORDER, Place
from clipsyn.store.given import Rows, content_digest
from clipsyn.store.groups import Group
from clipsyn.text import advised, parse_json

_THREADS = 8  # that look how large cells are: each file, of which few may be in memory


def cell_rows(
    store: FeatureStore, keys: Iterable[FeatureKey] | None = None
) -> list[dict[str, Any]]:
    """One row a cell, of all if `keys` is None: names, images, width, bytes, fingerprint.

    Perturbations come in order of severity. `bytes` are with those of the cell's logits. `imported`
    is what an imported cell holds, None for one that was extracted; `embed` is None where there are
    no embeddings; `captions` are those of the split that its backbone has encoded. Of a dataset
    that shows each image under one condition alone, `images` counts those of the cell's. Raises
    DamagedStore for what is left of a lost cell.
    """
    rows = list[dict[str, Any]]()
    keys = sorted(
        store.keys() if keys is None else keys,
        key=lambda k: (k.dataset, k.split, by_severity(k.perturbation), k.backbone),
    )
    texts = {
        names: (store.tree.facts(path) or store.group(path).facts).get("captions", 0)
        for names, path in store.groups("texts", {key.dataset for key in keys})
    }
    with ThreadPoolExecutor(_THREADS) as threads:
        each = map if isinstance(store.path, Location) else threads.map  # an index has them
        cells = [store.cell(key) for key in keys]
        sizes = each(lambda cell: cell.size, cells)
        for (cell, prompts), size in zip(with_prompt_sets(cells), sizes, strict=True):
            facts = cell.facts
            rows.append(
                {
                    **vars(cell.key),
                    "imported": cell.imported_as,
                    "prompts": prompts,
                    "images": facts.get("images", 0),
                    "bad": facts.get("bad", 0),
                    "embed": facts.get("embed"),
                    "captions": texts.get((cell.key.dataset, cell.key.split, cell.key.backbone), 0),
                    "bytes": size,
                    "fingerprint": facts["fingerprint"],
                }
            )
    return rows


def describe(store: FeatureStore) -> dict[str, Any]:
    """The store as a whole: format, every backbone with its provenance, imports, every dataset."""
    marker = store.tree.marker(store.path)
    below = (store.path / kind for kind in ("samples", "captions"))
    cells = [*_to_describe(store)]
    read = (path for cell in cells for path in cell.sets.values() or (cell.path,))
    store.tree.expect(chain(below, read))
    backbones: dict[str, Any] = {}
    imports: dict[str, Any] = {}
    for cell in cells:
        if not cell.imported_as:
            group = cell.group()
            identity, encoder = group["identity"]["backbone"], group.provenance.get("encoder") or {}
            kept = {name: identity[name] for name in ("weights", "precision", "preprocess")}
            backbones[cell.key.backbone] = {**encoder, **kept}
            continue
        for prompts in cell.sets or (None,):
            group = cell.group(prompts)
            entry = imports.setdefault(cell.key.backbone, {"kinds": [], "files": []})
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
        if store.tree.exists(captions := store.at("captions", dataset, split)):
            datasets[f"{dataset}/{split}"]["captions"] = store.group(captions).sizes["caption"]
    return {**marker, "backbones": backbones, "imports": imports, "datasets": datasets}


def _to_describe(store: FeatureStore) -> Iterator[Cell]:
    """Imported cells, and the first extracted one of each backbone."""
    seen = set[str]()
    for cell in map(store.cell, store.keys()):
        if cell.imported_as:
            yield cell
        elif cell.key.backbone not in seen and store.tree.exists(cell.path):
            seen.add(cell.key.backbone)
            yield cell


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


def remove(store: FeatureStore, places: Collection[Place]) -> None:
    """Remove groups from the store; each is removed as a whole or stays.

    Sources go after what is made from them, so that stopping midway leaves no half of a cell.
    """
    store.check_writable()
    for place in sorted(places, key=lambda place: -ORDER.index(place[0])):
        with suppress(FileNotFoundError):  # another command was faster
            discard(store.path, store.at(*place))


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
    lying, found = map(Path, files.entries(store / files.WIP)), list[Leftover]()
    for path in sorted(lying, key=lambda path: (not is_draft(path), path)):
        with suppress(FileNotFoundError):
            found.append(_look_at(store, path))
    return found


def _look_at(store: Path, path: Path) -> Leftover:
    """That it is gone passes as OSError."""
    size = files.size(path) if path.is_dir() else path.lstat().st_size
    what = f"{path.relative_to(store)}, of a command that was writing or removing a group"
    written, target, done, total = _written(path), "", 0, 0
    if is_draft(path):
        with suppress(ValueError):  # cut by a power cut
            target, total = parse_json(files.read_file(path / "target")).values()
            done = len(list((path / "done").glob("[0-9]*")))
            what = f"{target}, {done} of {total} blocks done"
    return Leftover(path, what, written, size, target, done, total)


def _written(path: Path) -> float:
    """When something below the path was last made, written to, renamed or removed.

    That is the time of the change of its status: a copy of an old file is new.
    """
    return max(path.lstat().st_ctime for path in (path, *path.rglob("*")))


def collect(store: Path, found: Collection[Leftover]) -> int:
    """Remove them; returns how many. What somebody has written to since they were found stays."""
    count = 0
    for left in found:
        with suppress(FileNotFoundError):  # finished or removed by another command
            if _written(left.path) <= left.written:
                # a draft goes as a whole, lest a marker outlive its block
                discard(store, left.path) if left.path.is_dir() else left.path.unlink()
                count += 1
    return count


# Whether it is whole


class Stale(str):
    """A problem of what is whole, but was made of others than are there now."""


def debris(store: FeatureStore, places: Collection[Place]) -> Iterator[str]:
    """One sentence for every group that lacks a part without which it cannot be read.

    places: of all groups of the store. This reads folders and no chunk.
    """
    there = {*places, *(place[:2] for place in places if place[0] == "samples")}
    for place in places:
        path = store.at(*place)
        if not store.tree.seen(path) and store.tree.exists(path):
            yield f"{_name(store, place)}: {path / files.METADATA} is missing"
        for source in _sources(store, place, there):
            lost = source not in there and not store.tree.exists(store.at(*source))
            if lost and store.tree.exists(path):  # not removed meanwhile
                yield f"{_name(store, place)}: the {source[0]} that it needs are lost"


def _sources(store: FeatureStore, place: Place, there: Collection[Place]) -> Iterator[Place]:
    """The groups that a group needs; of a dataset's splits any one will do."""
    kind, *names = place
    if kind == "classes":
        yield "samples", names[0]
    elif kind != "samples":
        yield "samples", *names[:2]
    if kind == "texts":
        yield "captions", *names[:2]
    if kind not in ANSWERS:
        return
    features = ("features", *names[:4])
    if features in there or not store.is_imported(store.at(*place)):
        yield features
        yield "classes", names[0], names[4], names[3]


def _check_current(store: FeatureStore, place: Place) -> None:
    """Raise what a reader raises of a cell that is of others than are there."""
    if place[0] == "captions":
        store.captions(*place[1:])
    if place[0] == "texts":
        store.text_embeddings(*place[1:])
    if place[0] not in CELLS:
        return
    cell, embedded = _cell(store, place), place[0] == "features"
    if embedded or cell.sets:
        cell.holding("valid", None if embedded else place[5])
    for prompts in cell.prompt_sets() if embedded else ():
        paths = (store.at(kind, *cell.key.names, prompts) for kind in ANSWERS)
        if not any(map(store.tree.exists, paths)):  # else they are looked at themselves
            cell.stored("logits", prompts)


def damage(store: FeatureStore, place: Place, *, deep: bool = False) -> list[str]:
    """One sentence for everything in a group that was altered, a Stale one where nothing was.

    With `deep`, logits and predictions are computed again and compared, too.
    """
    path, name = store.at(*place), _name(store, place)
    looked_at = store.tree.seen(path)
    problems = list(_problems(store, place, deep))
    if problems and place[0] == "samples":  # unless labels are being corrected
        with files.locked(path, shared=True):
            problems = list(_problems(store, place, deep))
    if not store.tree.exists(path) or store.tree.seen(path) != looked_at:
        return []  # replaced or removed meanwhile
    return [  # errors of readers name the group themselves
        text if text.startswith(f"{name} in ") else type(text)(f"{name}: {text}")
        for text in dict.fromkeys(problems)
    ]


def _problems(store: FeatureStore, place: Place, deep: bool) -> Iterator[str]:
    try:
        stored = store.group(store.at(*place))
        damaged = list(_wrong_bytes(store, stored))
        yield from damaged or _wrong_numbers(store, place, stored, deep)
    except ClipsynError as error:
        if f"{store.path}/" not in str(error) or _name(store, place) in str(error):
            # else it is of another group, which says so itself
            yield Stale(error) if isinstance(error, StaleCell) else str(error)


def _wrong_bytes(store: FeatureStore, stored: Group) -> Iterator[str]:
    """Altered chunks, and folders that were never part of the group."""
    for name in store.tree.folders(stored.path):
        if name not in (LOOK, *stored.arrays):  # it may be being added
            yield f"folder {name} is no part of it: was it moved there?"
    yield from store.tree.damage(stored.path, stored.arrays)


def _wrong_numbers(store: FeatureStore, place: Place, stored: Group, deep: bool) -> Iterator[str]:
    """Intact arrays that contradict the identity, or do not follow from their sources."""
    _check_current(store, place)
    kind, *names = place
    if kind in ANSWERS:
        _cell(store, place).predictions(names[4])
    elif kind == "samples" and store.samples(*names).digest != stored["identity"]["samples"]:
        yield "ids and content hashes do not match the digest"
    elif kind == "captions" and store.captions(*names).digest != stored["identity"]["captions"]:
        yield "ids, texts and images do not match the digest"
    if not deep:
        return
    if stored.imported:
        values: dict[str, Rows] = {name: stored.rows(name) for name in stored.arrays}
        if "logit_scale" in stored.attributes:
            values["logit_scale"] = np.array([stored["logit_scale"]])
        if content_digest(values) != stored["identity"]["content"]:
            yield "its arrays do not match the digest of its content"
    if kind in ANSWERS:
        blocks = stored.arrays["prediction"].blocks
        for number, rows in enumerate(map(blocks.range, range(blocks.count))):
            for wrong in _wrong_answers(store, place, stored, rows):
                yield f"block {number} (rows {rows.start}-{rows.stop - 1}): {wrong}"


def _wrong_answers(store: FeatureStore, place: Place, stored: Group, rows: range) -> Iterator[str]:
    """Predictions that are not the largest logits, and what does not follow from the embeddings.

    Another processor may add the terms of a product in another order: see `_again`.
    """
    logits = stored.read("logit", rows) if "logit" in stored.arrays else None
    predicted = stored.read("prediction", rows)
    if logits is not None and not np.array_equal(predictions(logits), predicted):
        yield "predictions are not the largest logits"
    if stored.imported:
        return
    again, within = _again(store, place, rows)
    if logits is not None:
        if not np.allclose(logits, again, rtol=0, atol=within, equal_nan=True):
            yield "logits do not follow from the stored embeddings"
        return
    known, largest = predicted < again.shape[1], again.max(axis=1)
    ours = np.take_along_axis(again, np.where(known, predicted, 0)[:, None], axis=1)[:, 0]
    none = (predicted == NO_PREDICTION) & np.isnan(largest)
    if not np.where(known, ours >= largest - 2 * within, none).all():
        yield "predictions do not follow from the stored embeddings"


def _again(store: FeatureStore, place: Place, rows: range) -> tuple[NDArray[np.float32], float]:
    """Logits computed again, and the most by which another processor's may differ.

    Two orders of summation err by width x 2^-24 each, at most, of a product of vectors of unit norm
    in float32 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1).
    """
    cell, prompts = _cell(store, place), place[5]
    cell.stored(place[0], prompts)  # raises StaleCell where they are of others
    classes, scale = store.class_embeddings(cell.key.dataset, prompts, cell.key.backbone)
    again = zero_shot_logits(cell.embeddings(rows), classes, scale, rows=len(rows))
    return again, 2 * classes.shape[1] * 2.0**-24 * scale


def _cell(store: FeatureStore, place: Place) -> Cell:
    return store.cell(FeatureKey(*place[1:5]))


def _name(store: FeatureStore, place: Place) -> str:
    return str(store.at(*place).relative_to(store.path))

"""`clipsyn ls`, `ls --status` and `info` of a store with 5,000 cells, against `find`.

    python benchmarks/listing.py

Every command is a process of its own. Everything is warm: the store was just written.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import Measured, fresh_python, interleaved, ratio, report, spread, start, workplace

from clipsyn import FeatureStore, SampleTable
from clipsyn.names import fingerprint
from clipsyn.store import arrays, files
from clipsyn.store.groups import sealed

SAMPLES, WIDTH, CLASSES = 40, 16, 4
BACKBONES, DATASETS, SPLITS, PERTURBATIONS = 25, 10, 2, 10  # 5,000 cells
COMMANDS = ("ls", "ls --status", "info")
TARGET = 3.0
PROMPTS = "simple"


def fill(path: Path, datasets: int = DATASETS) -> FeatureStore:
    """Cells of embeddings with class embeddings and logits: one is written, the others like it."""
    store = FeatureStore.create(path)
    ids, labels = [f"{n}.jpg" for n in range(SAMPLES)], np.arange(SAMPLES) % CLASSES
    first = SampleTable.of("set-0", "split-0", ids, labels, "abcd")
    rows = np.tile(np.eye(WIDTH), (SAMPLES // WIDTH + 1, 1))[:SAMPLES]
    with store.writer(first, "backbone/0") as cell:
        cell.classes(PROMPTS, np.eye(CLASSES, WIDTH), scale=100.0)
        cell.embeddings(rows)
    made: dict[tuple[str, ...], str] = {}
    for place in _places(datasets):
        made[place] = _like(store, place, made)
    return store


def _places(datasets: int) -> Iterator[tuple[str, ...]]:
    sets = [f"set-{n}" for n in range(datasets)]
    splits = [f"split-{n}" for n in range(SPLITS)]
    labels = ["clean", *(f"jpeg-{n}" for n in range(1, PERTURBATIONS))]
    backbones = [f"backbone/{n}" for n in range(BACKBONES)]
    yield from (("samples", *names) for names in itertools.product(sets, splits))
    yield from (("classes", *names) for names in itertools.product(sets, [PROMPTS], backbones))
    for names in itertools.product(sets, splits, labels, backbones):
        yield "features", *names
        yield "logits", *names, PROMPTS


def _first(kind: str) -> tuple[str, ...]:
    cell = ("set-0", "split-0", "clean", "backbone/0")
    return {
        "samples": cell[:2],
        "classes": ("set-0", PROMPTS, "backbone/0"),
        "features": cell,
        "logits": (*cell, PROMPTS),
    }[kind]


def _like(store: FeatureStore, place: tuple[str, ...], made: Mapping[tuple[str, ...], str]) -> str:
    """The same numbers as the first group of the kind has, at another place; its fingerprint.

    made: fingerprints of the groups before, of which one is made.
    """
    (kind, *names), target = place, store.at(*place)
    if target.exists():
        return str(arrays.read_attributes(target)["fingerprint"])
    group = store.at(kind, *_first(kind))
    shutil.copytree(group, target, copy_function=os.link)
    attributes: dict[str, Any] = dict(arrays.read_attributes(group))
    said = dict(zip(("dataset", "split", "perturbation", "backbone"), names, strict=False))
    if kind == "classes":
        said = {"dataset": names[0], "backbone": names[2]}
    if kind == "logits":
        dataset, _, _, backbone, prompts = names
        said = {"features": made["features", *names[:4]]}
        said["classes"] = made["classes", dataset, prompts, backbone]
    identity = {**attributes["identity"], **said}
    attributes |= {"identity": identity, "fingerprint": fingerprint(identity)}
    (target / files.METADATA).unlink()
    metadata = {"zarr_format": 3, "node_type": "group"}
    content = {**metadata, "attributes": sealed({**attributes, "place": list(place)})}
    (target / files.METADATA).write_text(json.dumps(content, indent=2))
    return str(attributes["fingerprint"])


def measure(path: Path, rounds: int) -> list[Measured]:
    def run(*command: str) -> None:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    find = ("find", str(path), "-type", "f", "-printf", "%s\\n")
    sides = {"find": partial(run, *find)}
    for name in COMMANDS:
        sides[name] = partial(run, *fresh_python("-m", "clipsyn", *name.split(), str(path)))
    times = interleaved(sides, rounds)
    return [
        Measured(
            f"clipsyn {name} / find",
            ratio(times[name], times["find"]),
            f"{spread(times[name], times['find'])}, {min(times[name]):.2f} s of "
            f"{min(times['find']):.2f} s",
            ceiling=TARGET,
        )
        for name in COMMANDS
    ]


@click.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the store here.")
def main(rounds: int, folder: Path | None) -> None:
    """Time the three commands."""
    start(f"a store with {BACKBONES * DATASETS * SPLITS * PERTURBATIONS:,} cells")
    with workplace(folder) as place:
        store = fill(Path(place) / "store")
        report(measure(store.path, rounds))


if __name__ == "__main__":
    main()

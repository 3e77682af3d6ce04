"""Kills at random moments of what fills a store, and what is read of one after an accident.

The environment variable CLIPSYN_TEST_KILLS says how many, where a test does not insist.
"""

import os
import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from clipsyn.errors import StoreError
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import Leftover, Stale, damage, debris, left_over

Strike = Callable[[Path, float], bool]


def number_of_kills(usual: int) -> int:
    return int(os.environ.get("CLIPSYN_TEST_KILLS", usual))


def killed_again_and_again(
    strike: Strike, whole: Path, folder: Path, fakes: Any, *, kills: int, lasts: float
) -> Path:
    """A store in `folder` after so many kills; each that became complete is left for another.

    strike: fills the store at a path, kills that after so many seconds, and says whether there was
    something to kill. After each, what is visible is what the store at `whole` has, which nothing
    interrupted. lasts: seconds that filling takes, about.
    """
    moments, numbers, killed = random.Random(5), count(1), 0
    path = folder / "killed-0"
    while killed < kills:
        if strike(path, moments.uniform(0, lasts) / moments.choice([1, 4])):
            killed += 1
        else:  # it was done before: little was left, or the machine has become faster
            lasts *= 0.97
        if (path / "clipsyn.json").exists():
            assert_sound(path)
            unfinished(path)  # what is not visible can be listed
            assert_part_of(whole, path, fakes)
            if fakes.unlike(whole, path) == []:
                path = folder / f"killed-{next(numbers)}"
    return path


def unfinished(path: Path) -> list[Leftover]:
    """Every draft in the store, sorted by target."""
    drafts = [left for left in left_over(path) if left.target]
    return sorted(drafts, key=lambda draft: draft.target)


def assert_part_of(whole: Path, path: Path, fakes: Any) -> None:
    """What is visible is what `whole` has; sample tables may not know yet what images look like."""
    seen, wanted = fakes.contents(path), fakes.contents(whole)
    tables = {name for name in seen if name.startswith("samples/") and seen[name] != wanted[name]}
    assert {name: seen[name] for name in seen.keys() - tables}.items() <= wanted.items()
    stores = [FeatureStore.open(one) for one in (path, whole)]
    for _, dataset, split, *_ in {tuple(name.split("/"))[:3] for name in tables}:
        mine, theirs = (store.samples(dataset, split) for store in stores)
        assert not mine.looks.any()
        assert (mine.ids, mine.class_names) == (theirs.ids, theirs.class_names)
        np.testing.assert_array_equal(mine.labels, theirs.labels)
        np.testing.assert_array_equal(mine.content, theirs.content)


def flip(file: Path, position: int = 3) -> None:
    """Change a bit."""
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def problems(store: FeatureStore | Path | str, *, deep: bool = False) -> list[str]:
    """All that `verify` finds in a store."""
    store = store if isinstance(store, FeatureStore) else FeatureStore.open(store)
    groups = store.places()
    found = [one for group in groups for one in damage(store, group, deep=deep)]
    return [*debris(store, groups), *found]


def assert_sound(path: Path, *, replacing: bool = False) -> int:
    """How many groups are visible; all of them are whole, with all that they need.

    replacing: what a kill left half replaced is stale, and said to be.
    """
    store = FeatureStore.open(path)
    found = problems(store, deep=True)
    left = [one for one in found if not (replacing and isinstance(one, Stale))]
    assert left == [], left
    return len(store.places())


def readings(store: FeatureStore) -> dict[str, Any]:
    """Everything that a reader gets of a store; a StoreError where it is refused."""
    found: dict[str, Any] = {}

    def ask(what: str, reader: Any, *arguments: Any) -> None:
        try:
            found[what] = reader(*arguments)
        except StoreError as error:
            found[what] = error

    def labels(dataset: str, split: str) -> Any:
        table = store.samples(dataset, split)
        return [list(table.ids), table.labels.tolist(), table.content.tolist(), table.class_names]

    try:
        keys = store.keys()
    except StoreError as error:
        return {"keys": error}
    for key in keys:
        ask(f"{key} valid", store.cell(key).valid)
        ask(f"{key} embeddings", store.cell(key).embeddings)
        ask(f"{key} encoder", store.cell(key).encoder)
        ask(f"{key.dataset}/{key.split}", labels, key.dataset, key.split)
        ask(
            f"{key.dataset} {key.backbone}",
            store.class_embeddings,
            key.dataset,
            "simple",
            key.backbone,
        )
        ask(f"{key} logits", store.cell(key).logits, "simple")
        ask(f"{key} predictions", store.cell(key).predictions, "simple")
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return bool(one == other)


def changed(sound: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether a reader sees any of it; asserts that it gets no other number."""
    seen = False
    for what, answer in found.items():
        if isinstance(answer, StoreError):
            seen = True
        else:
            assert what in sound, what
            assert same(answer, sound[what]), what
    return seen or bool(sound.keys() - found.keys())

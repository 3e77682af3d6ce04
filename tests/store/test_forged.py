"""Stores of strangers that are consistent and wrong: readers answer, or say what is wrong.

A forged group has a valid seal: its digest, its fingerprint, the checksums of its arrays, and the
fingerprints that answers name of what they were made from.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from clipsyn.cli import main
from clipsyn.errors import ClipsynError, DamagedStore
from clipsyn.names import FeatureKey, fingerprint
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import sealed
from clipsyn.store.inventory import find_groups
from clipsyn.store.schema import ANSWERS, PROMPTS, ArraySpec, arrays_of

MISSING = object()
HOSTILE: list[Any] = [
    MISSING,
    None,
    True,
    0,
    -1,
    2**31 + 1,
    2**64,
    10**400,
    -0.5,
    1e39,
    "",
    "x",
    "\x1b[31m",
    "../../etc",
    "a" * 5000,
    [],
    [[]],
    ["x"] * 70_000,
    {},
    {"x": {"x": None}},
]
COMMANDS = (
    *(
        ("ls",),
        ("info",),
        ("zeroshot",),
        ("oracle",),
        ("representation",),
        ("ls", "--status"),
        ("verify",),
        ("verify", "--deep"),
    ),
    ("evaluate", "-b", "fake/*", "--ensembles", "super-learner", "--shots", "1", "--seeds", "1"),
)
STORES = 20


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, fakes: Any) -> FeatureStore:
    """Every kind of group."""
    path = tmp_path_factory.mktemp("good") / "store"
    sources = [fakes.Source(), fakes.Source(split="train", count=10)]
    store: FeatureStore = fakes.fill(path, sources=sources, perturbations=("clean", "jpeg:3"))
    samples, rows = store.samples("toy", "test"), np.arange(20)
    unit = np.eye(12)[rows % 12]
    with store.writer(samples, "embedded") as cell:
        cell.classes("simple", np.eye(12)[:3], scale=10.0)
        cell.embeddings(unit)
    with store.writer(samples, "voting") as cell:
        cell.predictions(rows % 3, confidences=np.full(20, 0.5))
    with store.writer(samples, "plain", prompts="simple") as cell:
        cell.predictions(rows % 3)
    with store.writer(samples, "scoring") as cell:
        cell.logits(unit[:, :3])
    return store


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value can be put in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*above, key)
        if isinstance(item, dict | list):
            yield from paths(item, (*above, key))


def put(attributes: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        attributes = attributes[key]
    if value is MISSING:
        del attributes[path[-1]]
    else:
        attributes[path[-1]] = value


def seal(store: Path, group: Path, attributes: dict[str, Any]) -> None:
    """Publish the attributes, and tell the answers that were made from the group."""
    before = attributes.get("fingerprint")
    if isinstance(attributes.get("identity"), dict):
        attributes["fingerprint"] = fingerprint(attributes["identity"])
    arrays.write_attributes(group, sealed(attributes))
    for other in find_groups(FeatureStore.open(store), {}):
        if other.kind in ANSWERS and other.path != group:
            theirs = arrays.read_attributes(other.path)
            made_of = theirs["identity"]
            if before in made_of.values():
                for name, said in made_of.items():
                    made_of[name] = attributes["fingerprint"] if said == before else said
                seal(store, other.path, theirs)


def forge_attribute(store: Path, group: Path, chance: random.Random) -> str:
    attributes = arrays.read_attributes(group)
    places = [path for path in paths(attributes) if path[0] not in ("digest", "fingerprint")]
    # first the kind of attribute: there are many templates and class names
    first = chance.choice(sorted({path[:2] for path in places}, key=str))
    path = chance.choice([path for path in places if path[:2] == first])
    value = chance.choice(HOSTILE)
    put(attributes, path, value)
    seal(store, group, attributes)
    return f"{group.relative_to(store)}: {path} = {str(value)[:40]}"


def publish(store: Path, group: Path, name: str, values: NDArray[Any]) -> None:
    """Put other values in place of an array, as its group lists it."""
    attributes = arrays.read_attributes(group)
    shutil.rmtree(group / name)
    spec = next(
        spec for spec in arrays_of(attributes["kind"], attributes["identity"]) if spec.name == name
    )
    dims = tuple("abc"[: values.ndim])
    dtype = "string" if values.dtype == object else values.dtype.name
    aside = group.parent / ".aside"
    forged = ArraySpec(name, dims, dtype, "" if dtype == "string" else 0, spec.doc)
    arrays.create_group(aside, [forged], dict(zip(dims, values.shape, strict=True)), 8, {})
    arrays.write_block(aside / name, 0, values)
    (aside / name).rename(group / name)
    shutil.rmtree(aside)
    attributes["arrays"][name] = arrays.listing(group / name).json()
    seal(store, group, attributes)


def asked(store: Path) -> Iterator[tuple[str, BaseException | None]]:
    """What ends every reader beside an exit; pools raise it."""
    for command in COMMANDS:
        result = CliRunner().invoke(main, [*command[:1], str(store), *command[1:]])
        yield (
            " ".join(command),
            None if isinstance(result.exception, SystemExit) else result.exception,
        )
    for prompts in ("simple", PROMPTS):
        with suppress(ClipsynError):
            FeatureStore.open(store).pool("toy", "test", prompts=prompts, votes=True)


@pytest.mark.parametrize("seed", range(STORES))
def test_a_forged_store_ends_no_reader_in_a_traceback(
    good: FeatureStore, tmp_path: Path, seed: int
) -> None:
    chance, store = random.Random(seed), tmp_path / "store"
    shutil.copytree(good.path, store)
    groups = [store / group.path.relative_to(good.path) for group in find_groups(good, {})]
    how = forge_attribute(store, chance.choice(groups), chance)
    for reader, error in asked(store):
        assert error is None, (reader, how)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_embeddings_that_are_no_numbers_are_refused(
    good: FeatureStore, tmp_path: Path, number: float
) -> None:
    store = tmp_path / "store"
    shutil.copytree(good.path, store)
    key = FeatureKey("toy", "test", "clean", "fake/one")
    group = store / good.features_path(key).relative_to(good.path)
    values = arrays.read(group / "image_embedding")
    values[1, 3] = number
    publish(store, group, "image_embedding", values)
    with pytest.raises(DamagedStore):
        FeatureStore.open(store).embeddings(key)
    FeatureStore.open(store).embeddings(key, range(1))  # the rows before are whole


@pytest.mark.parametrize("place", [[], ["features"]])
def test_a_group_that_names_no_place_is_damaged(
    good: FeatureStore, tmp_path: Path, place: list[str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(good.path, store)
    key = FeatureKey("toy", "test", "clean", "fake/one")
    group = store / good.features_path(key).relative_to(good.path)
    seal(store, group, {**arrays.read_attributes(group), "place": place})
    with pytest.raises(DamagedStore):
        FeatureStore.open(store).embeddings(key)

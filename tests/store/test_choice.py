"""Which groups a selection brings along."""

from __future__ import annotations

import pytest

from clipsyn.errors import MissingCell, UnknownName
from clipsyn.store.files import Place
from clipsyn.store.select import choose

PLACES: list[Place] = [
    ("samples", "pets", "test"),
    ("samples", "pets", "train"),
    ("samples", "food", "test"),
    ("classes", "pets", "simple", "A"),
    ("classes", "pets", "own", "A"),
    ("classes", "pets", "simple", "B"),
    ("classes", "food", "simple", "A"),
    ("features", "pets", "test", "clean", "A"),
    ("features", "pets", "test", "jpeg-3", "A"),
    ("features", "pets", "train", "clean", "B"),
    ("features", "food", "test", "clean", "A"),
    ("logits", "pets", "test", "clean", "A", "simple"),
    ("logits", "pets", "test", "clean", "A", "own"),
    ("predictions", "pets", "test", "jpeg-3", "A", "simple"),
    ("predictions", "food", "test", "clean", "net", "imported"),
    ("logits", "pets", "test", "clean", "net", "simple"),
]


def chosen(**filters: list[str]) -> set[str]:
    return {"/".join(place) for place in choose(PLACES, filters, "store")}


def test_a_backbone_brings_its_samples_and_classes() -> None:
    assert chosen(backbone=["B"]) == {
        "samples/pets/train",
        "classes/pets/simple/B",
        "features/pets/train/clean/B",
    }


def test_a_perturbation_brings_what_its_cells_need() -> None:
    assert chosen(perturbation=["jpeg:3"]) == {
        "samples/pets/test",
        "classes/pets/simple/A",
        "classes/pets/own/A",
        "features/pets/test/jpeg-3/A",
        "predictions/pets/test/jpeg-3/A/simple",
    }


def test_a_name_with_the_letters_of_a_pattern_is_that_name_alone() -> None:
    """As of a checkpoint; `rm` would remove the other one, too."""
    places: list[Place] = [("features", "pets", "test", "clean", name) for name in ("a[1]", "a1")]
    assert choose(places, {"backbone": ["a[1]"]}, "") == [places[0]]
    assert choose(places, {"backbone": ["a[1-9]"]}, "") == [places[1]]
    assert choose(places, {"backbone": ["a[1]", "a?"]}, "") == places


def test_classes_without_a_cell_bring_samples() -> None:
    places: list[Place] = [*PLACES, ("classes", "food", "simple", "C")]
    found = choose(places, {"backbone": ["C"]}, "")
    assert set(found) == {("classes", "food", "simple", "C"), ("samples", "food", "test")}


def test_nothing_passes_filters_that_no_cell_passes_together() -> None:
    with pytest.raises(MissingCell, match="nothing in store matches; `clipsyn ls store` shows"):
        chosen(backbone=["B"], dataset=["food"])


def test_a_name_that_is_nowhere_is_refused() -> None:
    for filters in ({"backbone": ["C"]}, {"dataset": ["pest"]}, {"prompts": ["x*"]}):
        with pytest.raises(UnknownName):
            chosen(**filters)


@pytest.mark.parametrize("dimension", ["dataset", "split", "perturbation", "backbone", "prompts"])
def test_what_is_chosen_is_complete(dimension: str) -> None:
    """By another way: each group's sources are there, for each name alone."""
    for name in ("pets", "food", "test", "train", "clean", "jpeg-3", "A", "B", "net", "simple"):
        try:
            found = choose(PLACES, {dimension: [name]}, "")
        except UnknownName:
            continue
        for kind, *rest in found:
            if kind == "classes":
                assert any(p[0] == "samples" and p[1] == rest[0] for p in found)
            elif kind != "samples":
                assert ("samples", *rest[:2]) in found
            if kind in ("logits", "predictions") and rest[3] != "net":  # which was imported
                assert ("features", *rest[:4]) in found
                assert ("classes", rest[0], rest[4], rest[3]) in found


def test_what_is_of_no_known_prompt_set_stands_beside_every_set() -> None:
    of_none: Place = ("predictions", "pets", "test", "clean", "guess", "imported")
    embedded: Place = ("features", "pets", "test", "clean", "other")
    derived: Place = ("logits", "pets", "test", "clean", "other", "imported")
    found = choose([*PLACES, of_none, embedded, derived], {"prompts": ["own"]}, "")
    assert of_none in found
    assert embedded in found
    assert derived not in found

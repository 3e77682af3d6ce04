"""Which datasets hold the same images."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.store.overlap import image_notes, shared_images
from clipsyn.store.samples import SampleTable


def table(name: str, images: list[int]) -> SampleTable:
    content = np.array([[image] * 32 for image in images], np.uint8)
    ids = tuple(f"im{row}" for row in range(len(images)))
    return SampleTable(name, "test", ids, np.zeros(len(images), np.int32), content, ("cat",))


@pytest.fixture
def sets() -> list[SampleTable]:
    """All holds two of birds and one of cars twice; none of dogs."""
    return [
        table("all", [1, 2, 5, 5, 90]),
        table("birds", [1, 2, 3]),
        table("cars", [5, 6]),
        table("dogs", [7, 7]),
    ]


def test_images_are_the_same_by_content(sets):
    assert shared_images(sets) == {"all/test": 4, "birds/test": 2, "cars/test": 1}
    assert shared_images(sets[1:]) == {}


def test_it_is_said(sets):
    copies, several = image_notes(sets)
    assert "all/test (5 images, 4 distinct), dogs/test (2 images, 1 distinct)" in copies
    assert "all/test (4 of 5), birds/test (2 of 3), cars/test (1 of 2)" in several
    assert image_notes(sets, shared=False) == [copies]
    assert image_notes(sets[1:3]) == []

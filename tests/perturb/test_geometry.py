from __future__ import annotations

import numpy as np
import pytest

from clipsyn import perturb
from clipsyn.perturb.geometry import CROP_SCALE, augment


def coordinates(height: int = 120, width: int = 160) -> np.ndarray:
    """An image whose red is the column and whose green is the row, as shares of 250."""
    y, x = np.mgrid[:height, :width]
    planes = [250 * (x + 0.5) / width, 250 * (y + 0.5) / height, np.zeros((height, width))]
    return np.rint(np.stack(planes, axis=2)).astype(np.uint8)


def window(view: np.ndarray) -> tuple[float, float, float, float, bool]:
    """Left, right, top, bottom of the crop as shares of the image, and whether it is mirrored."""
    height, width = view.shape[:2]
    column, row = (np.arange(size) for size in (width, height))
    across, start = np.polyfit(column, view[:, :, 0].mean(axis=0) / 250, 1)
    down, top = np.polyfit(row, view[:, :, 1].mean(axis=1) / 250, 1)
    edges = sorted([start - across / 2, start + across * (width - 0.5)])
    return edges[0], edges[1], top - down / 2, top + down * (height - 0.5), across < 0


def windows(severity: int, count: int = 300) -> np.ndarray:
    image = coordinates()
    return np.array(
        [window(augment(image, severity, np.random.default_rng(seed))) for seed in range(count)]
    )


@pytest.mark.parametrize("severity", perturb.SEVERITIES)
def test_crops_are_as_large_and_as_oblong_as_they_say(severity):
    left, right, top, bottom, _ = windows(severity).T
    across, down = right - left, bottom - top
    tolerance = 0.02  # bytes, and the rim that resampling softens
    assert min(left.min(), top.min()) > -tolerance
    assert max(right.max(), bottom.max()) < 1 + tolerance
    area, aspect = across * down, across / down
    smallest = CROP_SCALE[severity - 1]
    # where a side would be longer than the image's it is cut, which takes at most a quarter
    assert area.min() > 0.75 * smallest - tolerance
    assert area.min() < smallest + 0.1 * (1 - smallest)
    assert area.max() > 0.9
    assert 3 / 4 - tolerance < aspect.min() < 0.85
    assert 1 / 0.85 < aspect.max() < 4 / 3 + tolerance


def test_half_of_the_views_are_mirrored_and_places_are_even():
    left, right, top, bottom, mirrored = windows(5).T
    assert 0.4 < mirrored.mean() < 0.6
    for first, last in ((left, right), (top, bottom)):
        room = 1 - (last - first)
        place = first[room > 0.2] / room[room > 0.2]
        assert abs(place.mean() - 0.5) < 0.07
        assert place.std() == pytest.approx(12**-0.5, abs=0.05)


def test_every_seed_is_another_view_of_the_same_image():
    image = coordinates()
    views = [
        perturb.apply(perturb.resolve(f"augment:3:seed={seed}"), image, "a") for seed in range(10)
    ]
    assert len({view.tobytes() for view in views}) == 10
    again = perturb.apply(perturb.resolve("augment-3-seed4"), image, "a")
    np.testing.assert_array_equal(again, views[4])
    other = perturb.apply(perturb.resolve("augment:3:seed=4"), image, "b")
    assert (other != views[4]).any()


def test_a_flat_image_stays_flat():
    image = np.full((20, 30, 3), 77, np.uint8)
    np.testing.assert_array_equal(augment(image, 5, np.random.default_rng(0)), image)

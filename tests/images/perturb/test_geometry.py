import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from clipsyn.images import perturb
from clipsyn.images.perturb import geometry

LEVEL = range(1, 6)


def coordinates(height=120, width=160):
    """An image whose red is the column and whose green is the row, as shares of 250."""
    y, x = np.mgrid[:height, :width]
    planes = [250 * (x + 0.5) / width, 250 * (y + 0.5) / height, np.zeros((height, width))]
    return np.rint(np.stack(planes, axis=2)).astype(np.uint8)


def window(view):
    """Left, right, top, bottom of the crop as shares of the image, and whether it is mirrored."""
    height, width = view.shape[:2]
    column, row = (np.arange(size) for size in (width, height))
    across, start = np.polyfit(column, view[:, :, 0].mean(axis=0) / 250, 1)
    down, top = np.polyfit(row, view[:, :, 1].mean(axis=1) / 250, 1)
    edges = sorted([start - across / 2, start + across * (width - 0.5)])
    return edges[0], edges[1], top - down / 2, top + down * (height - 0.5), across < 0


def windows(severity, count=300):
    image = coordinates()
    return np.array(
        [
            window(geometry.augment(image, severity, np.random.default_rng(seed)))
            for seed in range(count)
        ]
    )


@pytest.mark.parametrize("severity", perturb.SEVERITIES)
def test_augment_crops_areas_and_aspects_in_its_range(severity):
    left, right, top, bottom, mirrored = windows(severity).T
    across, down = right - left, bottom - top
    tolerance = 0.02  # bytes, and the rim that resampling softens
    assert min(left.min(), top.min()) > -tolerance
    assert max(right.max(), bottom.max()) < 1 + tolerance
    area, aspect = across * down, across / down
    smallest = geometry.CROP_SCALE[severity - 1]
    # where a side would be longer than the image's it is cut, which takes at most a quarter
    assert area.min() > 0.75 * smallest - tolerance
    assert area.min() < smallest + 0.1 * (1 - smallest)
    assert area.max() > 0.9
    assert 0.4 < mirrored.mean() < 0.6
    assert 3 / 4 - tolerance < aspect.min() < 0.85
    assert 1 / 0.85 < aspect.max() < 4 / 3 + tolerance


def noise(height=60, width=80, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 256, (height, width, 3), dtype=np.uint8)


def soft(height=60, width=80):
    return gaussian_filter(noise(height, width).astype(float), (3, 3, 0)).astype(np.uint8)


def sampled(image, down, right, mode):
    """Bilinear values of every channel at places (h, w)."""
    planes = [
        map_coordinates(image[..., c].astype(float), [down, right], order=1, mode=mode)
        for c in range(3)
    ]
    return np.stack(planes, axis=2)


def test_flips_mirror():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    rng = np.random.default_rng(0)
    assert geometry.horizontal_flip(image, 1, rng)[0, :, 0].tolist() == [6, 3, 0]
    assert geometry.vertical_flip(image, 1, rng)[:, 0, 0].tolist() == [9, 0]


@pytest.mark.parametrize(("severity", "degrees"), list(enumerate([5, 10, 20, 30, 45], 1)))
def test_rotation_turns_to_either_side(severity, degrees):
    image = soft()
    y, x = np.mgrid[:60, :80] + 0.5 - np.array([30, 40])[:, None, None]
    taken = set()
    for seed in range(12):
        found = geometry.rotation(image, severity, np.random.default_rng(seed)).astype(float)
        off = {}
        for sign in (-1, 1):
            turn = np.radians(sign * degrees)
            down = y * np.cos(turn) + x * np.sin(turn) + 29.5
            right = x * np.cos(turn) - y * np.sin(turn) + 39.5
            inside = (down > 1) & (down < 58) & (right > 1) & (right < 78)
            outside = (down < -2) | (down > 61) | (right < -2) | (right > 81)
            expected = sampled(image, down, right, "nearest")
            off[sign] = np.abs(found - expected)[inside].mean() + found[outside].mean()
        nearest = min(off, key=off.get)
        assert off[nearest] < 1.5
        taken.add(nearest)
    assert taken == {-1, 1}


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.05, 0.1, 0.15, 0.2, 0.3], 1)))
def test_translation_shifts_along_every_diagonal(severity, share):
    image = noise()
    taken = set()
    for seed in range(30):
        found = geometry.translation(image, severity, np.random.default_rng(seed))
        for down, right in [(a * 60 * share, b * 80 * share) for a in (-1, 1) for b in (-1, 1)]:
            shift = (round(down), round(right))
            expected = np.roll(image, shift, (0, 1))
            for axis, by in enumerate(shift):
                gone = slice(0, by) if by > 0 else slice(by, None)
                np.moveaxis(expected, axis, 0)[gone] = 0
            if (expected == found).all():
                taken.add(shift)
                break
        else:
            pytest.fail("it is none of the four shifts")
    assert len(taken) == 4


@pytest.mark.parametrize(("severity", "side"), list(enumerate([0.9, 0.8, 0.7, 0.6, 0.5], 1)))
def test_crop_keeps_the_aspect_of_the_image(severity, side):
    starts = []
    for seed in range(60):
        left, right, top, bottom, mirrored = window(
            geometry.crop(coordinates(), severity, np.random.default_rng(seed))
        )
        assert right - left == pytest.approx(side, abs=0.02)
        assert bottom - top == pytest.approx(side, abs=0.02)
        assert not mirrored
        assert min(left, top) > -0.02
        assert max(right, bottom) < 1.02
        starts.append((left, top))
    assert np.std(starts, axis=0) == pytest.approx((1 - side) / 12**0.5, rel=0.25)


def test_a_projection_maps_its_points():
    rng = np.random.default_rng(0)
    points, images = rng.uniform(0, 9, (2, 4, 2))
    a, b, c, d, e, f, g, h = geometry.projection(points, images)
    for (x, y), image in zip(points, images, strict=True):
        below = g * x + h * y + 1
        assert [(a * x + b * y + c) / below, (d * x + e * y + f) / below] == pytest.approx(image)


@pytest.mark.parametrize(("severity", "reach"), list(enumerate([0.1, 0.2, 0.3, 0.4, 0.5], 1)))
def test_perspective_moves_corners_inwards(severity, reach):
    image = np.full((100, 140, 3), 255, np.uint8)
    for seed in range(20):
        found = geometry.perspective(image, severity, np.random.default_rng(seed))[..., 0] > 127
        assert found[50, 70]
        moves = np.random.default_rng(seed).uniform(0, reach, (4, 2)) * [70, 50]
        width, height = 140, 100
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
        quad = corners + moves * [[1, 1], [-1, 1], [-1, -1], [1, -1]]
        x, y = quad.T
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        assert found.sum() == pytest.approx(area, rel=0.03)
        assert found[:, : int(min(x)) - 1].sum() == 0 or min(x) < 2


PUBLISHED = [
    (2, 0.7, 0.1),
    (2, 0.08, 0.2),
    (0.05, 0.01, 0.02),
    (0.07, 0.01, 0.02),
    (0.12, 0.01, 0.02),
]


@pytest.mark.parametrize("severity", LEVEL)
@pytest.mark.parametrize("size", [(64, 90), (51, 40)])
def test_elastic_transform_is_an_affine_map_and_smooth_displacements(severity, size):
    """With scipy's functions, and the same draws in the same order."""
    image, rng = soft(*size), np.random.default_rng(severity)
    amplitude, smoothness, reach = (min(size) * 244 / 224 * c for c in PUBLISHED[severity - 1])
    third = min(size) // 3
    centre = np.array([size[1] // 2, size[0] // 2])
    points = centre + np.array([[third, third], [third, -third], [-third, -third]])
    moved = points + rng.uniform(-reach, reach, (3, 2))
    affine = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points)
    y, x = np.mgrid[: size[0], : size[1]]
    right, down = np.moveaxis(np.stack([x, y, np.ones(size)], axis=2) @ affine, 2, 0)
    mapped = sampled(image, down, right, "mirror")
    displaced = []
    for _ in range(2):
        draws = 2 * rng.random(size, np.float32).astype(float) - 1
        displaced.append(amplitude * gaussian_filter(draws, smoothness, truncate=3))
    expected = sampled(mapped, y + displaced[1], x + displaced[0], "mirror")
    found = geometry.elastic_transform(image, severity, np.random.default_rng(severity))
    assert np.abs(found - expected).max() < 0.6


def erased(severity, seed, height=90, width=120):
    """Where a black image is grey afterwards."""
    image = np.zeros((height, width, 3), np.uint8)
    found = geometry.random_erase(image, severity, np.random.default_rng(seed))
    assert set(np.unique(found)) == {0, 127}
    return (found == 127).all(axis=2)


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.1, 0.2, 0.3, 0.4, 0.5], 1)))
def test_random_erase_makes_a_rectangle_of_its_share_grey(severity, share):
    for seed in range(50):
        grey = erased(severity, seed)
        rows, columns = grey.any(axis=1), grey.any(axis=0)
        assert grey.sum() == rows.sum() * columns.sum()
        assert np.diff(np.flatnonzero(rows)).max() == np.diff(np.flatnonzero(columns)).max() == 1
        assert grey.mean() == pytest.approx(share, abs=0.01)
        aspect = (columns.sum() / 120) / (rows.sum() / 90)
        assert 0.48 < aspect < 2.1


@pytest.mark.parametrize(("severity", "tiles"), list(enumerate([2, 3, 4, 6, 8], 1)))
def test_patch_shuffle_permutes_whole_tiles(severity, tiles):
    size = 6
    y, x = np.mgrid[: tiles * size, : tiles * size]
    image = np.stack([y // size * tiles + x // size, y % size, x % size], axis=2).astype(np.uint8)
    found = geometry.patch_shuffle(image, severity, np.random.default_rng(2))
    np.testing.assert_array_equal(found[..., 1:], image[..., 1:])
    grid = found[..., 0].reshape(tiles, size, tiles, size).swapaxes(1, 2).reshape(tiles**2, -1)
    assert (grid == grid[:, :1]).all()
    assert sorted(grid[:, 0]) == list(range(tiles**2))
    assert grid[:, 0].tolist() != list(range(tiles**2))


def test_patch_shuffle_leaves_edges_that_are_no_whole_tile():
    image = np.random.default_rng(0).integers(0, 256, (26, 35, 3), dtype=np.uint8)
    found = geometry.patch_shuffle(image, 5, np.random.default_rng(0))  # tiles of 3 x 4
    np.testing.assert_array_equal(found[[0, -1]], image[[0, -1]])
    np.testing.assert_array_equal(found[:, [0, -1, -2]], image[:, [0, -1, -2]])
    assert (found[1:-1, 1:-2] != image[1:-1, 1:-2]).mean() > 0.8

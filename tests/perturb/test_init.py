"""The contract that every registered perturbation keeps, and the registry around it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clipsyn import perturb
from clipsyn.errors import UnknownName, UsageError
from clipsyn.specs import CLEAN, Perturbation

NAMES = sorted(perturb.REGISTRY)
CASES = [(name, severity) for name in NAMES for severity in perturb.SEVERITIES]


def photo(height: int = 64, width: int = 80, seed: int = 0) -> np.ndarray:
    """Smooth shapes with a little texture: something that blur, noise and JPEG all damage."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    phase = rng.uniform(0, 6, (3, 3))
    waves = [np.sin(x * p[0] + p[1]) * np.cos(y * p[2]) for p in phase]
    image = 128 + 90 * np.stack(waves, axis=2) + rng.normal(0, 4, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def damage(name: str, severity: int) -> float:
    images = [photo(seed=seed) for seed in range(64)]  # many, for those that draw a place
    spec = perturb.resolve(f"{name}:{severity}")
    changed = [perturb.apply(spec, image, str(i)) for i, image in enumerate(images)]
    return float(
        np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(changed, images, strict=True)])
    )


@pytest.mark.parametrize(("name", "severity"), CASES)
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (31, 2), (64, 80)])
def test_shape_and_dtype_are_kept(name, severity, size):
    image = photo(*size)
    before = image.copy()
    result = perturb.apply(perturb.resolve(f"{name}:{severity}"), image, "a")
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    assert result.flags.writeable
    assert not np.shares_memory(result, image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_image_will_do(name):
    image = photo()
    image.flags.writeable = False
    perturb.apply(perturb.resolve(f"{name}:2"), image, "a")


@pytest.mark.parametrize(("name", "severity"), CASES)
def test_the_sample_decides_the_bytes_and_order_does_not(name, severity):
    spec = perturb.resolve(f"{name}:{severity}")
    images = {f"img/{i}.png": photo(seed=i) for i in range(6)}
    forward = {key: perturb.apply(spec, image, key) for key, image in images.items()}
    with ThreadPoolExecutor(3) as pool:
        backward = dict(
            pool.map(lambda key: (key, perturb.apply(spec, images[key], key)), reversed(images))
        )
    for key, result in forward.items():
        np.testing.assert_array_equal(result, backward[key])


@pytest.mark.parametrize("name", NAMES)
def test_damage_grows_with_severity(name):
    curve = [damage(name, severity) for severity in perturb.SEVERITIES]
    assert curve[0] > 0.5
    assert curve == sorted(curve)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", [0, 6, 99])
def test_severities_are_one_to_five(name, severity):
    with pytest.raises(UsageError, match="severities 1 to 5"):
        perturb.resolve(f"{name}:{severity}")


def test_the_random_state_depends_on_every_part_of_the_identity():
    def draw(sample_id: str = "a", **changes) -> float:
        spec = Perturbation(**{"name": "gaussian_noise", "severity": 1, **changes})
        return perturb.random_state(spec, sample_id).standard_normal()

    draws = [draw(), draw("b"), draw(seed=1), draw(severity=2), draw(name="jpeg")]
    assert len(set(draws)) == len(draws)
    assert draw(canvas=64) == draw()  # resolution is no part of the draw
    assert draw("ä/猫 1.png") == draw("ä/猫 1.png")


def test_the_random_state_is_the_documented_one():
    digest = hashlib.sha256(b'[3,"gaussian_noise",2,"x.png"]').digest()
    expected = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    found = perturb.random_state(Perturbation("gaussian_noise", 2, seed=3), "x.png")
    assert found.integers(0, 2**63, 4).tolist() == expected.integers(0, 2**63, 4).tolist()


def test_clean_returns_the_very_image():
    image = photo(900, 700)
    assert perturb.apply(CLEAN, image, "a") is image
    assert perturb.resolve("clean") is CLEAN
    assert perturb.resolve(Perturbation("clean", canvas=64)) is CLEAN


@pytest.mark.parametrize(
    ("size", "canvas", "expected"),
    [
        ((448, 600), 224, (224, 300)),
        ((600, 448), 224, (300, 224)),
        ((224, 500), 224, (224, 500)),
        ((100, 90), 224, (100, 90)),
        ((500, 500), 64, (64, 64)),
        ((225, 9), 1, (25, 1)),
    ],
)
def test_the_canvas_bounds_the_shorter_side(size, canvas, expected):
    spec = perturb.resolve(f"jpeg:1:canvas={canvas}")
    assert perturb.apply(spec, photo(*size), "a").shape == (*expected, 3)


def test_reduction_is_pillows_bicubic():
    from PIL import Image

    image = photo(300, 400)
    expected = Image.fromarray(image).resize((200, 150), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(perturb.reduce_to_canvas(image, 150), np.asarray(expected))


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(UnknownName, match="did you mean gaussian_noise"):
        perturb.resolve("gausian_noise:2")
    with pytest.raises(UnknownName, match="did you mean clean"):
        perturb.resolve("cleen:2")


@pytest.mark.parametrize(
    "spec",
    [
        "jpeg",
        "jpeg:x",
        "clean:3",
        "jpeg:1:canvas=0",
        "jpeg:1:colour=2",
        Perturbation("jpeg", 1, -1),
    ],
)
def test_specs_that_cannot_work_are_refused(spec):
    with pytest.raises(UsageError):
        perturb.resolve(spec)


def test_resolving_fills_the_registered_version(monkeypatch):
    monkeypatch.setattr(perturb, "REGISTRY", dict(perturb.REGISTRY))
    perturb.register("invert", "tests.nowhere:invert", version=7)
    assert perturb.resolve("invert:1").version == 7
    assert perturb.resolve(Perturbation("invert", 1, version=2)).version == 7


def test_names_are_taken_once_and_targets_are_checked():
    with pytest.raises(ValueError, match="registered twice"):
        perturb.register("jpeg", "a:b")
    with pytest.raises(ValueError, match="registered twice"):
        perturb.register("clean", "a:b")
    with pytest.raises(ValueError, match="module:function"):
        perturb.register("mine", "no_colon")


def halve(image, severity, rng):
    return image[: len(image) // 2]


def scribble(image, severity, rng):
    image[:] = 0
    return image


def test_third_party_functions_are_held_to_the_contract(monkeypatch):
    module = type(sys)("third_party")
    module.halve, module.scribble = halve, scribble
    monkeypatch.setitem(sys.modules, "third_party", module)
    monkeypatch.setattr(perturb, "REGISTRY", dict(perturb.REGISTRY))
    for name in ("halve", "scribble"):
        perturb.register(name, f"third_party:{name}")
        with pytest.raises(ValueError):
            perturb.apply(Perturbation(name, 1), photo(), "a")


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))]
)
def test_only_rgb_bytes_are_images(image):
    with pytest.raises(ValueError, match="uint8"):
        perturb.apply(Perturbation("jpeg", 1), image, "a")


def test_the_registry_imports_without_pillow():
    code = (
        "import sys; sys.modules['PIL'] = None; import clipsyn.perturb as p; print(len(p.REGISTRY))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == len(perturb.REGISTRY)

"""The contract that every registered perturbation keeps, and the registry around it."""

import hashlib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np
import pytest

from clipsyn.errors import UnknownName, UsageError
from clipsyn.images import perturb
from clipsyn.names import CLEAN, Perturbation

NAMES = sorted(perturb.INFO)
CASES = [(name, severity) for name in NAMES for severity in (1, 5)]


def photo(height=64, width=80, seed=0):
    """Smooth shapes with a little texture: something that blur, noise and JPEG all damage."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    phase = rng.uniform(0, 6, (3, 3))
    waves = [np.sin(x * p[0] + p[1]) * np.cos(y * p[2]) for p in phase]
    image = 128 + 90 * np.stack(waves, axis=2) + rng.normal(0, 4, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("name", "severity"), CASES)
def test_tiny_grey_images_are_perturbed_too(name, severity):
    """As the decoder gives them: the same level in all three channels."""
    grey = np.repeat(photo(16, 16)[..., :1], 3, axis=2)
    grey[:4] = 250
    spec = perturb.resolve(f"{name}:{severity}")
    results = [perturb.apply(spec, grey, str(i)) for i in range(8)]
    assert all(result.shape == grey.shape for result in results)
    unchanged = name in {"hue", "saturation", "grayscale"} or (name == "saturate" and severity < 4)
    assert all((result == grey).all() for result in results) == unchanged


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


@pytest.mark.parametrize("name", [name for name in NAMES if not perturb.INFO[name].graded])
def test_what_has_one_strength_is_the_same_at_every_severity(name):
    image = photo()
    function = function_of(name)
    results = [function(image, s, np.random.default_rng(0)) for s in perturb.SEVERITIES]
    assert (results[0] != image).any()
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def function_of(name):
    module, function = perturb.INFO[name].target.split(":")
    return getattr(import_module(module), function)


# draw nothing: the image and the severity decide
FIXED = {
    "defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast", "saturate", "pixelate",
    "jpeg", "saturation", "grayscale", "posterise", "solarise", "horizontal_flip", "vertical_flip",
}  # fmt: skip


@pytest.mark.parametrize(("name", "severity"), CASES)
def test_the_generator_alone_decides_what_is_random(name, severity):
    image, function = photo(40, 52), function_of(name)
    np.random.seed(0)  # whatever the global state is
    first = function(image, severity, np.random.default_rng(1))
    np.random.seed(1)
    np.testing.assert_array_equal(function(image, severity, np.random.default_rng(1)), first)
    others = [function(image, severity, np.random.default_rng(seed)) for seed in range(2, 12)]
    assert any((other != first).any() for other in others) == (name not in FIXED)


@pytest.mark.parametrize(("name", "severity"), CASES)
@pytest.mark.parametrize("level", [0, 255])
def test_flat_images_stay_flat_where_nothing_is_drawn_on_them(name, severity, level):
    image = np.full((23, 41, 3), level, np.uint8)
    result = function_of(name)(image, severity, np.random.default_rng(0))
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    if name in FIXED or name in {"glass_blur", "motion_blur", "elastic_transform", "hue", "crop"}:
        assert (result == result[0, 0]).all()


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


def test_resolving_fills_the_registered_version(monkeypatch):
    known(monkeypatch, "invert", "tests.nowhere:invert", version=7)
    assert perturb.resolve("invert:1").version == 7
    assert perturb.resolve(Perturbation("invert", 1, version=2)).version == 7


def known(monkeypatch, name, target, version=1, group=""):
    """For a test, a perturbation as another package would add it."""
    monkeypatch.setitem(perturb.INFO, name, perturb.PerturbationInfo(target, version, "", group))


IMAGENET_C = [
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur",
    "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate",
    "jpeg",
]  # fmt: skip


def labels(*texts):
    return [perturbation.label for perturbation in perturb.expand(texts)]


def test_a_group_is_every_member_at_every_severity():
    assert labels("imagenet-c") == [f"{n}-{s}" for n in IMAGENET_C for s in range(1, 6)]
    assert labels("imagenet-c:3") == [f"{name}-3" for name in IMAGENET_C]
    assert [label for label in labels("geometric") if "vertical" in label] == ["vertical_flip-1"]
    seeded = ["random_erase-2-seed1-canvas64", "patch_shuffle-2-seed1-canvas64"]
    assert labels("occlusion:2:seed=1:canvas=64") == seeded
    assert len(labels("occlusion:seed=1")) == 10


def test_everything_comes_once_and_in_order():
    several = labels("jpeg:3", "clean", "imagenet-c:3", "jpeg-3")
    assert several[:3] == ["jpeg-3", "clean", "gaussian_noise-3"]
    assert len(several) == 16
    assert perturb.expand([]) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("imagnet-c:3", UsageError),
        ("gausian_noise:2", UnknownName),
        ("geometrical", UsageError),
        ("imagenet-c:9", UsageError),
        ("imagenet-c:03", UsageError),
        ("imagenet-c:", UsageError),
        ("imagenet-c:3:colour=2", UsageError),
        ("imagenet-c:3:4", UsageError),
        ("jpeg", UsageError),
        ("jpeg:7", UsageError),
        ("clean:2", UsageError),
    ],
)
def test_what_cannot_be_expanded_is_refused(text, error):
    with pytest.raises(error):
        perturb.expand([text])


def halve(image, severity, rng):
    return image[: len(image) // 2]


def scribble(image, severity, rng):
    image[:] = 0
    return image


def test_third_party_functions_are_held_to_the_contract(monkeypatch):
    module = type(sys)("third_party")
    module.halve, module.scribble = halve, scribble
    monkeypatch.setitem(sys.modules, "third_party", module)
    for name in ("halve", "scribble"):
        known(monkeypatch, name, f"third_party:{name}")
        with pytest.raises(ValueError):
            perturb.apply(Perturbation(name, 1), photo(), "a")


def test_first_calls_do_not_overlap(monkeypatch):
    """They import, and scipy's modules do not stand being imported by several threads at once."""
    module, running, overlaps = type(sys)("third_party"), [], []
    meeting = threading.Barrier(1)

    def slowly(image, severity, rng):
        running.append(1)
        overlaps.append(len(running))
        time.sleep(0.01)
        meeting.wait()
        running.pop()
        return image.copy()

    monkeypatch.setitem(sys.modules, "third_party", module)
    names = ["slow_a", "slow_b", "slow_c", "slow_d"]
    for name in names:
        setattr(module, name, slowly)
        known(monkeypatch, name, f"third_party:{name}")
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda n: perturb.apply(Perturbation(n, 1), photo(), "a"), names))
        assert max(overlaps) == 1
        meeting = threading.Barrier(2, timeout=60)  # later calls do: each waits for another one
        list(pool.map(lambda n: perturb.apply(Perturbation(n, 1), photo(), "a"), names * 3))
    assert max(overlaps) > 1

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.perturb.noise import gaussian_noise


@pytest.mark.parametrize(
    ("severity", "sigma"), [(1, 0.08), (2, 0.12), (3, 0.18), (4, 0.26), (5, 0.38)]
)
def test_the_noise_has_imagenet_cs_strength_and_no_bias(severity, sigma):
    grey = np.full((400, 400, 3), 127, np.uint8)
    noise = gaussian_noise(grey, severity, np.random.default_rng(0)).astype(float) - 127
    clipped = np.clip(np.random.default_rng(1).normal(0, 255 * sigma, 500_000), -127, 128)
    assert noise.std() == pytest.approx(clipped.std(), rel=0.01)
    assert abs(noise.mean() - clipped.mean()) < 0.4


def test_channels_and_pixels_get_noise_of_their_own():
    grey = np.full((200, 200, 3), 127, np.uint8)
    noise = gaussian_noise(grey, 1, np.random.default_rng(0)).astype(float) - 127
    columns = noise.reshape(-1, 3).T
    assert np.abs(np.corrcoef(columns)[np.triu_indices(3, 1)]).max() < 0.02
    assert abs(np.corrcoef(columns[0][:-1], columns[0][1:])[0, 1]) < 0.02


def test_different_samples_get_different_noise():
    grey = np.full((8, 8, 3), 127, np.uint8)
    first, second = (gaussian_noise(grey, 3, np.random.default_rng(seed)) for seed in (0, 1))
    assert (first != second).mean() > 0.9

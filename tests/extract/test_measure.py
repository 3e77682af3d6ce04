"""The cost of an image tower, and the time of a batch."""

import time

import pytest
import torch

from clipsyn.extract.device import measure_gflops, timed


def test_one_linear_layer_by_hand():
    tower = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 10 * 20, 50))
    before = torch.backends.mha.get_fastpath_enabled()
    assert measure_gflops(tower, (10, 20)) == pytest.approx(2 * 600 * 50 / 1e9, abs=1e-4)
    assert torch.backends.mha.get_fastpath_enabled() == before
    assert tower[1].weight.device.type == "cpu"


def test_a_tower_that_looks_at_its_values_has_no_count():
    class Peeking(torch.nn.Module):
        def forward(self, image):
            return image * float(image.sum())

    assert measure_gflops(Peeking(), 4) is None


def test_timed_measures_the_call_alone():
    start = time.perf_counter()
    result, seconds = timed(lambda: time.sleep(0.02) or 7, "cpu")
    assert result == 7
    assert 0.02 <= seconds() <= time.perf_counter() - start
    before = seconds()
    time.sleep(0.02)
    assert seconds() == before

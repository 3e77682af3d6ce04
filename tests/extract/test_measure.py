"""Measured cost against published numbers; the time of a batch."""

from __future__ import annotations

import time

import open_clip
import pytest
import torch

from clipsyn.catalog.backbones import cost, known_backbones
from clipsyn.extract.device import measure_cost, measure_gflops, timed
from clipsyn.names import Backbone


@pytest.mark.parametrize("name", ["RN50/openai", "ViT-B-32/openai", "ViT-L-14-336/openai"])
def test_the_catalogue_agrees_with_open_clips_models(name: str) -> None:
    architecture = name.partition("/")[0]
    with torch.device("meta"):
        model = open_clip.create_model(architecture, device="meta", load_weights=False)
    facts = cost(name)
    assert facts is not None
    config = open_clip.get_model_config(architecture)
    assert facts.image_size == config["vision_cfg"]["image_size"]
    assert facts.embed_dim == config["embed_dim"]
    measured = measure_cost(model, facts.image_size)
    for field in ("image_params_m", "text_params_m"):
        assert measured[field] == pytest.approx(getattr(facts, field), abs=0.006)
    for field in ("image_gflops", "text_gflops"):
        assert measured[field] == pytest.approx(getattr(facts, field), rel=5e-3)


@pytest.mark.parametrize("backbone", known_backbones()["zoo"], ids=lambda backbone: backbone.name)
def test_the_shipped_zoo_says_what_it_costs(backbone: Backbone) -> None:
    model, _, _ = open_clip.create_model_and_transforms(backbone.source)
    facts = cost(backbone.name)
    assert facts is not None
    assert model.visual.image_size in {facts.image_size, (facts.image_size,) * 2}
    for field, value in measure_cost(model, facts.image_size).items():
        assert value == pytest.approx(getattr(facts, field), rel=1e-3), field


def test_one_linear_layer_by_hand() -> None:
    tower = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 10 * 20, 50))
    before = torch.backends.mha.get_fastpath_enabled()
    assert measure_gflops(tower, (10, 20)) == pytest.approx(2 * 600 * 50 / 1e9, abs=1e-4)
    assert torch.backends.mha.get_fastpath_enabled() == before
    assert tower[1].weight.device.type == "cpu"


def test_a_tower_that_looks_at_its_values_has_no_count() -> None:
    class Peeking(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * float(image.sum())

    assert measure_gflops(Peeking(), 4) is None


def test_seconds() -> None:
    start = time.perf_counter()
    result, seconds = timed(lambda: time.sleep(0.02) or 7, "cpu")
    assert result == 7
    assert 0.02 <= seconds() <= time.perf_counter() - start
    before = seconds()
    time.sleep(0.02)
    assert seconds() == before

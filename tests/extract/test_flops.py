"""Measured cost against OpenCLIP's published numbers."""

from __future__ import annotations

import open_clip
import pytest
import torch

from clipsyn.catalog.backbones import cost, known_backbones
from clipsyn.extract.flops import measure_gflops

OPENAI = [backbone.name for backbone in known_backbones()["openai"]]


@pytest.mark.parametrize("name", OPENAI)
def test_the_catalogue_agrees_with_open_clips_models(name: str) -> None:
    architecture = name.partition("/")[0]
    with torch.device("meta"):
        model = open_clip.create_model(architecture, device="meta", load_weights=False)
    facts = cost(name)
    assert facts is not None
    config = open_clip.get_model_config(architecture)
    assert facts.image_size == config["vision_cfg"]["image_size"]
    assert facts.embed_dim == config["embed_dim"]
    image = sum(p.numel() for p in model.visual.parameters())
    assert facts.image_params_m == pytest.approx(image / 1e6, abs=0.006)
    text = sum(p.numel() for p in model.parameters()) - image
    assert facts.text_params_m == pytest.approx(text / 1e6, abs=0.006)
    assert measure_gflops(model.visual, facts.image_size) == pytest.approx(
        facts.image_gflops, rel=5e-3
    )


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

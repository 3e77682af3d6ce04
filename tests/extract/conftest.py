"""Tiny CLIPs of every kind of tower, random weights, as the files users would have."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipsyn.extract.encoder import load_encoder
from clipsyn.names import Backbone

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": TEXT,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "clipsyn-vit": VIT,
    "clipsyn-vit-quickgelu": {**VIT, "quick_gelu": True},
    "clipsyn-vit-wide": {**VIT, "vision_cfg": {**VIT["vision_cfg"], "width": 128}},
    "clipsyn-vit-48": {**VIT, "vision_cfg": {**VIT["vision_cfg"], "image_size": 48}},
    "clipsyn-rn": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": TEXT,
    },
    "clipsyn-timm": {
        "embed_dim": 32,
        "vision_cfg": {
            "timm_model_name": "resnet10t",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 64,
        },
        "text_cfg": TEXT,
    },
    "clipsyn-custom-text": {**VIT, "custom_text": True},
    "clipsyn-eos": {
        **VIT,
        "custom_text": True,
        "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 49407},
    },
    "clipsyn-bidirectional": {**VIT, "text_cfg": {**TEXT, "no_causal_mask": True}},
}


@dataclass(frozen=True)
class SavedModel:
    """A model in memory and on disk: `pt` alone, and `folder` as local-dir: takes it."""

    architecture: str
    config: dict[str, Any]
    model: Any
    pt: Path
    folder: Path

    @property
    def by_file(self):
        return f"{self.architecture}@{self.pt}"

    @property
    def by_folder(self):
        return f"local-dir:{self.folder}"


def save_folder(folder, config, state, **preprocess):
    """An open_clip checkpoint folder with those weights as safetensors."""
    folder.mkdir()
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


def pictures():
    rng = np.random.default_rng(0)
    sizes = (64, 64), (200, 97), (33, 120)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]


def embed(encoder, images=None):
    pixels = np.stack([encoder.preprocess(picture) for picture in images or pictures()])
    return encoder.to_host([encoder.encode_images(pixels)])


def load(source, **options):
    return load_encoder(Backbone.parse(source), device="cpu", **options)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Function from the name of a test architecture to its SavedModel, made once."""
    root = tmp_path_factory.mktemp("models")
    configs = root / "configs"
    configs.mkdir()
    for name, config in CONFIGS.items():
        (configs / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(configs)
    made: dict[str, SavedModel] = {}

    def make(architecture):
        if architecture not in made:
            torch.manual_seed(len(architecture))
            model = open_clip.create_model(architecture).eval()
            state = model.state_dict()
            pt = root / f"{architecture}.pt"
            torch.save(state, pt)
            folder = save_folder(root / architecture, CONFIGS[architecture], state)
            made[architecture] = SavedModel(architecture, CONFIGS[architecture], model, pt, folder)
        return made[architecture]

    return make


@pytest.fixture
def write_folder(tmp_path):
    """Function (name, config, state dict, **preprocess) -> backbone source of the new folder."""

    def write(name, *content, **preprocess):
        return f"local-dir:{save_folder(tmp_path / name, *content, **preprocess)}"

    return write

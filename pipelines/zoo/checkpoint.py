"""Model configs, and checkpoints that open_clip loads as `local-dir:PATH`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn

from clipsyn.extract.device import gflops_of, measure_gflops

MODELS = Path(__file__).parent / "models"
TOKENS = "token_embedding.weight"


@dataclass(frozen=True)
class Plan:
    """Steps and learning rate of one model's training."""

    seed: int
    steps: int
    learning_rate: float
    weight_decay: float
    autocast: bool  # bfloat16 in the image tower: quicker for some towers, slower for others


def names() -> list[str]:
    """The models that have a config, sorted."""
    return sorted(path.stem for path in MODELS.glob("*.json"))


def read_config(name: str) -> tuple[dict[str, Any], Plan]:
    """open_clip's model config and the training plan of one model."""
    config = json.loads((MODELS / f"{name}.json").read_text("utf-8"))
    return config["model_cfg"], Plan(**config["training"])


def tokenizer(model_cfg: Mapping[str, Any]) -> open_clip.SimpleTokenizer:
    """CLIP's own tokenizer, cut to the model's context."""
    return open_clip.SimpleTokenizer(context_length=model_cfg["text_cfg"]["context_length"])


class Vocabulary:
    """The tokens that captions use, numbered without gaps.

    Training a table of these rows instead of all 49,408 saves memory and time; the rest of the
    table stays zero and so compresses to nothing. The numbering keeps the order, because CLIP pools
    at the largest token.
    """

    def __init__(self, tokens: Tensor) -> None:
        self.used = torch.unique(tokens)

    def compact(self, tokens: Tensor) -> Tensor:
        """Token ids to row numbers."""
        return torch.searchsorted(self.used, tokens)

    def shrink(self, model: CLIP) -> None:
        """Replace the model's token table by one of the used rows."""
        table = nn.Embedding(len(self.used), model.token_embedding.weight.shape[1])
        nn.init.normal_(table.weight, std=0.02)
        model.token_embedding = table

    def expand(self, table: Tensor, vocab_size: int) -> Tensor:
        """The whole table; rows that no caption uses are zero."""
        whole = table.new_zeros(vocab_size, table.shape[1])
        whole[self.used] = table
        return whole


def measure_cost(model: Any, size: int | tuple[int, int]) -> dict[str, float | None]:
    """The fields of `BackboneCost` that must be measured, for one image and one full-length text.

    This is the `cost` of a shipped backbone's open_clip_config.json.
    """
    image = sum(p.numel() for p in model.visual.parameters())
    both = sum(p.numel() for p in model.parameters())
    tokens = torch.zeros(1, model.context_length, dtype=torch.long, device="meta")
    return {
        "image_params_m": round(image / 1e6, 4),
        "text_params_m": round((both - image) / 1e6, 4),
        "image_gflops": measure_gflops(model.visual, size),
        "text_gflops": gflops_of(model, None, tokens),
    }


def save(
    folder: Path,
    model: nn.Module,
    vocabulary: Vocabulary,
    model_cfg: Mapping[str, Any],
    normalisation: tuple[list[float], list[float]],
) -> None:
    """Write open_clip_config.json and the weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    state = dict(model.state_dict())
    state[TOKENS] = vocabulary.expand(state[TOKENS], model_cfg["text_cfg"]["vocab_size"])
    halves = {
        key: value.half().contiguous() if value.is_floating_point() else value
        for key, value in state.items()
    }
    save_file(halves, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    preprocess = {
        "size": model_cfg["vision_cfg"]["image_size"],
        "mode": "RGB",
        "mean": normalisation[0],
        "std": normalisation[1],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    with torch.device("meta"):
        cost = measure_cost(CLIP(**model_cfg), model_cfg["vision_cfg"]["image_size"])
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess, "cost": cost}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")

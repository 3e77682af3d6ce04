"""Models of Hugging Face's transformers that are on this machine: CLIP, SigLIP, DINO, AIMv2.

No code of a repository is run. What stands between a text and its tokens is part of the identity:
the models were trained with one way of padding and cleaning, and answer others worse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import canonicalize_text
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, PretrainedConfig
from transformers.utils import logging

from clipsyn.errors import CheckpointError
from clipsyn.extract.device import measure_gflops
from clipsyn.extract.encoder import Found, Model, is_convolutional
from clipsyn.extract.weights import is_cached, making, weights_digest
from clipsyn.names import Backbone, Identity, fingerprint

_CLEANING = {"lower": str.lower, "canonicalize": canonicalize_text, None: str}
_LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
_TWO_TOWERS = ("clip", "siglip", "aimv2")
_OF_IMAGES = (
    *("dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext"),
    *("clip_vision_model", "siglip_vision_model", "aimv2_vision_model"),
)
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_GEOMETRY = (
    *("image_processor_type", "do_resize", "size", "resample", "do_center_crop", "crop_size"),
    "do_convert_rgb",
)
_OF_WRITER = (  # what a configuration says of who wrote it
    *("transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path"),
    "_commit_hash",
)


def find(backbone: Backbone) -> Found:
    """What is known without loading weights."""
    place = _place(backbone)
    if not (_is_here(place, "config.json") and _is_here(place, *_WEIGHTS)):
        return Found(None, None, is_here=False)
    config = _config(backbone, place)
    width = getattr(getattr(config, "vision_config", config), "hidden_size", None)
    return Found(getattr(config, "projection_dim", width), None, is_here=True)


def load(backbone: Backbone, device: torch.device) -> Model:
    """A model of a folder or of the hub's cache, which `hf download` fills.

    Raises CheckpointError where it is not there, or is no model of the known kinds.
    """
    place = _place(backbone)
    config = _config(backbone, place)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with making(backbone, place):
        model, loaded = AutoModel.from_pretrained(
            place, torch_dtype=torch.float32, output_loading_info=True, **_LOCAL
        )
        said, _ = PretrainedConfig.get_config_dict(place, **_LOCAL)
        processors: Any = AutoImageProcessor
        processor = processors.from_pretrained(place, use_fast=False, **_LOCAL)
        texts = _Texts(model, place, device) if config.model_type in _TWO_TOWERS else None
    if lacking := sorted(loaded["missing_keys"]):
        raise CheckpointError(f"the weights of {backbone.source} lack {lacking[0]}")
    model.eval()
    preprocess, geometry = _preprocessing(backbone, processor)
    visual = _Images(model.to(device))
    return Model(
        visual=visual,
        identity={
            "model": {name: it for name, it in said.items() if name not in _OF_WRITER},
            "weights": weights_digest(model),
            "preprocess": preprocess,
            **({"text": texts.identity} if texts else {}),
        },
        geometry=geometry,
        normalize=(preprocess["mean"], preprocess["std"]),
        texts=texts,
        logit_scale=_scale(model) if texts else 1.0,
        gflops=measure_gflops(visual, geometry(Image.new("RGB", (64, 64))).shape[:2]),
        is_convolutional=is_convolutional(visual),
        provenance={"transformers": version("transformers")},
    )


def _place(backbone: Backbone) -> str:
    """An absolute path, or ORG/NAME."""
    place = backbone.source.removeprefix("hf:")
    folder = Path(place).expanduser()
    return str(folder.resolve()) if folder.is_dir() or place.startswith(("/", ".", "~")) else place


def _is_here(place: str, *names: str) -> bool:
    if Path(place).is_absolute():
        return any((Path(place) / name).is_file() for name in names)
    return is_cached(place, names)


def _config(backbone: Backbone, place: str) -> Any:
    if not _is_here(place, "config.json"):
        raise CheckpointError(
            f"{backbone.source} is no folder with config.json, and not in the cache: run `hf "
            f"download {place}` where there is a network, then copy its cache here"
        )
    with making(backbone, place):
        config = AutoConfig.from_pretrained(place, **_LOCAL)
    if config.model_type not in (known := (*_TWO_TOWERS, *_OF_IMAGES)):
        raise CheckpointError(
            f"{backbone.source} is of kind {config.model_type}, not of {', '.join(known)}"
        )
    return config


def _scale(model: Any) -> float:
    scale = float(model.logit_scale.detach().exp())
    return min(scale, getattr(model.config, "max_logit_scale", scale))


def _preprocessing(
    backbone: Backbone, processor: Any
) -> tuple[dict[str, Any], Callable[[Image.Image], NDArray[np.uint8]]]:
    """transformers' settings as JSON, and its resizing and cropping, by PIL as in training."""
    said = processor.to_dict()
    if not said.get("do_rescale", True) or round(1 / said.get("rescale_factor", 1 / 255)) != 255:
        raise CheckpointError(f"{backbone.source} does not scale bytes by 1/255, which it must")
    normalizes = said.get("do_normalize", True)
    settings = {
        **{name: said.get(name) for name in _GEOMETRY},
        "mean": list(said["image_mean"]) if normalizes else [0.0] * 3,
        "std": list(said["image_std"]) if normalizes else [1.0] * 3,
    }

    def geometry(image: Image.Image) -> NDArray[np.uint8]:
        given = processor(images=image, do_rescale=False, do_normalize=False, return_tensors="np")
        pixels: NDArray[np.uint8] = given["pixel_values"][0].transpose(1, 2, 0)
        return np.ascontiguousarray(pixels)

    return settings, geometry


class _Images(torch.nn.Module):
    """The image tower, with its projection where there is one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = getattr(model, "vision_model", model)
        self.projection = getattr(model, "visual_projection", torch.nn.Identity())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self.tower(pixel_values=images)
        if output.pooler_output is None:
            return output.last_hidden_state.mean(dim=1)  # type: ignore[no-any-return]
        return self.projection(output.pooler_output)  # type: ignore[no-any-return]


class _Texts:
    """A text tower with its tokenizer.

    SigLIP was trained on texts in lower case, the first one without punctuation, padded to a
    length that it sees. The others are causal: what follows the end token changes nothing.
    """

    def __init__(self, model: Any, place: str, device: torch.device) -> None:
        self._model, self._device = model, device
        self._tokenizer = AutoTokenizer.from_pretrained(place, **_LOCAL)
        self._pads = model.config.model_type == "siglip"
        second = any(it in type(self._tokenizer).__name__ for it in ("Gemma", "Siglip2"))
        self.identity: Identity = {
            "length": model.config.text_config.max_position_embeddings,
            "clean": ("lower" if second else "canonicalize") if self._pads else None,
            "padded": self._pads,
            "vocabulary": fingerprint(self._tokenizer.get_vocab()),
        }

    def read(self, texts: list[str]) -> tuple[list[torch.Tensor], torch.Tensor]:
        clean: Any = _CLEANING[self.identity["clean"]]
        padding = "max_length" if self._pads else False
        read = self._tokenizer(
            [*map(clean, texts)],
            padding=padding,
            max_length=self.identity["length"],
            truncation=True,
        )
        rows = [torch.tensor(row) for row in read["input_ids"]]
        return rows, torch.tensor([len(row) for row in rows])

    def encode(self, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        pad = self._tokenizer.pad_token_id or 0
        tokens = torch.nn.utils.rnn.pad_sequence([*texts], batch_first=True, padding_value=pad)
        lengths = torch.tensor([[len(text)] for text in texts])
        mask = (torch.arange(tokens.shape[1]) < lengths).to(self._device)
        asked = {} if self._pads else {"attention_mask": mask.long()}
        output = self._model.get_text_features(input_ids=tokens.to(self._device), **asked)
        rows = output if isinstance(output, torch.Tensor) else output.pooler_output
        return torch.nn.functional.normalize(rows, dim=-1)

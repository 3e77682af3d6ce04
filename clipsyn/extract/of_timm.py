"""Networks of timm: their features before the head, or the head's own logits as embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform

from clipsyn.errors import CheckpointError
from clipsyn.extract.device import measure_gflops
from clipsyn.extract.encoder import Found, Model, is_convolutional, split_transform
from clipsyn.extract.weights import downloading, is_cached, making, weights_digest
from clipsyn.names import Backbone
from clipsyn.registry import unknown_name

RADIUS = 1000.0  # longer than any logits: even those of 20,000 classes are about 500 long
_FILES = ("model.safetensors", "pytorch_model.bin")


def find(backbone: Backbone) -> Found:
    """What is known without loading or downloading weights."""
    name, wants_logits, file = _asked(backbone)
    with torch.device("meta"):
        network: Any = timm.create_model(name, num_classes=0)
    gflops = measure_gflops(network, _config(network)["input_size"][1:])
    is_here = file.is_file() if file else _is_here(timm.get_pretrained_cfg(name))
    return Found(None if wants_logits else network.num_features, gflops, is_here)


def _asked(backbone: Backbone) -> tuple[str, bool, Path | None]:
    """ARCHITECTURE[.TAG], whether its logits are wanted, and a file of weights."""
    model, _, file = backbone.source.removeprefix("timm:").partition("@")
    name = model.removesuffix(":logits")
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise unknown_name("network of timm", architecture, timm.list_models())
    tags = timm.list_models(f"{architecture}.*", pretrained=True)
    if name not in (architecture, *tags):
        raise unknown_name(f"weights of timm's {architecture}", name, tags)
    return name, name != model, Path(file).expanduser() if file else None


def load(backbone: Backbone, device: torch.device) -> Model:
    """A network without a text tower.

    Logits z are kept as the unit vector (z, rest) / RADIUS, of which the classes' unit vectors
    and RADIUS as their scale make z again. Raises UnknownName for a network or its weights,
    CheckpointError for a file that is missing, does not fit or has no classifier.
    """
    name, wants_logits, file = _asked(backbone)
    with making(backbone, file or name):
        network = _of_file(name, file) if file else _pretrained(backbone, name)
        config = _config(network)
        geometry, normalize = split_transform(create_transform(**config, is_training=False))
    count = network.num_classes if wants_logits else 0
    if wants_logits and not count:
        raise CheckpointError(f"{backbone.source} has no classifier: leave ':logits' away")
    if not wants_logits:
        network.reset_classifier(0)
    return Model(
        visual=(_Logits(network) if wants_logits else network).eval().to(device),
        identity={
            "model": {"timm": name.partition(".")[0], "logits": wants_logits},
            "weights": weights_digest(network),
            "preprocess": config,
        },
        geometry=geometry,
        normalize=(normalize.mean.tolist(), normalize.std.tolist()),
        classes=np.eye(count, count + 1, dtype=np.float32) if wants_logits else None,
        logit_scale=RADIUS,
        gflops=measure_gflops(network, config["input_size"][1:]),
        is_convolutional=is_convolutional(network),
    )


def _config(network: Any) -> dict[str, Any]:
    """timm's settings of the evaluation transform as JSON."""
    config: dict[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    return {name: list(it) if isinstance(it, tuple) else it for name, it in config.items()}


def _of_file(name: str, path: Path) -> Any:
    """The network with the tensors of a file, and as many outputs as its classifier has there."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file at {path}")
    tensors = timm.models.load_state_dict(str(path), weights_only=True)
    classifier = timm.get_pretrained_cfg_value(name, "classifier") or ""
    first = classifier if isinstance(classifier, str) else classifier[0]
    head = tensors.get(f"{first}.weight")
    network = timm.create_model(name, num_classes=0 if head is None else len(head))
    network.load_state_dict(tensors)
    return network


def _pretrained(backbone: Backbone, name: str) -> Any:
    config: Any = timm.get_pretrained_cfg(name)
    if not (config and config.has_weights):
        raise CheckpointError(f"timm has no weights of {name}: give a file, @CHECKPOINT")
    probed = _FILES[0] if config.hf_hub_id and not _is_here(config) else None
    with downloading(backbone.source, config.hf_hub_id or config.url, probed):
        return timm.create_model(name, pretrained=True)


def _is_here(config: Any) -> bool:
    files = filter(None, (*_FILES, config.hf_hub_filename)) if config else ()
    return bool(config and config.hf_hub_id) and is_cached(config.hf_hub_id, files)


class _Logits(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.network(images).float() / RADIUS
        rest = (1 - logits.square().sum(dim=1, keepdim=True)).sqrt()
        return torch.cat([logits, rest], dim=1)

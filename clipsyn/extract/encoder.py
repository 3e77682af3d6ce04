"""A loaded CLIP: pixels or texts in, unit-norm embeddings out.

Weights come through open_clip (`extract.models`). This module splits preprocessing, so that
encoders share the costly part, and puts everything that decides an embedding into `identity`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from clipsyn.catalog.backbones import cost
from clipsyn.errors import CheckpointError, UsageError
from clipsyn.extract.checkpoint import weights_digest
from clipsyn.extract.measure import measure_gflops
from clipsyn.extract.models import ModelSource, build, locate, quiet_open_clip
from clipsyn.extract.text import TextTower
from clipsyn.images.decode import UndecodableImage
from clipsyn.methods.numerics.logits import is_scale
from clipsyn.names import Backbone, Identity, canonical_json
from clipsyn.text import one_line

PRECISIONS = ("fp32", "bf16", "amp_bf16", "amp_fp16")


def load_encoder(backbone: Backbone, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """Load a backbone's weights, check them and put them on a device.

    device     "auto" is a CUDA GPU if there is one, else the CPU; or "cpu", "cuda", "cuda:1",
               "mps".
    precision  of the image tower. "auto" is fp32 on the CPU and autocast on a CUDA GPU, to bf16
               where the GPU has it, else to fp16. "amp_bf16" and "amp_fp16" autocast; "bf16"
               casts the image tower's weights, which on a CPU is twice as fast for ViTs, where
               autocast gains nothing. Texts are always encoded in fp32.

    Raises UsageError for a device or precision that is not available, UnknownName for an
    architecture or tag, CheckpointError for weights that cannot be used.
    """
    target = resolve_device(device)
    resolved = resolve_precision(precision, target)
    source = locate(backbone)
    model = build(backbone, source)
    with quiet_open_clip():
        tokenizer = _tokenizer(backbone, source)
    return Encoder(backbone, source, model, tokenizer, device=target, precision=resolved)


def _tokenizer(backbone: Backbone, source: ModelSource) -> Any:
    try:
        return open_clip.get_tokenizer(source.model_name)
    except Exception as error:  # of open_clip or transformers
        reason = one_line(error)[:200]
        raise CheckpointError(f"'{backbone.name}' has no tokenizer here: {reason}") from error


def resolve_device(name: str) -> torch.device:
    """The torch device of that name; raises UsageError if this machine does not have it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"unknown device '{name}': write auto, cpu, cuda, cuda:N or mps"
        ) from error
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= count:
        raise UsageError(f"device '{name}' is not to be had here: use device=auto or cpu")
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """One of PRECISIONS; raises UsageError for any other name."""
    if name == "auto":
        if device.type != "cuda":
            return "fp32"
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "amp_bf16" if native else "amp_fp16"
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision '{name}': write auto, {', '.join(PRECISIONS)}")
    return name


def split_transform(config: PreprocessCfg) -> tuple[Compose, Normalize]:
    """open_clip's evaluation transform as (resize, crop, to RGB) and the normalisation after it.

    Raises CheckpointError if it does not end in ToTensor and Normalize.
    """
    steps = image_transform_v2(config, is_train=False).transforms
    if not (isinstance(steps[-1], Normalize) and isinstance(steps[-2], ToTensor)):
        names = ", ".join(type(step).__name__ for step in steps)
        raise CheckpointError(
            f"this open_clip's preprocessing ({names}) does not end in ToTensor and Normalize: "
            "install open_clip_torch 3.3"
        )
    return Compose(steps[:-2]), steps[-1]


class Encoder:
    """A CLIP of open_clip on a device.

    `identity` is everything that decides an embedding: JSON values, no path, no version.
    `provenance` is recorded, not compared. `logit_scale` is what cosines are multiplied by, the
    exponential of the trained parameter. Encoders of one `preprocess_key` share preprocessed
    pixels. `gflops` are of the image tower for an image, 2 FLOPs per multiply-add, None where they
    cannot be measured.
    """

    def __init__(
        self,
        backbone: Backbone,
        source: ModelSource,
        model: Any,
        tokenizer: Callable[[list[str]], torch.Tensor],
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        config = PreprocessCfg(**model.visual.preprocess_cfg)
        self.backbone = backbone
        self.identity = _identity(source, model, config, precision)
        self.gflops = _gflops(source, model, config)
        self.provenance = _provenance(backbone, model, device, self.gflops)
        self.embed_dim = int(source.config["embed_dim"])
        self.logit_scale = _logit_scale(backbone, model)
        steps = self.identity["preprocess"].items()  # normalisation apart
        self.preprocess_key = canonical_json({k: v for k, v in steps if k not in {"mean", "std"}})
        self._geometry, normalize = split_transform(config)
        self.device = device
        self._precision = precision
        self._convolutional = not hasattr(model.visual, "transformer")
        self._visual = self._placed(model.visual)
        self.provenance["image_weights_mb"] = _megabytes(self._visual)
        self._mean = _per_channel(normalize.mean, device)
        self._std = _per_channel(normalize.std, device)
        self._white = torch.tensor(255.0, device=device)
        self._text = TextTower(model.to(device), tokenizer, device)

    def _placed(self, visual: torch.nn.Module) -> torch.nn.Module:
        if self._precision == "bf16":
            visual = visual.bfloat16()
        if self._convolutional:  # on a CPU 10 % faster in float32, 30 % in bf16 (RN50)
            visual = visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return visual.to(self.device)

    def preprocess(self, image: Image.Image) -> NDArray[np.uint8]:
        """open_clip's own resize, crop and conversion to RGB: (height, width, 3).

        Raises UndecodableImage for images so narrow that no pixel would be left.
        """
        try:
            return np.asarray(self._geometry(image))
        except ValueError as error:
            size = f"{image.width} x {image.height}"
            raise UndecodableImage(f"{size} pixels cannot be resized: {error}") from error

    def normalised(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """(n, height, width, 3) bytes -> (n, 3, height, width) float32 on the device.

        The same numbers, to the bit, as open_clip's ToTensor and Normalize give image by image.
        """
        host = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        if self.device.type == "cuda":
            host = host.pin_memory()
        batch = host.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        # By a tensor: CUDA turns division by a number into a product, one bit off.
        return batch.div_(self._white).sub_(self._mean).div_(self._std)

    def encode_images(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """(n, height, width, 3) -> (n, embed) float16, unit norm, on the device, not waited for."""
        with torch.inference_mode(), self._compute():
            batch = self.normalised(pixels)
            if not self._convolutional:
                batch = batch.contiguous()
            if self._precision == "bf16":
                batch = batch.bfloat16()
            embedding: torch.Tensor = self._visual(batch)
        with torch.inference_mode():
            embedding = embedding.float()
            embedding /= embedding.norm(dim=-1, keepdim=True)  # of 0: NaN, which `to_host` refuses
            return embedding.half()

    def _compute(self) -> AbstractContextManager[Any]:
        if self._precision.startswith("amp_"):
            dtype = torch.bfloat16 if self._precision == "amp_bf16" else torch.float16
            return torch.autocast(self.device.type, dtype)
        if self.device.type == "cuda" and self._precision == "fp32":
            # torch lets convolutions round to TF32 unless told otherwise
            return torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=False, allow_tf32=False
            )
        return nullcontext()

    def to_host(self, parts: Sequence[torch.Tensor]) -> NDArray[np.float16]:
        """Concatenate what `encode_images` returned, waiting for it: (n, embed).

        Raises CheckpointError if a value is not finite.
        """
        if not parts:
            return np.empty((0, self.embed_dim), np.float16)
        joined = torch.cat(list(parts))
        bad = int((~torch.isfinite(joined)).any(dim=1).sum())
        if bad:
            raise CheckpointError(
                f"'{self.backbone.name}' gives NaN or Inf for {bad} of {len(joined)} images in "
                f"precision {self._precision}: try precision=fp32"
            )
        host: NDArray[np.float16] = joined.cpu().numpy()
        return host

    def text_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,): how many positions decide each text's embedding."""
        return self._text.lengths(texts)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, embed), unit norm, computed in float32 whatever the precision of the image tower."""
        return self._text.encode(texts)


def _logit_scale(backbone: Backbone, model: Any) -> float:
    scale = float(model.logit_scale.detach().exp())
    if not is_scale(scale):
        raise CheckpointError(
            f"the logit scale of '{backbone.name}' is {scale:g}, which gives no usable logits: "
            "fetch or train the checkpoint again"
        )
    return scale


def _per_channel(values: Sequence[float], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)


def _identity(source: ModelSource, model: Any, config: PreprocessCfg, precision: str) -> Identity:
    """The model's configuration and weights; for ARCHITECTURE/TAG its names too."""
    return {
        "architecture": source.architecture if source.tag else None,
        "pretrained": source.tag,
        "model": {**source.config, "quick_gelu": source.quick_gelu},
        "weights": weights_digest(model),
        "precision": precision,
        "preprocess": _resolved(config),
    }


def _resolved(config: PreprocessCfg) -> dict[str, Any]:
    """open_clip's preprocessing as JSON; one size or two, as towers spell it, mean the same."""
    size = [config.size] * 2 if isinstance(config.size, int) else list(config.size)
    return {**asdict(config), "size": size, "mean": list(config.mean), "std": list(config.std)}


def _gflops(source: ModelSource, model: Any, config: PreprocessCfg) -> float | None:
    published = cost(source.architecture) if source.architecture else None
    return published.image_gflops if published else measure_gflops(model.visual, config.size)


def _provenance(
    backbone: Backbone, model: Any, device: torch.device, gflops: float | None
) -> dict[str, Any]:
    others = ("timm", "torchvision", "pillow")
    return {
        "source": backbone.source,
        "torch": str(torch.__version__),  # its metadata does not always say which CUDA it is for
        "open_clip": version("open_clip_torch"),
        **{package: version(package) for package in others},
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "image_parameters": sum(p.numel() for p in model.visual.parameters()),
        "gflops": gflops,
    }


def _megabytes(tower: torch.nn.Module) -> float:
    tensors = (*tower.parameters(), *tower.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"

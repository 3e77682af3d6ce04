"""A CLIP of open_clip as an encoder: pixels or texts in, unit-norm embeddings out.

Weights come through `extract.weights`. This module splits preprocessing, so that encoders share the
costly part, and puts everything that decides an embedding into `identity`.
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
from open_clip.transformer import TextTransformer
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from clipsyn.catalog.backbones import cost
from clipsyn.errors import CheckpointError
from clipsyn.extract.encoder import (
    TEXT_BATCH,
    TEXT_PART,
    measure_gflops,
    resolve_device,
    resolve_precision,
)
from clipsyn.extract.weights import ModelSource, build, locate, quiet_open_clip, weights_digest
from clipsyn.images.source import UndecodableImage
from clipsyn.methods.numerics.logits import is_scale
from clipsyn.names import Backbone, Identity, canonical_json
from clipsyn.text import one_line


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
    try:
        with quiet_open_clip():
            tokenizer = open_clip.get_tokenizer(source.model_name)
        return Encoder(backbone, source, model, tokenizer, device=target, precision=resolved)
    except CheckpointError:
        raise
    except Exception as error:  # of open_clip, for other preprocessing than it has; transformers
        reason = one_line(error)[:200]
        raise CheckpointError(
            f"'{backbone.name}' has no tokenizer or preprocessing here: {reason}"
        ) from error


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
    """A model on a device: images and texts in, unit-norm embeddings out.

    identity is everything that decides an embedding: the weights' digest and the settings, as JSON
    values, no path, no version. provenance is recorded, not compared; analyses read its "gflops"
    and "image_parameters". logit_scale is what cosines are multiplied by, the exponential of the
    trained parameter. gflops are of the image tower for an image, 2 FLOPs per
    multiply-add, None where they cannot be measured. Encoders of one preprocess_key share pixels.
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
        preprocess = _resolved(config)
        published = cost(source.architecture) if source.architecture else None
        self.backbone = backbone
        self.identity: Identity = {
            "architecture": source.architecture if source.tag else None,
            "pretrained": source.tag,
            "model": {**source.config, "quick_gelu": source.quick_gelu},
            "weights": weights_digest(model),
            "precision": precision,
            "preprocess": preprocess,
        }
        self.gflops = (
            published.image_gflops if published else measure_gflops(model.visual, config.size)
        )
        self.provenance = _provenance(backbone, model, device) | {"gflops": self.gflops}
        self.embed_dim = int(source.config["embed_dim"])
        self.logit_scale = float(model.logit_scale.detach().exp())
        if not is_scale(self.logit_scale):
            raise CheckpointError(
                f"the logit scale of '{backbone.name}' is {self.logit_scale:g}, which gives no "
                "usable logits: fetch or train the checkpoint again"
            )
        geometry = {key: it for key, it in preprocess.items() if key not in {"mean", "std"}}
        self.preprocess_key = canonical_json(geometry)
        self._geometry, normalize = split_transform(config)
        self.preprocess(Image.new("RGB", (64, 64)))  # what cannot be is found before the work
        self.device = device
        self._precision = precision
        self._convolutional = not hasattr(model.visual, "transformer")
        self._visual = self._placed(model.visual)
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)
            for values in (normalize.mean, normalize.std)
        )
        self._white = torch.tensor(255.0, device=device)
        self._model, self._tokenizer = model.to(device), tokenizer
        self._causal = _causal_tower(model)

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
        joined = torch.cat(list(parts))
        bad = int((~torch.isfinite(joined)).any(dim=1).sum())
        if bad:
            raise CheckpointError(
                f"'{self.backbone.name}' gives NaN or Inf for {bad} of {len(joined)} images in "
                f"precision {self._precision}: try precision=fp32, or fetch the weights again"
            )
        host: NDArray[np.float16] = joined.cpu().numpy()
        return host

    def text_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,): how many positions decide each text's embedding."""
        parts = (list(texts[at : at + TEXT_PART]) for at in range(0, len(texts), TEXT_PART))
        lengths = torch.cat([self._lengths(self._tokenizer(part)) for part in parts])
        return lengths.numpy()

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, embed), unit norm, in float32 whatever the image tower's precision.

        In batches of texts of like length. Causal towers that read the end token need no more
        positions than the batch's longest text has, as later ones cannot reach it. That is five
        times faster for usual prompts, and exact.
        """
        tokens = self._tokenizer(list(texts))
        lengths = self._lengths(tokens)
        order = torch.argsort(lengths, stable=True)
        parts = [
            self._encode_tokens(tokens[rows, : int(lengths[rows].max())])
            for rows in torch.split(order, TEXT_BATCH)
        ]
        embedded: NDArray[np.float32] = torch.cat(parts)[torch.argsort(order)].cpu().numpy()
        return embedded

    def _lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        if self._causal is None:
            return torch.full((len(tokens),), tokens.shape[1])
        _, _, pool, end_token = self._causal
        if pool == "argmax":  # the end token has the highest number
            return tokens.argmax(dim=-1) + 1
        return (tokens == end_token).int().argmax(dim=-1) + 1

    def _encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens, n = tokens.to(self.device), tokens.shape[1]
        with torch.inference_mode():
            if self._causal is None:
                return self._model.encode_text(tokens, normalize=True)  # type: ignore[no-any-return]
            # open_clip adds all positions to the tokens, so it is lent as many as there are tokens
            prefix, tower, *_ = self._causal
            shorter = {
                f"{prefix}positional_embedding": tower.positional_embedding[:n],
                f"{prefix}attn_mask": tower.attn_mask[:n, :n],
            }
            outputs = torch.func.functional_call(self._model, shorter, (None, tokens))
            return outputs[1]  # type: ignore[no-any-return]


def _causal_tower(model: Any) -> tuple[str, Any, str, int] | None:
    """The text tower with its prefix in the model, how it finds the end token, and that token.

    None if a text's embedding may depend on what comes after its end token.
    """
    if type(model) is open_clip.CLIP:
        prefix, tower, pool, end_token = "", model, model.text_pool_type, model.text_eos_id
    elif type(model) is open_clip.CustomTextCLIP and type(model.text) is TextTransformer:
        prefix, tower = "text.", model.text
        pool, end_token = tower.pool_type, tower.eos_id
    else:
        return None
    appended = getattr(tower, "cls_emb", None) is not None
    exact = tower.attn_mask is not None and pool in {"argmax", "eos"} and not appended
    return (prefix, tower, pool, end_token) if exact else None


def _resolved(config: PreprocessCfg) -> dict[str, Any]:
    """open_clip's preprocessing as JSON; one size or two, as towers spell it, mean the same."""
    size = [config.size] * 2 if isinstance(config.size, int) else list(config.size)
    return {**asdict(config), "size": size, "mean": list(config.mean), "std": list(config.std)}


def _provenance(backbone: Backbone, model: Any, device: torch.device) -> dict[str, Any]:
    others = ("timm", "torchvision", "pillow")
    return {
        "source": backbone.source,
        "torch": str(torch.__version__),  # its metadata does not always say which CUDA it is for
        "open_clip": version("open_clip_torch"),
        **{package: version(package) for package in others},
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.processor() or platform.machine()})",
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "image_parameters": sum(p.numel() for p in model.visual.parameters()),
    }

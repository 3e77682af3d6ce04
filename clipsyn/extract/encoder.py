"""A loaded CLIP: pixels or texts in, unit-norm embeddings out; and what that costs.

Weights come through open_clip (`extract.weights`). This module splits preprocessing, so that
encoders share the costly part, and puts everything that decides an embedding into `identity`.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, NamedTuple, TypeVar

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import Compose, Normalize, ToTensor

from clipsyn.catalog.backbones import cost
from clipsyn.errors import CheckpointError, UsageError
from clipsyn.extract.text import TextTower
from clipsyn.extract.weights import ModelSource, build, locate, quiet_open_clip, weights_digest
from clipsyn.images.decode import UndecodableImage
from clipsyn.methods.numerics.logits import is_scale
from clipsyn.names import Backbone, Identity, canonical_json
from clipsyn.text import one_line

_T = TypeVar("_T")

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
    try:
        with quiet_open_clip():
            tokenizer = open_clip.get_tokenizer(source.model_name)
    except Exception as error:  # of open_clip or transformers
        reason = one_line(error)[:200]
        raise CheckpointError(f"'{backbone.name}' has no tokenizer here: {reason}") from error
    return Encoder(backbone, source, model, tokenizer, device=target, precision=resolved)


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
        tensors = (*self._visual.parameters(), *self._visual.buffers())
        weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.provenance["image_weights_mb"] = weights / 1e6
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
            for values in (normalize.mean, normalize.std)
        )
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
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.processor() or platform.machine()})",
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "image_parameters": sum(p.numel() for p in model.visual.parameters()),
        "gflops": gflops,
    }


class Used(NamedTuple):
    seconds: float
    memory: dict[str, float]  # MB by kind; empty where the system does not say


def measured(work: Callable[[], _T], device: torch.device | str) -> tuple[_T, Callable[[], Used]]:
    """The result of work(), and a function that gives its cost, to call when the result is needed.

    A GPU works asynchronously, so the caller's clock would measure only the call. The function
    waits for the GPU, `measured` does not. Kinds of memory:

    - peak_memory_mb, on a GPU: allocated beyond what was there before. It is of one backbone,
      however many are loaded, without its weights.
    - process_memory_mb, elsewhere: the largest resident size of the process so far, with all that
      it holds.
    """
    target = torch.device(device)
    if target.type == "cuda":
        return _on_gpu(work, target)
    begin = time.perf_counter()
    result = work()
    used = Used(time.perf_counter() - begin, _process_memory())
    return result, lambda: used


def _on_gpu(work: Callable[[], _T], device: torch.device) -> tuple[_T, Callable[[], Used]]:
    with torch.cuda.device(device):
        begin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        begin.record()
        result = work()
        end.record()
        most = torch.cuda.max_memory_allocated()

    def used() -> Used:
        end.synchronize()
        return Used(begin.elapsed_time(end) / 1000, {"peak_memory_mb": (most - before) / 1e6})

    return result, used


def _process_memory() -> dict[str, float]:
    try:
        import resource
    except ImportError:  # Windows
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"process_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}


def measure_gflops(visual: torch.nn.Module, size: int | tuple[int, int]) -> float | None:
    """GFLOPs of an image tower for one image of that height and width, 2 per multiply-add.

    None for towers that cannot run without data.
    """
    height, width = (size, size) if isinstance(size, int) else size
    return _count(visual, torch.empty(1, 3, height, width, device="meta"))


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
        "text_gflops": _count(model, None, tokens),
    }


def _count(module: torch.nn.Module, *inputs: torch.Tensor | None) -> float | None:
    """GFLOPs of one call, run on the meta device: no memory, no arithmetic.

    torch's counter misses fused attention (-33 % for ViT-B-32), so both fused paths are off.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    hollow = {name: tensor.to("meta") for name, tensor in tensors.items()}
    training = [part for part in module.modules() if part.training]
    module.eval()  # in training some towers drop half of their patches
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
            torch.func.functional_call(module, hollow, inputs)
    except (NotImplementedError, RuntimeError):  # an operation without a meta kernel
        return None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part in training:
            part.training = True
    return round(float(flops.get_total_flops()) / 1e9, 4)

"""What follows from a backbone's encoder: class embeddings, its device, its time and its cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clipsyn.errors import CheckpointError, UsageError
from clipsyn.names import PromptSet

if TYPE_CHECKING:
    from clipsyn.extract.openclip import Encoder

_T = TypeVar("_T")

PRECISIONS = ("fp32", "bf16", "amp_bf16", "amp_fp16")
TEXT_BATCH = 256
TEXT_PART = 4 * TEXT_BATCH  # texts whose embeddings are kept at a time: no more are lost at a stop


@dataclass(frozen=True)
class ClassTexts:
    """The prompts of classes, each distinct text once, in parts that are encoded one by one.

    The distinct texts are ordered by length and cut into whole batches. So what is encoded together
    depends on nothing but the prompts, and neither the size of a part nor where a run is
    interrupted can change a bit of the class embeddings. Raises UsageError for a class without
    prompts.
    """

    encoder: Encoder
    class_names: Sequence[str]
    prompts: PromptSet

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def parts(self) -> list[list[str]]:
        texts = list(self._places)
        order = np.argsort(self.encoder.text_lengths(texts), kind="stable").tolist()
        return [
            [texts[i] for i in order[at : at + TEXT_PART]] for at in range(0, len(order), TEXT_PART)
        ]

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """The classes of each text, a class as often as it has the text."""
        places: dict[str, list[int]] = {}
        for number, name in enumerate(self.class_names):
            for text in self.prompts.prompts(name):
                places.setdefault(text, []).append(number)
        return places

    def class_embeddings(
        self, embedded: Callable[[list[str]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """(class, embed): each prompt's unit-norm embedding, their mean over a class, normalised.

        embedded: gives the embeddings (n, embed) of one of `parts`. The order (normalise, mean,
        normalise) is CLIP's and open_clip's. A text that several classes share has one embedding,
        so classes of one name get identical rows. Raises CheckpointError where a class has none.
        """
        mean = np.zeros((len(self.class_names), self.encoder.embed_dim))
        for part in self.parts:
            for text, row in zip(part, embedded(part), strict=True):
                for number in self._places[text]:
                    mean[number] += row
        mean /= np.array([[len(self.prompts.prompts(name))] for name in self.class_names])
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        if lost := int(np.count_nonzero(~((length > 0) & np.isfinite(length)))):
            raise CheckpointError(
                f"the text tower has no embedding, or NaN or Inf, for {lost:,} of {len(mean):,} "
                "classes: fetch or train the checkpoint again"
            )
        mean /= length
        return mean.astype(np.float32)


def resolve_device(name: str) -> torch.device:
    """The torch device of that name; raises UsageError if this machine does not have it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in {"cpu", "cuda", "mps"}:
            raise RuntimeError
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter of a torch without CUDA
        raise UsageError(
            f"unknown device '{name}', or it is not to be had here: write auto, cpu, cuda, cuda:N "
            "or mps"
        ) from error
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


def timed(work: Callable[[], _T], device: torch.device | str) -> tuple[_T, Callable[[], float]]:
    """The result of work(), and a function that gives its seconds.

    A GPU works asynchronously, so the caller's clock would measure only the call. The function
    waits for the GPU, `timed` does not.
    """
    if torch.device(device).type != "cuda":
        begin = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - begin
        return result, lambda: seconds
    with torch.cuda.device(device):
        first: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        last: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        first.record()
        result = work()
        last.record()

    def of_gpu() -> float:
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000

    return result, of_gpu


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

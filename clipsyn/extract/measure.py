"""What models cost: operations and parameters, counted; time and memory of a batch, measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

_T = TypeVar("_T")


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

"""Floating-point operations of an image tower."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def measure_gflops(visual: torch.nn.Module, size: int | tuple[int, int]) -> float | None:
    """GFLOPs for one image, 2 per multiply-add; None for towers that cannot run without data.

    Runs the tower on the meta device: no memory, no arithmetic. torch's counter misses fused
    attention (-33 % for ViT-B-32), so both fused paths are off while it counts.
    """
    height, width = (size, size) if isinstance(size, int) else size
    tensors = {**dict(visual.named_parameters()), **dict(visual.named_buffers())}
    hollow = {name: tensor.to("meta") for name, tensor in tensors.items()}
    image = torch.empty(1, 3, height, width, device="meta")
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
            torch.func.functional_call(visual, hollow, (image,))
    except (NotImplementedError, RuntimeError):  # an operation without a meta kernel
        return None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return round(float(flops.get_total_flops()) / 1e9, 4)

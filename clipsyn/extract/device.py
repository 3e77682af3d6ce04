"""The device that a backbone is run on, its precision, its time and what a pass costs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clipsyn.errors import UsageError
from clipsyn.text import LOG

_T = TypeVar("_T")

PRECISIONS = ("fp32", "bf16", "amp_bf16", "amp_fp16")


def resolve_device(name: str) -> torch.device:
    """The torch device of that name; raises UsageError if this machine cannot compute on it."""
    try:
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(name)
        if device.type not in {"cpu", "cuda", "mps"}:
            raise RuntimeError("it is none of torch's that are supported")
        torch.zeros(1, device=device).add(1).item()  # computes, which not every card can
    except (RuntimeError, AssertionError) as error:  # the latter of a torch without CUDA
        reason = str(error).splitlines()[0]
        if "no kernel image" in reason:
            major, minor = torch.cuda.get_device_capability(name)
            built = ", ".join(torch.cuda.get_arch_list())
            reason = f"the card has capability {major}.{minor}, and this torch is for {built}"
        raise UsageError(
            f"device '{name}' is not to be had ({reason}): write auto, cpu, cuda, cuda:N or mps"
        ) from error
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """One of PRECISIONS; raises UsageError for any other name."""
    if name == "auto":
        if device.type != "cuda":
            return "fp32"
        native = torch.cuda.get_device_capability(device) >= (8, 0)  # of this card, not the first
        return "amp_bf16" if native else "amp_fp16"
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision '{name}': write auto, {', '.join(PRECISIONS)}")
    return name


def to_device(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on the device; to a GPU from pinned memory, beside what it computes meanwhile."""
    if device.type != "cuda":
        return host.to(device)
    copying, computing = _copies(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copying):
        there = host.pin_memory().to(device, non_blocking=True)
    computing.wait_stream(copying)
    there.record_stream(computing)  # so that its memory is not given away while it is read
    return there


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Fitting:
    """Work on as many rows at a time as the memory of a GPU holds."""

    def __init__(self, what: str, device: torch.device, model: Any) -> None:
        """what: for messages. model: if it is a module, its weights count to `peak_mb`."""
        self.what, self.device = what, device
        parts = model.parameters() if isinstance(model, torch.nn.Module) else ()
        self.weights = sum(part.nbytes for part in parts)
        self.most = sys.maxsize  # rows at a time
        self.peak_mb: float | None = None  # the most that was taken; None where nobody counts

    def run(self, work: Callable[[slice], torch.Tensor], rows: int) -> torch.Tensor:
        """What work gives of slices of the rows, which are halved until they fit.

        Raises torch.OutOfMemoryError where not even one row fits.
        """
        while True:
            try:
                with self._counted():
                    return torch.cat(
                        [work(slice(at, at + self.most)) for at in range(0, rows, self.most)]
                    )
            except torch.OutOfMemoryError:
                if (tried := min(rows, self.most)) == 1:
                    raise
                self.most = -(-tried // 2)
            torch.cuda.empty_cache()  # out of `except`, where the error holds what it had got
            LOG.warning(
                f"{self.what}: {tried:,} images at once do not fit into the memory of "
                f"{self.device}: it goes on with {self.most:,}"
            )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self.device.type != "cuda":
            yield
            return
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)  # of all backbones
        yield
        taken = torch.cuda.max_memory_allocated(self.device) - before + self.weights
        self.peak_mb = max(self.peak_mb or 0.0, round(taken / 1e6, 1))


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
    return gflops_of(visual, torch.empty(1, 3, height, width, device="meta"))


def gflops_of(module: torch.nn.Module, *inputs: torch.Tensor | None) -> float | None:
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

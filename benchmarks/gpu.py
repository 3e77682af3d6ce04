"""Images/s through extraction on a GPU, and FLOPs of those it can do: the first thing to run there.

    python benchmarks/gpu.py

Random weights, and the precision that `extract` chooses. There are two sources: JPEGs of 500 x 375,
where decoding on the host may be the bottleneck, and pixels of the right size in memory, where it
cannot be. Beside extraction stand bare forward passes on data that is on the device already, and
decoding without any encoder: the slower of the two bounds extraction. What the device can do is
what a large matrix product reaches in the same precision.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import Measured, interleaved, report, start, workplace

from clipsyn.extract import ExtractSettings, tune_process_memory

tune_process_memory()  # before torch
import open_clip  # noqa: E402
import subjects  # noqa: E402
import torch  # noqa: E402

from clipsyn.extract.device import resolve_precision  # noqa: E402
from clipsyn.extract.encoder import Encoder  # noqa: E402
from clipsyn.extract.images import batches, open_source  # noqa: E402
from clipsyn.extract.run import RunSettings  # noqa: E402
from clipsyn.extract.weights import quiet_open_clip  # noqa: E402
from clipsyn.images.source import ImageSource  # noqa: E402
from clipsyn.names import CLEAN, Backbone  # noqa: E402

ARCHITECTURES = ("ViT-B-32", "RN50", "ViT-L-14")
SIZE = 224
DIFFERENT = 256  # images that the source in memory goes through over and over


def computed_in(device: torch.device) -> torch.dtype:
    precision = resolve_precision("auto", device)
    types = {"fp32": torch.float32, "amp_bf16": torch.bfloat16, "amp_fp16": torch.float16}
    return types[precision]


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_tflops(device: torch.device, rounds: int) -> float:
    """Of a square matrix product, the best of all rounds."""
    width = 8192 if device.type == "cuda" else 1024
    one = torch.randn(width, width, device=device, dtype=computed_in(device))

    def product() -> None:
        for _ in range(10):
            torch.mm(one, one)
        finish(device)

    taken = interleaved({"product": product}, rounds)["product"]
    return 10 * 2 * width**3 / min(taken) / 1e12


@dataclass(frozen=True)
class Forward:
    """The image tower as open_clip makes it, on one batch that lies on the device."""

    visual: Any
    batch: torch.Tensor

    @classmethod
    def load(cls, backbone: Backbone, batch_size: int, device: torch.device) -> Forward:
        with quiet_open_clip():
            visual = open_clip.create_model(backbone.source, device=device).visual.eval()
        batch = torch.randn(batch_size, 3, SIZE, SIZE, device=device)
        if not hasattr(visual, "transformer"):  # a ResNet, at its best
            visual, batch = (x.to(memory_format=torch.channels_last) for x in (visual, batch))
        return cls(visual, batch)

    def run(self, images: int) -> None:
        device = self.batch.device
        half = computed_in(device)
        cast = nullcontext() if half == torch.float32 else torch.autocast(device.type, half)
        with torch.inference_mode(), cast:
            for _ in range(0, images, len(self.batch)):
                self.visual(self.batch)
        finish(device)


@dataclass(frozen=True)
class Extraction:
    encoder: Encoder
    store: Path
    settings: RunSettings

    def run(self, source: ImageSource) -> None:
        shutil.rmtree(self.store, ignore_errors=True)
        subjects.extract(self.store, [self.encoder], source, settings=self.settings)

    def decode(self, source: ImageSource) -> None:
        """All that happens to images before an encoder gets them."""
        views = {(CLEAN, self.encoder.preprocess_key): self.encoder.preprocess}
        block = None, source, range(len(source)), views
        with ThreadPoolExecutor(self.settings.workers) as pool:
            for _ in batches([block], self.settings.batch_size, pool):
                pass


def compare(
    extraction: Extraction,
    forward: Forward,
    sources: dict[str, ImageSource],
    *,
    rounds: int,
    peak: float,
) -> list[Measured]:
    """Extraction from every source against forward passes over as many images."""
    encoder, results = extraction.encoder, []
    is_gpu = encoder.device.type == "cuda"
    architecture = encoder.backbone.name if is_gpu else f"no GPU: {encoder.backbone.name}"
    for name, source in sources.items():
        sides: dict[str, Callable[[], object]] = {
            "extract": partial(extraction.run, source),
            "forward": partial(forward.run, len(source)),
            "decode": partial(extraction.decode, source),
        }
        times = interleaved(sides, rounds)
        # The last batch of `forward` is always whole.
        whole = -(-len(source) // len(forward.batch)) * len(forward.batch)
        bare = [whole / taken for taken in times["forward"]]
        ours = [len(source) / taken for taken in times["extract"]]
        computed, decoded = (
            statistics.median(bare),
            len(source) / statistics.median(times["decode"]),
        )
        bound = "decoding" if decoded < computed else "computing"
        results.append(
            Measured(
                f"{architecture}, {name}: images/s over bare forward passes",
                statistics.median(a / b for a, b in zip(ours, bare, strict=True)),
                f"{statistics.median(ours):,.3g} against {computed:,.3g} images/s; the host "
                f"decodes {decoded:,.3g}: bound by {bound}",
                floor=0.9 if is_gpu else None,
            )
        )
    reached = computed * (encoder.gflops or float("nan")) / 1e3
    what = f"{architecture}: forward FLOPs over what a matrix product reaches"
    memory = encoder.provenance["peak_memory_mb"]
    detail = f"{reached:.3g} of {peak:.3g} TFLOP/s" + (f"; {memory:,.0f} MB" if memory else "")
    return [*results, Measured(what, 100 * reached / peak, detail, unit="%")]


def make_sources(folder: Path, images: int, photographs: int) -> dict[str, ImageSource]:
    rng = np.random.default_rng(0)
    held = rng.integers(0, 256, (min(DIFFERENT, images), SIZE, SIZE, 3), dtype=np.uint8)
    jpegs = open_source(str(subjects.write_photographs(folder, photographs)), "test")
    return {"pixels in memory": subjects.Pixels.of(SIZE, images, held), "JPEGs": jpegs}


def measure(
    folder: Path,
    device: torch.device,
    sources: dict[str, ImageSource],
    *,
    batch: int,
    rounds: int,
    architectures: Sequence[str],
) -> Sequence[Measured]:
    settings = RunSettings.of(ExtractSettings(datasets=(), device=str(device), batch_size=batch))
    results, peak = [], peak_tflops(device, rounds)
    for architecture in architectures:
        backbone = subjects.random_backbone(folder, architecture)
        [encoder] = subjects.load([backbone], str(device))
        extraction = Extraction(encoder, folder / "store", settings)
        forward = Forward.load(backbone, batch, device)
        results += compare(extraction, forward, sources, rounds=rounds, peak=peak)
    return results


@click.command()
@click.option("--images", default=10_000, show_default=True, help="From memory.")
@click.option("--photographs", default=2_048, show_default=True, help="Synthetic JPEGs.")
@click.option("--batch-size", default=256, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", default="cuda", show_default=True, help="cpu: only to try the script.")
@click.option("--architecture", "architectures", multiple=True, default=ARCHITECTURES)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep images and models there.")
def main(
    *,
    images: int,
    photographs: int,
    batch_size: int,
    rounds: int,
    device: str,
    architectures: tuple[str, ...],
    folder: Path | None,
) -> None:
    """Images/s through extraction over bare forward passes, and FLOPs over what the GPU can do."""
    start("GPU: extraction against bare forward passes")
    on = torch.device(device)
    if on.type == "cuda" and not torch.cuda.is_available():
        click.echo("no CUDA GPU here: nothing was measured (--device cpu tries the script)")
        return
    said = "on a CPU: the script runs, and no number below says anything of a GPU"
    click.echo(torch.cuda.get_device_name(on) if on.type == "cuda" else said)
    with workplace(folder) as place:
        sources = make_sources(Path(place), images, photographs)
        results = measure(
            Path(place), on, sources, batch=batch_size, rounds=rounds, architectures=architectures
        )
    report(results)


if __name__ == "__main__":
    main()

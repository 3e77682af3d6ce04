"""Images/s through extraction on a GPU against bare forward passes on data already there.

    python benchmarks/gpu.py

Random weights, and the precision that `extract` chooses. There are two sources: JPEGs of 500 x 375,
where decoding on the host may be the bottleneck, and pixels of the right size in memory, where it
cannot be. What the host can decode without any encoder is measured beside them.
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
        precision = resolve_precision("auto", device)
        half = torch.bfloat16 if precision.endswith("bf16") else torch.float16
        autocast = torch.autocast(device.type, half)
        with torch.inference_mode(), autocast if "amp" in precision else nullcontext():
            for _ in range(0, images, len(self.batch)):
                self.visual(self.batch)
        if device.type == "cuda":
            torch.cuda.synchronize()


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
    extraction: Extraction, forward: Forward, sources: dict[str, ImageSource], rounds: int
) -> list[Measured]:
    """Extraction from every source against forward passes over as many images."""
    architecture = extraction.encoder.backbone.name
    results = []
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
        decoded = len(source) / statistics.median(times["decode"])
        results.append(
            Measured(
                f"{architecture}, {name}: images/s over bare forward passes",
                statistics.median(a / b for a, b in zip(ours, bare, strict=True)),
                f"{statistics.median(ours):,.0f} against {statistics.median(bare):,.0f} images/s; "
                f"the host decodes {decoded:,.0f}",
                floor=0.9,
            )
        )
    return results


def make_sources(folder: Path, images: int, photographs: int) -> dict[str, ImageSource]:
    rng = np.random.default_rng(0)
    held = rng.integers(0, 256, (min(DIFFERENT, images), SIZE, SIZE, 3), dtype=np.uint8)
    jpegs = open_source(str(subjects.write_photographs(folder, photographs)), "test")
    return {"pixels in memory": subjects.Pixels.of(SIZE, images, held), "JPEGs": jpegs}


def measure(
    folder: Path, device: torch.device, sources: dict[str, ImageSource], batch: int, rounds: int
) -> Sequence[Measured]:
    settings = RunSettings.of(ExtractSettings(datasets=(), device=str(device), batch_size=batch))
    results = []
    for architecture in ARCHITECTURES:
        backbone = subjects.random_backbone(folder, architecture)
        [encoder] = subjects.load([backbone], str(device))
        extraction = Extraction(encoder, folder / "store", settings)
        forward = Forward.load(backbone, batch, device)
        results += compare(extraction, forward, sources, rounds)
    return results


@click.command()
@click.option("--images", default=10_000, show_default=True, help="From memory.")
@click.option("--photographs", default=2_048, show_default=True, help="Synthetic JPEGs.")
@click.option("--batch-size", default=256, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", default="cuda", show_default=True, help="cpu: only to try the script.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep images and models there.")
def main(
    *, images: int, photographs: int, batch_size: int, rounds: int, device: str, folder: Path | None
) -> None:
    """Images/s of ViT-B-32, RN50 and ViT-L-14 through extraction over bare forward passes."""
    start("GPU: extraction against bare forward passes")
    if device == "cuda" and not torch.cuda.is_available():
        click.echo("no CUDA GPU here: nothing was measured")
        return
    if device == "cuda":
        click.echo(torch.cuda.get_device_name())
    with workplace(folder) as place:
        sources = make_sources(Path(place), images, photographs)
        results = measure(Path(place), torch.device(device), sources, batch_size, rounds)
    report(results)


if __name__ == "__main__":
    main()

"""A sweep of backbones over one dataset: clipsyn's extraction against plain PyTorch.

    python benchmarks/sweep.py

Plain PyTorch: one DataLoader reads, decodes and perturbs every image once, preprocesses it once for
all models that preprocess alike, and all models encode the batch. Beside it the usual way, as in
CLIP_benchmark: a pass of a DataLoader for every backbone. All start with loaded models; clipsyn's
time includes hashing the images, planning, writing and publishing the store.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import (
    Measured,
    best_of,
    interleaved,
    ratio,
    report,
    spread,
    start,
    workplace,
)

from clipsyn.extract import ExtractSettings, tune_process_memory

tune_process_memory()  # as the command does, for both sides; before torch
import open_clip  # noqa: E402
import subjects  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from clipsyn.extract.encoder import Encoder  # noqa: E402
from clipsyn.extract.images import open_source  # noqa: E402
from clipsyn.extract.run import RunSettings  # noqa: E402
from clipsyn.extract.weights import quiet_open_clip  # noqa: E402
from clipsyn.images.perturb import apply, resolve  # noqa: E402
from clipsyn.images.source import ImageSource  # noqa: E402
from clipsyn.names import CLEAN, Backbone, Perturbation  # noqa: E402

BATCH = 64  # CLIP_benchmark's and clipsyn's default


@dataclass(frozen=True)
class Peer:
    """A backbone as open_clip hands it out."""

    model: Any
    transform: Callable[[Image.Image], torch.Tensor]

    @classmethod
    def load(cls, backbone: Backbone) -> Peer:
        with quiet_open_clip():
            model, _, transform = open_clip.create_model_and_transforms(backbone.source)
        return cls(model.eval(), transform)

    def sweep(self, source: ImageSource, perturbation: Perturbation, workers: int) -> torch.Tensor:
        images = _Images(source, perturbation, self.transform)
        loader = torch.utils.data.DataLoader(images, batch_size=BATCH, num_workers=workers)
        return self.encode(loader)

    def encode(self, batches: Any) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([self.model.encode_image(batch, normalize=True) for batch in batches])


@dataclass(frozen=True)
class _Images(torch.utils.data.Dataset[Any]):
    source: ImageSource
    perturbation: Perturbation
    transform: Callable[[Image.Image], Any]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        image = self.source.image(index)
        if self.perturbation != CLEAN:
            pixels = apply(self.perturbation, np.asarray(image), self.source.ids[index])
            image = Image.fromarray(pixels)
        return self.transform(image)


@dataclass(frozen=True)
class _Every:
    """A tensor of the image for each of several transforms, those that read alike once."""

    transforms: dict[str, Callable[[Image.Image], torch.Tensor]]

    @classmethod
    def of(cls, peers: Sequence[Peer]) -> _Every:
        return cls({str(peer.transform): peer.transform for peer in peers})

    def __call__(self, image: Image.Image) -> dict[str, torch.Tensor]:
        return {name: transform(image) for name, transform in self.transforms.items()}


@dataclass(frozen=True)
class Sweep:
    """Both ways through the same backbones, images and perturbation."""

    encoders: Sequence[Encoder]
    peers: Sequence[Peer]
    source: ImageSource
    perturbation: Perturbation
    store: Path

    def ours(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)
        settings = RunSettings.of(ExtractSettings(datasets=(), device="cpu", batch_size=BATCH))
        subjects.extract(self.store, self.encoders, self.source, self.perturbation, settings)

    def together(self, workers: int) -> None:
        images = _Images(self.source, self.perturbation, _Every.of(self.peers))
        loader = torch.utils.data.DataLoader(images, batch_size=BATCH, num_workers=workers)
        with torch.no_grad():
            for batch in loader:
                for peer in self.peers:
                    peer.model.encode_image(batch[str(peer.transform)], normalize=True)

    def one_by_one(self, workers: int) -> None:
        for peer in self.peers:
            peer.sweep(self.source, self.perturbation, workers)

    def compare(self, what: str, rounds: int) -> list[Measured]:
        sides: dict[str, Callable[[], None]] = {"clipsyn": self.ours}
        sides |= {f"together, {n}": partial(self.together, n) for n in (0, 2)}
        sides |= {f"one by one, {n}": partial(self.one_by_one, n) for n in (0, 2)}
        click.echo(what, err=True)
        times = interleaved(sides, rounds)
        ours = times["clipsyn"]
        images = len(self.source) * len(self.encoders)
        results = []
        for name, title in (
            ("together", f"{what}: one pass of plain PyTorch for all"),
            ("one by one", "the same: a pass for each backbone"),
        ):
            theirs = best_of(times[f"{name}, 0"], times[f"{name}, 2"])
            rates = (images / statistics.median(taken) for taken in (ours, theirs))
            detail = " against ".join(f"{rate:,.0f}" for rate in rates)
            detail += f" images/s x backbones; {spread(theirs, ours)} in {rounds} rounds"
            results.append(Measured(title, ratio(theirs, ours), detail))
        return results


def unlabelled(source: ImageSource) -> ImageSource:
    """Without class names: neither side encodes texts then."""
    labels = np.full(len(source), -1, np.int32)
    bare: ImageSource = replace(source, class_names=(), labels=labels)
    return bare


def over_forward(folder: Path, count: int, rounds: int) -> Measured:
    """ViT-B-32 at 224 pixels: extraction from JPEGs over forward passes on tensors in memory."""
    backbone = subjects.random_backbone(folder, "ViT-B-32")
    [encoder], peer = subjects.load([backbone], "cpu"), Peer.load(backbone)
    source = open_source(str(subjects.write_photographs(folder, count)), "test")
    transformed = torch.stack([peer.transform(source.image(i)) for i in range(count)])
    tensors = torch.split(transformed, BATCH)
    sweep = Sweep([encoder], [peer], source, CLEAN, folder / "store-vit")
    times = interleaved({"extract": sweep.ours, "forward": lambda: peer.encode(tensors)}, rounds)
    rate = count / statistics.median(times["extract"])
    return Measured(
        f"ViT-B-32 fp32, {count} JPEGs: time of extraction over bare forward passes",
        ratio(times["extract"], times["forward"]),
        f"{rate:.1f} images/s; {spread(times['extract'], times['forward'])} in {rounds} rounds",
        ceiling=1.2,
    )


def sweeps(
    folder: Path, dataset: str, photographs: int, perturb: str, rounds: int
) -> list[Measured]:
    backbones = subjects.zoo(folder)
    encoders, peers = subjects.load(backbones, "cpu"), [Peer.load(b) for b in backbones]
    click.echo(f"{len(backbones)} backbones: {', '.join(b.name for b in backbones)}", err=True)
    shipped = unlabelled(open_source(dataset, "test"))
    photos = open_source(str(subjects.write_photographs(folder, photographs)), "test")
    cases = [
        (f"clean {dataset}, {len(shipped)} images of 64 px", shipped, "clean"),
        (f"clean photographs, {len(photos)} JPEGs of 500 x 375", photos, "clean"),
        (f"photographs under {perturb}", photos, perturb),
    ]
    results = []
    for what, source, name in cases:
        sweep = Sweep(encoders, peers, source, resolve(name), folder / "store")
        results += sweep.compare(what, rounds)
    return results


@click.command()
@click.option("--dataset", default="emoji-category", show_default=True, help="A shipped one.")
@click.option("--photographs", default=256, show_default=True, help="Synthetic JPEGs.")
@click.option("--perturb", default="zoom_blur:3", show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep images and models there.")
def main(dataset: str, photographs: int, perturb: str, rounds: int, folder: Path | None) -> None:
    """Images/s of a sweep, clipsyn over PyTorch; and extraction over bare forward passes."""
    start("Sweep: clipsyn's extraction against plain PyTorch")
    with workplace(folder) as place:
        results = sweeps(Path(place), dataset, photographs, perturb, rounds)
        results.append(over_forward(Path(place), photographs, rounds))
    report(results)


if __name__ == "__main__":
    main()

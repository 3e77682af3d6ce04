"""What benchmarks measure: backbones with random weights, and generated photographs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from clipsyn.catalog import data_dir
from clipsyn.catalog.backbones import resolve_backbones
from clipsyn.extract import ExtractSettings
from clipsyn.extract.encoder import Encoder, load_encoder
from clipsyn.extract.run import RunSettings, run
from clipsyn.extract.weights import quiet_open_clip
from clipsyn.extract.work import load_work
from clipsyn.images.source import ImageSource
from clipsyn.names import CLEAN, Backbone, Perturbation
from clipsyn.show.progress import progress
from clipsyn.store.features import FeatureStore

PHOTO = (500, 375)  # the most common size of ImageNet's images
_RECIPES = Path(__file__).parent.parent / "pipelines" / "zoo" / "models"


def zoo(folder: Path) -> list[Backbone]:
    """The shipped zoo, else models of the same architectures with random weights in `folder`."""
    if any((data_dir() / "zoo").glob("*/open_clip_config.json")):
        return resolve_backbones(["zoo"])
    recipes = sorted(_RECIPES.glob("*.json"))
    return [
        random_backbone(folder, r.stem, json.loads(r.read_text())["model_cfg"]) for r in recipes
    ]


def random_backbone(folder: Path, name: str, config: dict[str, Any] | None = None) -> Backbone:
    """A checkpoint with random weights, written to `folder` in open_clip's local-dir layout.

    Without `config` that of open_clip's architecture `name`.
    """
    config = config or open_clip.get_model_config(name)
    target = folder / name
    if not target.exists():
        target.mkdir(parents=True)
        described = {"model_cfg": config, "preprocess_cfg": {}}
        (target / "open_clip_config.json").write_text(json.dumps(described))
        torch.manual_seed(0)
        with quiet_open_clip():
            model = open_clip.create_model(f"local-dir:{target}", load_weights=False)
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(weights, target / "open_clip_model.safetensors")
    return Backbone(name, f"local-dir:{target}")


def load(backbones: Sequence[Backbone], device: str = "auto") -> list[Encoder]:
    return [load_encoder(backbone, device=device) for backbone in backbones]


def photograph(index: int) -> Image.Image:
    """Colours in soft shapes with edges and grain: a JPEG of about 60 KB, as photographs give."""
    rng = np.random.default_rng(index)
    width, height = PHOTO
    shapes = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    soft = np.asarray(shapes.resize(PHOTO, Image.Resampling.BICUBIC), np.float32)
    edges = Image.fromarray(rng.integers(0, 60, (12, 16, 3), dtype=np.uint8))
    hard = np.asarray(edges.resize(PHOTO, Image.Resampling.NEAREST), np.float32)
    grain = rng.normal(0, 9, (height, width, 1))
    return Image.fromarray(np.clip(soft + hard + grain - 30, 0, 255).astype(np.uint8))


def write_photographs(folder: Path, count: int) -> Path:
    """A flat folder of `count` JPEGs of 500 x 375 pixels; kept if it is there."""
    target = folder / f"photographs-{count}"
    target.mkdir(exist_ok=True)
    for index in range(count):
        file = target / f"{index:06}.jpg"
        if not file.exists():
            photograph(index).save(file, quality=90)
    return target


@dataclass(frozen=True, eq=False)
class Pixels(ImageSource):
    """Images that come out of memory, or out of a random generator each time."""

    size: int = field(kw_only=True)
    held: NDArray[np.uint8] | None = field(kw_only=True)  # (n, size, size, 3), used over and over

    @classmethod
    def of(cls, size: int, count: int, held: NDArray[np.uint8] | None = None) -> Pixels:
        ids = tuple(f"{index:07}" for index in range(count))
        labels = np.full(count, -1, np.int32)
        return cls("pixels", "test", ids, labels, size=size, held=held)

    def digest(self, index: int) -> bytes:
        return index.to_bytes(32, "little")

    def image(self, index: int) -> Image.Image:
        if self.held is not None:
            return Image.fromarray(self.held[index % len(self.held)])
        rng = np.random.default_rng(index)
        return Image.fromarray(rng.integers(0, 256, (self.size, self.size, 3), dtype=np.uint8))


def extract(
    store: Path,
    encoders: Sequence[Encoder],
    source: ImageSource,
    perturbation: Perturbation = CLEAN,
    settings: RunSettings | None = None,
) -> FeatureStore:
    """All that `clipsyn extract` does once models are loaded: hash, plan, run, write, publish."""
    job = ExtractSettings(datasets=(source.name,))
    opened = FeatureStore.create(store)
    with progress() as counters:
        work = load_work(opened, job, encoders, [source], [perturbation], progress=counters)
        run(work, settings or RunSettings(), counters)
    return opened

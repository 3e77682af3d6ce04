"""Norms of image embeddings before they are normalised, and what normalising them changes.

    clipsyn run pipelines/quickstart.yaml && python benchmarks/norms.py runs/quickstart/store

This is no benchmark of speed. A store holds embeddings of unit norm only, so the clean test images
of its datasets are encoded again. Class embeddings, logit scales and labels are those of the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from clipsyn.analyses.representation.measures import similarities
from clipsyn.extract.encoder import load_encoder
from clipsyn.extract.images import open_source
from clipsyn.extract.weights import build, locate
from clipsyn.methods.numerics.metrics import judge
from clipsyn.names import Backbone, FeatureKey
from clipsyn.show.tables import show
from clipsyn.store.features import FeatureStore

BATCH = 64


class Raw:
    """A backbone of the store with its embeddings as they are before they are normalised."""

    def __init__(self, store: FeatureStore, key: FeatureKey) -> None:
        backbone = Backbone(key.backbone, store.cell(key).encoder()[1])
        self.encoder = load_encoder(backbone, device="cpu")
        self.model = build(backbone, locate(backbone)).eval()

    def encode(self, images: list[Any]) -> NDArray[np.float32]:
        """(image, embed)."""
        parts = []
        for start in range(0, len(images), BATCH):
            some = images[start : start + BATCH]
            pixels = np.stack([self.encoder.preprocess(image) for image in some])
            with torch.inference_mode():
                parts.append(self.model.encode_image(self.encoder.normalised(pixels)).numpy())
        return np.concatenate(parts)


def measure(store: FeatureStore) -> Iterator[dict[str, Any]]:
    """A row for each dataset and backbone."""
    keys = store.keys(split=["test"], perturbation=["clean"])
    backbones: dict[str, Raw] = {}
    for dataset, group in groupby(keys, key=lambda key: key.dataset):
        cells = list(group)
        source = open_source(dataset, "test")
        images = [source.image(row) for row in range(len(source))]
        for key in cells:
            backbones.setdefault(key.backbone, Raw(store, key))
        raw = {key: backbones[key.backbone].encode(images) for key in cells}
        unit = {key: x / np.linalg.norm(x, axis=1, keepdims=True) for key, x in raw.items()}
        alike = similarities([*raw.values(), *unit.values()])["cka"][0]
        count = len(cells)
        moved = np.abs(alike[:count, :count] - alike[count:, count:])
        for place, key in enumerate(cells):
            row = {"dataset": dataset, "backbone": key.backbone, "cka": alike[place, count + place]}
            yield row | {"moved": moved[place].max()} | effect(store, key, raw[key], unit[key])


def effect(
    store: FeatureStore, key: FeatureKey, raw: NDArray[np.float32], unit: NDArray[np.float32]
) -> dict[str, float]:
    """Norms, and logits of `raw` divided by the mean norm alone against those of `unit`."""
    stored = store.cell(key).embeddings()
    assert np.abs(stored - unit).max() < 2e-3, f"{key} was made from something else"
    norms, labels = np.linalg.norm(raw, axis=1), store.samples(key.dataset, key.split).labels
    classes, scale = store.class_embeddings(
        key.dataset, store.cell(key).prompt_sets()[0], key.backbone
    )
    weights = np.float32(scale) * classes.T
    after, before = (judge(x @ weights, labels) for x in (unit, raw / norms.mean()))
    assert np.array_equal(before.prediction, after.prediction)
    return {
        "norm": norms.mean(),
        "spread": norms.std() / norms.mean(),
        "nll": before.nll.mean() - after.nll.mean(),
    }


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
def main(store: Path) -> None:
    """Norms of the images of a store's datasets, means over datasets."""
    rows = pl.DataFrame(list(measure(FeatureStore.open(store))))
    table = rows.group_by("backbone", maintain_order=True).agg(
        pl.col("norm").mean(),
        pl.col("spread").mean().alias("sd / norm, %"),
        pl.col("spread").max().alias("at most"),
        pl.col("cka").mean().alias("CKA with unit norm"),
        pl.col("cka").min().alias("at least"),
        pl.col("moved").max().alias("largest change of a pair's CKA"),
        pl.col("nll").abs().max().alias("largest change of NLL"),
    )
    percent = ["sd / norm, %", "at most"]
    click.echo(show(table, percent=percent))


if __name__ == "__main__":
    main()

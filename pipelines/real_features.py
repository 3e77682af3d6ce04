"""Image embeddings of real CLIPs that others have published, in the layout of ZLaP.

    python pipelines/real_features.py FEATURES FOLDER

FEATURES has DATASET_PART_BACKBONE.npz, each with `embeddings` (image, embed) and `labels`; the
parts of two backbones are the same images in the same order. FOLDER gets
DATASET/BACKBONE_SPLIT_feats.npy and _targets.npy for the two datasets that have two backbones. Of
FGVC-Aircraft there are test images alone: 16 of each class are drawn from them as a support, three
times, and the rest are the test images; this makes fgvc-aircraft-0, -1 and -2. Where one backbone
has CoOp's support of 16 images a class and its test images, they are coop-DATASET, as the published
numbers of `coop-fewshot` are called.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from clipsyn.errors import ClipsynError, DatasetError
from clipsyn.methods.numerics.samples import few_shot

DRAWS = range(3)
SHOTS = 16


def convert(features: Path, folder: Path) -> None:
    for split, part in (("train", "support16"), ("test", "val")):
        for path in found(features, f"caltech101_{part}_"):
            write(path, folder / "caltech101", {split: slice(None)})
    for path in found(features, "fgvc-aircraft_test_"):
        with np.load(path) as arrays:
            labels = arrays["labels"]
        for draw in DRAWS:
            support = few_shot(labels, SHOTS, draw)
            rest = np.setdiff1d(np.arange(len(labels)), support)
            write(path, folder / f"fgvc-aircraft-{draw}", {"train": support, "test": rest})
    for path in features.glob("*_support16_ViT-B-32.npz"):
        dataset = path.stem.split("_")[0]
        for split, part in (("train", "support16"), ("test", "test")):
            of_part = features / f"{dataset}_{part}_ViT-B-32.npz"
            if of_part.exists():
                write(of_part, folder / f"coop-{dataset}", {split: slice(None)}, "_openai")


def found(features: Path, start: str) -> list[Path]:
    files = sorted(features.glob(f"{start}*.npz"))
    if not files:
        raise DatasetError(f"{features} has no files {start}*.npz: docs/real.md names them")
    return files


def write(path: Path, folder: Path, rows: dict[str, slice | np.ndarray], weights: str = "") -> None:
    """Rows of a file, as the splits of a dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / (path.stem.split("_")[2] + weights)
    with np.load(path) as arrays:
        for split, taken in rows.items():
            np.save(f"{start}_{split}_feats.npy", arrays["embeddings"][taken])
            np.save(f"{start}_{split}_targets.npy", arrays["labels"][taken])


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise SystemExit(__doc__)
    try:
        convert(*map(Path, arguments))
    except (ClipsynError, OSError, KeyError) as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])

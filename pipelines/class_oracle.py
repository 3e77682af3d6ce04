"""The accuracy of the best backbone for each class, from published accuracies by class.

    python pipelines/class_oracle.py FOLDER [PROMPTS]

FOLDER is zero_shot_evaluations/ of bethgelab's repository frequency_determines_performance, with
files DATASET_PROMPTS_results.json; docs/real.md says how to fetch it. A Parquet file with the
columns dataset, prompts, architecture, pretrained, class and accuracy will do as well. Prints the
table for one prompt set, the source's "ensemble" if none is given.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from clipsyn.errors import ClipsynError, DatasetError
from clipsyn.show.tables import show

_ENDING = "_results.json"


def read(path: Path) -> pl.DataFrame:
    """A row for each dataset, prompt set, model and class; accuracy in percent."""
    if path.is_file():
        return pl.read_parquet(path).with_columns(
            model=pl.concat_str("architecture", "pretrained", separator="/")
        )
    rows = [row for file in sorted(path.glob(f"*{_ENDING}")) for row in _rows(file)]
    if not rows:
        raise DatasetError(f"{path} has no file *{_ENDING}: docs/real.md says how to fetch them")
    names = ["dataset", "prompts", "model", "class", "accuracy"]
    return pl.DataFrame(rows, schema=names, orient="row")


def _rows(file: Path) -> Iterator[tuple[str, str, str, str, float]]:
    dataset, _, prompts = file.name.removesuffix(_ENDING).rpartition("_")
    for key, results in json.loads(file.read_bytes()).items():
        model = key.removeprefix("backbone").replace("_pretrained", "/")
        for name, accuracy in results["classwise"].items():
            yield dataset, prompts, model, name, accuracy


def class_oracles(frame: pl.DataFrame, prompts: str) -> pl.DataFrame:
    """A row for each dataset: mean accuracy over classes of the best model for all classes, and of
    the best model for each class.

    Raises DatasetError where a model lacks a class, and for unknown prompts.
    """
    rows = []
    chosen = frame.filter(prompts=prompts).sort("dataset", maintain_order=True)
    for (dataset,), rows_of_one in chosen.group_by("dataset", maintain_order=True):
        wide = rows_of_one.pivot("class", index="model", values="accuracy", maintain_order=True)
        accuracy = wide.drop("model").to_numpy()  # (backbone, class)
        if np.isnan(accuracy.astype(float)).any():
            raise DatasetError(
                f"{dataset}, {prompts}: not every model has an accuracy of every class"
            )
        means = accuracy.mean(axis=1)
        best = int(means.argmax())
        oracle = accuracy.max(axis=0).mean()
        rows.append(
            {
                "dataset": dataset,
                "classes": accuracy.shape[1],
                "best": wide["model"][best],
                "mean per class": means[best] / 100,
                "class oracle": oracle / 100,
                "gain": (oracle - means[best]) / 100,
            }
        )
    if not rows:
        known = ", ".join(sorted(frame["prompts"].unique()))
        raise DatasetError(f"there are no prompts '{prompts}': choose one of {known}")
    return pl.DataFrame(rows)


def table(oracles: pl.DataFrame) -> str:
    return show(oracles, percent=["mean per class", "class oracle", "gain"])


def main(arguments: list[str]) -> None:
    if not 1 <= len(arguments) <= 2:
        raise SystemExit(__doc__)
    path, prompts = Path(arguments[0]), [*arguments[1:], "ensemble"][0]
    try:
        oracles = class_oracles(read(path), prompts)
    except (ClipsynError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None
    sys.stdout.write(table(oracles) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""How far the best backbone for each class could go, from accuracies by class alone.

    python pipelines/class_oracle.py FOLDER [PROMPTS]

FOLDER has the files DATASET_PROMPTS_results.json of frequency_determines_performance, a repository
of bethgelab's, in its zero_shot_evaluations/; docs/real.md says how to fetch them. A Parquet file
with the columns dataset, prompts, architecture, pretrained, class and accuracy will do as well.
Prints the table of docs/real.md for one prompt set, the source's "ensemble" if none is given.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from clipsyn.analyses.oracle.measures import class_oracle
from clipsyn.errors import ClipsynError, DatasetError
from clipsyn.show.tables import show

_ENDING = "_results.json"


def read(path: Path) -> pl.DataFrame:
    """A row a dataset, prompt set, model and class; accuracy in percent."""
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
    for key, found in json.loads(file.read_bytes()).items():
        model = key.removeprefix("backbone").replace("_pretrained", "/")
        for name, accuracy in found["classwise"].items():
            yield dataset, prompts, model, name, accuracy


def class_oracles(frame: pl.DataFrame, prompts: str) -> pl.DataFrame:
    """A row a dataset: means over classes of the best model and of the best for each class.

    Raises DatasetError where a model lacks a class.
    """
    rows = []
    chosen = frame.filter(prompts=prompts).sort("dataset", maintain_order=True)
    for (dataset,), of in chosen.group_by("dataset", maintain_order=True):
        wide = of.pivot("class", index="model", values="accuracy", maintain_order=True)
        accuracy = wide.drop("model").to_numpy()  # (backbone, class)
        if np.isnan(accuracy.astype(float)).any():
            raise DatasetError(
                f"{dataset}, {prompts}: not every model has an accuracy of every class"
            )
        means = accuracy.mean(axis=1)
        best = int(means.argmax())
        oracle = class_oracle(accuracy)
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


def table(found: pl.DataFrame) -> str:
    return show(found, percent=["mean per class", "class oracle", "gain"])


def main(arguments: list[str]) -> None:
    if not 1 <= len(arguments) <= 2:
        raise SystemExit(__doc__)
    path, prompts = Path(arguments[0]), [*arguments[1:], "ensemble"][0]
    try:
        found = class_oracles(read(path), prompts)
    except (ClipsynError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

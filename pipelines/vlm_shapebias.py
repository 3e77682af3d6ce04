"""The predictions that vlm_shapebias has published, as tables that `clipsyn import` reads.

    python pipelines/vlm_shapebias.py PREDICTIONS FOLDER

PREDICTIONS is raw-data/clip/ of https://github.com/paulgavrikov/vlm_shapebias, with a file for each
model and prompt set. FOLDER gets a table for each prompt set, with all models: CLS.csv,
a_photo_of_a_CLS.csv and templates.csv. The true class of a cue-conflict image is its shape, with
which its name starts: that of airplane1-bicycle2 is airplane.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from clipsyn.errors import ClipsynError, DatasetError

PROMPTS = {  # how the files of a prompt set end, and what its table is called
    "_CLS.csv": "CLS.csv",
    "_a_photo_of_a_CLS..csv": "a_photo_of_a_CLS.csv",
    "_None.csv": "templates.csv",
}
_SHAPE = r"^([a-z]+)\d+-[a-z]+\d+$"  # airplane1-bicycle2: shape of the one, texture of the other


def table(path: Path, ending: str) -> pl.DataFrame:
    """The predictions of one model under one prompt set."""
    frame = pl.read_csv(path, infer_schema=False).select(
        id="image",
        backbone=pl.lit(path.name.removesuffix(ending)),
        prediction="pred_label",
        confidence="pred_conf",
        label=pl.col("image").str.extract(_SHAPE),
    )
    strange = frame.filter(pl.col("label").is_null())["id"]
    if len(strange):
        raise DatasetError(f"{path}: image '{strange[0]}' does not say its shape")
    return frame


def convert(predictions: Path, folder: Path) -> None:
    for ending, name in PROMPTS.items():
        files = sorted(predictions.glob(f"*{ending}"))
        if not files:
            raise DatasetError(f"{predictions} has no files *{ending}: docs/real.md fetches them")
        folder.mkdir(parents=True, exist_ok=True)
        pl.concat([table(path, ending) for path in files]).write_csv(folder / name)


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise SystemExit(__doc__)
    try:
        convert(*map(Path, arguments))
    except (ClipsynError, pl.exceptions.PolarsError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])

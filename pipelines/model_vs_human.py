"""The answers that model-vs-human has published, as tables that `clipsyn import` reads.

    python pipelines/model_vs_human.py ANSWERS FOLDER

ANSWERS is raw-data/ of https://github.com/bethgelab/model-vs-human, or a folder with files of it:
EXPERIMENT_SUBJECT_SESSION.csv. FOLDER gets EXPERIMENT.csv for each experiment, with all subjects
and sessions, and classes.txt with the 16 classes of them all; docs/importing.md says what follows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from clipsyn.errors import ClipsynError, DatasetError
from clipsyn.methods.numerics.logits import NONE_OF_THEM

CLASSES = (
    *("airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat"),
    *("chair", "clock", "dog", "elephant", "keyboard", "knife", "oven", "truck"),
)
# What the conditions of an experiment are (Geirhos et al., "Partial success in closing the gap
# between human and machine vision", NeurIPS 2021): the perturbation, the condition that changes
# nothing, and the others, from the mildest. Of rotation they are degrees: no angle is worse than
# another. The eidolon experiments change every image, and four experiments have one condition.
EXPERIMENTS = {
    "colour": ("grayscale", "cr", "bw"),
    "contrast": ("contrast", "c100", "c50 c30 c15 c10 c05 c03 c01"),
    "cue-conflict": ("", "nan", ""),
    "edge": ("", "nan", ""),
    "eidolonI": (
        "eidolon_i",
        "",
        "1-10-10 2-10-10 4-10-10 8-10-10 16-10-10 32-10-10 64-10-10 128-10-10",
    ),
    "eidolonII": (
        "eidolon_ii",
        "",
        "1-3-10 2-3-10 4-3-10 8-3-10 16-3-10 32-3-10 64-3-10 128-3-10",
    ),
    "eidolonIII": (
        "eidolon_iii",
        "",
        "1-0-10 2-0-10 4-0-10 8-0-10 16-0-10 32-0-10 64-0-10 128-0-10",
    ),
    "false-colour": ("false_colour", "true", "false"),
    "high-pass": ("high_pass", "inf", "3 1.5 1 0.7 0.55 0.45 0.4"),
    "low-pass": ("low_pass", "0", "1 3 5 7 10 15 40"),
    "phase-scrambling": ("phase_scrambling", "0", "30 60 90 120 150 180"),
    "power-equalisation": ("power_equalisation", "0", "pow"),
    "rotation": ("rotation", "0", "90 180 270"),
    "silhouette": ("", "nan", ""),
    "sketch": ("", "0", ""),
    "stylized": ("", "0", ""),
    "uniform-noise": ("uniform_noise", "0", "0.03 0.05 0.1 0.2 0.35 0.6 0.9"),
}
# What of an image's name is the image: what follows the last _, or the ImageNet name n0…_… there;
# trial, subject, condition and class go before it.
_IMAGE = r"(?:^|_)(n0\d+[^_]*_[^_]*|[^_]*)$"


def perturbations(experiment: str) -> dict[str, str]:
    """The label of each condition, spelt as by `spelt`."""
    name, clean, changed = EXPERIMENTS[experiment]
    labels = {clean: "clean"} if clean else {}
    for severity, condition in enumerate(changed.split(), 1):
        labels[condition] = f"{name}-{condition if name == 'rotation' else severity}"
    return labels


def spelt(condition: str) -> str:
    """A condition as EXPERIMENTS has it: ``True`` is ``true``, ``0.10`` is ``0.1``."""
    try:
        return f"{float(condition):g}"
    except ValueError:
        return condition.lower()


def table(path: Path, experiment: str) -> pl.DataFrame:
    """The answers in one file. One that came too late, na, is none of the classes, and wrong."""
    frame = pl.read_csv(path, infer_schema=False).rename(str.lower)
    labels = perturbations(experiment)
    shown = {name: labels.get(spelt(name or "nan")) for name in frame["condition"].unique()}
    if unknown := sorted(str(name) for name, label in shown.items() if label is None):
        raise DatasetError(f"{path}: {experiment} has no condition {', '.join(unknown)}")
    return frame.select(
        id=pl.col("imagename").str.extract(_IMAGE),
        backbone="subj",
        perturbation=pl.col("condition").replace_strict(shown),
        prediction=pl.col("object_response").replace("na", NONE_OF_THEM),
        label="category",
    )


def convert(answers: Path, folder: Path) -> None:
    files = sorted(answers.rglob("*.csv"))
    found = [(path, path.stem.partition("_")[0]) for path in files]
    if not files:
        raise DatasetError(f"{answers} has no CSV files: docs/real.md says how to fetch them")
    for path, name in found:
        if name not in EXPERIMENTS:
            raise DatasetError(f"{path} starts with no experiment: {', '.join(EXPERIMENTS)}")
    folder.mkdir(parents=True, exist_ok=True)
    for experiment in sorted({name for _, name in found}):
        tables = [table(path, name) for path, name in found if name == experiment]
        pl.concat(tables).write_csv(folder / f"{experiment}.csv")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise SystemExit(__doc__)
    try:
        convert(*map(Path, arguments))
    except (ClipsynError, pl.exceptions.PolarsError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])

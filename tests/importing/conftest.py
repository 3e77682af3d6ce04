"""Files as others write them."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

CATEGORIES = ("airplane", "bear", "cat", "dog")
CONDITIONS = ("c100", "c30", "c05")


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Function (header, rows, name) -> a CSV file."""

    def write(
        header: Sequence[str], rows: Sequence[Sequence[object]], name: str = "mine.csv"
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def responses(tmp_path: Path) -> tuple[Path, dict[tuple[str, str, str], str]]:
    """A miniature of model-vs-human's raw-data/contrast, and what everybody answered.

    Twelve images, four under each of three conditions; two human subjects, in two sessions and in
    an order of their own, with "na" where they were too late; two models. Names of images carry
    trial and subject. Answers are by (subject, condition, image).
    """
    generator = random.Random(0)
    images = [
        (f"n0{100 + row}_{37 * row}.png", CATEGORIES[row % 4], CONDITIONS[row // 4])
        for row in range(12)
    ]
    folder, answers = tmp_path / "contrast", {}
    folder.mkdir()
    for subject, code in (
        ("subject-01", "s01"),
        ("subject-02", "s02"),
        ("net", "dnn"),
        ("vit", "dnn"),
    ):
        human = code != "dnn"
        order = generator.sample(images, 12)
        for session in (1, 2) if human else (1,):
            part = order[6 * session - 6 : 6 * session] if human else order
            header = ["subj", "Session" if human else "session", "trial", "rt"]
            lines = [[*header, "object_response", "Category", "condition", "imagename"]]
            for trial, (image, category, condition) in enumerate(part, 1):
                answer = generator.choice([*CATEGORIES, category, "na" if human else category])
                answers[subject, condition, image] = answer
                name = f"{trial:04d}_cop_{code}_{condition}_{category}_10_{image}"
                rt = "0.91" if human else "NaN"
                lines.append([subject, session, trial, rt, answer, category, condition, name])
            with (folder / f"contrast_{subject}_session_{session}.csv").open("w") as file:
                csv.writer(file).writerows(lines)
    return folder, answers

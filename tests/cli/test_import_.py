"""`clipsyn import` and `export`, and every command on a store of imports alone."""

import csv
import json

import polars as pl
import pytest

# `clipsyn import`, and every command on a store of imports alone


HEADER = ("MODEL", "prediction", "label", "severity", "id")
CATEGORIES = ("bear", "cat", "dog")
SEVERITIES = (0, 30, 5)
SUBJECTS = ("subject-01", "net", "vit")


@pytest.fixture
def contrast(tmp_path):
    """Answers of three subjects to 36 images, twelve under each of three conditions."""
    folder = tmp_path / "contrast"
    folder.mkdir()
    for number, subject in enumerate(SUBJECTS):
        rows = []
        for image in range(36):
            category, severity = CATEGORIES[image % 3], SEVERITIES[image // 12]
            wrong = (image * 7 + number) % 4 < image // 12 + (number > 0)
            answer = CATEGORIES[(image + 1 + number % 2) % 3] if wrong else category
            rows.append([subject, answer, category, severity, f"n01_{image}.png"])
        with (folder / f"{subject}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])
    return folder


@pytest.fixture
def answered(clipsyn, contrast, tmp_path):
    """The store of these answers."""
    options = ("-d", "contrast", "-p", "contrast")
    assert clipsyn("import", tmp_path / "store", contrast, *options).exit_code == 0
    return tmp_path / "store"


@pytest.fixture
def mine(tmp_path):
    """Function (columns) -> a CSV file."""

    def write(**columns):
        pl.DataFrame({name: list(values) for name, values in columns.items()}).write_csv(
            tmp_path / "mine.csv"
        )
        return tmp_path / "mine.csv"

    return write


@pytest.fixture
def again(clipsyn, fails, mine, tmp_path):
    """Function (exit code, columns, options) -> what is said of these, where others were before."""
    line = ("import", tmp_path / "store", mine(id="ab", pred="01", label="00"), "-d", "toy")
    result = clipsyn(*line)
    (row,) = [line.split() for line in result.stdout.splitlines()[2:]]
    assert row == ["toy", "test", "clean", "mine", "predictions", "2", "2", "50.0", "new"]
    assert "--classes FILE would name them all" in result.stderr

    def run(code, columns, *options):
        mine(**columns)
        return fails(code, *line, *options)

    return run


@pytest.mark.parametrize(
    ("columns", "options", "code", "sentence"),
    [
        ({"id": "aa", "pred": "01"}, (), 3, "1 id occurs more than once (a)"),
        ({"id": "ab", "pred": "11"}, (), 4, "add --replace, or give it another name"),
        ({"id": "ab", "pred": "01"}, ("--names", "c=a,c=b"), 2, "c=a,c=b gives a name twice"),
        ({"id": "ab", "pred": "01"}, ("--columns", "ids=id"), 2, "did you mean id"),
    ],
)
def test_import_refuses_mistakes(again, columns, options, code, sentence):
    assert sentence in again(code, columns, *options)


def test_predictions_are_enough_for_accuracies_and_not_for_ensembles(
    clipsyn, fails, answered, contrast, tmp_path
):
    rows = json.loads(clipsyn("zeroshot", answered, "-o", "-").stdout)
    found = {
        (row["perturbation"], *row["backbones"]): (round(12 * row["value"]), row["n"])
        for row in rows
        if row["metric"] == "acc1" and row["ensemble"] == "single"
    }
    right = {"clean": (12, 9, 9), "contrast-30": (9, 6, 6), "contrast-5": (6, 3, 3)}
    assert found == {
        (label, subject): (n, 12)
        for label, each in right.items()
        for subject, n in zip(SUBJECTS, each, strict=True)
    }
    clipsyn("import", answered, contrast, "-d", "contrast", "-s", "train", "-p", "contrast")
    wanted = "was imported as predictions, without logits: choose other cells with --backbones"
    assert wanted in fails(4, "fit", answered, "-d", "contrast", "-o", tmp_path / "router")
    assert wanted in fails(4, "cascade", answered)

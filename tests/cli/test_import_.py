"""`clipsyn import` and `export`, and every command on a store of imports alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from clipsyn.exchange import LAYOUTS
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore

# `clipsyn import`, and every command on a store of imports alone


HEADER = ("MODEL", "prediction", "label", "severity", "id")
CATEGORIES = ("bear", "cat", "dog")
SEVERITIES = (0, 30, 5)
SUBJECTS = ("subject-01", "net", "vit")


@pytest.fixture
def contrast(tmp_path: Path) -> Path:
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
def answered(clipsyn: Callable[..., Any], contrast: Path, tmp_path: Path) -> Path:
    """The store of these answers."""
    options = ("-d", "contrast", "-p", "contrast")
    assert clipsyn("import", tmp_path / "store", contrast, *options).exit_code == 0
    return tmp_path / "store"


@pytest.fixture
def scored(clipsyn: Callable[..., Any], tmp_path: Path) -> Path:
    """A store of logits alone: three backbones, two splits of 60 images, three classes."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    for split in ("train", "test"):
        for name in ("one", "two", "three"):
            logits = generator.normal(size=(60, 3))
            logits[np.arange(60), labels] += 1.5
            ids = np.array([f"{split}{row}" for row in range(60)])
            np.savez(tmp_path / f"{name}.npz", logits=logits, ids=ids, labels=labels)
            options = ("-d", "toy", "-s", split, "--kind", "logits")
            result = clipsyn("import", tmp_path / "scored", tmp_path / f"{name}.npz", *options)
            assert result.exit_code == 0, result.output
    return tmp_path / "scored"


def write(path: Path, **columns: list[Any]) -> Path:
    pl.DataFrame(columns).write_csv(path)
    return path


class TestTheCommand:
    @pytest.fixture
    def mine(self, tmp_path: Path) -> Path:
        return write(tmp_path / "mine.csv", id=["a", "b"], prediction=[0, 1], label=[0, 0])

    @pytest.fixture
    def imported(self, clipsyn: Any, fails: Any, mine: Path, tmp_path: Path) -> Callable[..., str]:
        """Import columns that must fail into a store that has mine.csv; what is said."""
        clipsyn("import", tmp_path / "store", mine, "-d", "toy")

        def run(code: int, columns: dict[str, Any], *options: str) -> str:
            path = write(mine, **{name: list(values) for name, values in columns.items()})
            said: str = fails(code, "import", tmp_path / "store", path, "-d", "toy", *options)
            return said

        return run

    def test_says_what_is_there_now(self, clipsyn: Any, mine: Path, tmp_path: Path) -> None:
        result = clipsyn("import", tmp_path / "store", mine, "-d", "toy")
        rule, *rows = result.stdout.split("\n")[1:-1]
        assert set(rule) == {"─"}
        assert [row.split() for row in rows] == [
            ["toy", "test", "clean", "mine", "predictions", "2", "2", "50.0", "new"]
        ]
        assert "--classes FILE would name them all" in result.stderr

    @pytest.mark.parametrize(
        ("columns", "options", "code", "sentence"),
        [
            ({"id": "aa", "pred": "01"}, (), 3, "1 ids occur more than once (a)"),
            ({"id": "ab", "pred": "11"}, (), 4, "add --replace, or give it another name"),
            ({"id": "ab", "pred": "01"}, ("--names", "c=a,c=b"), 2, "c=a,c=b gives a name twice"),
            ({"id": "ab", "pred": "01"}, ("--columns", "ids=id"), 2, "did you mean id"),
        ],
    )
    def test_mistakes(self, imported, columns, options, code, sentence):
        assert sentence in imported(code, columns, *options)


class TestPredictionsAreEnoughFor:
    def test_zeroshot(self, clipsyn: Any, answered: Path) -> None:
        rows = json.loads(clipsyn("zeroshot", answered, "-o", "-").stdout)
        found = {
            (row["perturbation"], *row["backbones"]): (row["value"], row["n"])
            for row in rows
            if row["metric"] == "acc1" and row["ensemble"] == "single"
        }
        assert found == {
            (label, subject): (pytest.approx(right / 12), 12)
            for label, rights in (("clean", (12, 9, 9)), ("contrast-30", (9, 6, 6)))
            for subject, right in zip(SUBJECTS, rights, strict=True)
        } | {
            ("contrast-5", "subject-01"): (0.5, 12),
            ("contrast-5", "net"): (0.25, 12),
            ("contrast-5", "vit"): (0.25, 12),
        }


class TestPredictionsAreNotEnoughFor:
    def test_fit_and_cascade_with_a_train_split(self, clipsyn, fails, answered, contrast, tmp_path):
        options = ("-s", "train", "-p", "contrast")
        clipsyn("import", answered, contrast, "-d", "contrast", *options)
        wanted = "was imported as predictions, without logits: choose other cells with --backbones"
        assert wanted in fails(4, "fit", answered, "-d", "contrast", "-o", tmp_path / "router")
        assert wanted in fails(4, "cascade", answered)


class TestLogits:
    def test_are_enough_for_ensembles(self, clipsyn: Any, scored: Path) -> None:
        options = "--shots 4 --seeds 1 --ensembles log-avg,super-learner"
        rows = json.loads(clipsyn("evaluate", scored, *options.split(), "-o", "-").stdout)
        accuracy = {row["ensemble"]: row["value"] for row in rows if row["metric"] == "acc1"}
        assert min(accuracy["log-avg"], accuracy["super-learner"]) > 0.7


class TestEmbeddingsWithClasses:
    """Embeddings with class embeddings and scale serve all that extracted cells do."""

    @pytest.fixture
    def embedded(self, clipsyn: Any, tmp_path: Path) -> Path:
        """Two backbones, two splits of 60 images, three classes."""
        generator = np.random.default_rng(0)
        labels = np.arange(60) % 3
        for name, width in (("one", 4), ("two", 5)):
            texts = generator.normal(size=(3, width))
            for split in ("train", "test"):
                arrays = {
                    "embeddings": texts[labels] + 1.5 * generator.normal(size=(60, width)),
                    "ids": [f"im{row:02}" for row in range(60)],
                    "labels": labels,
                    "class_embeddings": texts,
                    "logit_scale": 20.0,
                }
                options = ("-d", "toy", "-s", split, "--prompts", "simple")
                np.savez(tmp_path / f"{name}.npz", **arrays)
                done = clipsyn("import", tmp_path / "store", tmp_path / f"{name}.npz", *options)
                assert done.exit_code == 0, done.output
        return tmp_path / "store"

    def test_heads_and_ensembles_are_fitted(self, clipsyn: Any, embedded: Path) -> None:
        heads = "zero-shot,linear-probe,lda,tip-adapter,anchored-probe"
        options = ("--shots", "8", "--seeds", "1", "--heads", heads, "--ensembles", "nlc,log-avg")
        rows = json.loads(clipsyn("evaluate", embedded, *options, "-o", "-").stdout)
        found = {
            (row["head"], row["ensemble"]): row["value"]
            for row in rows
            if row["metric"] == "acc1" and row["ensemble"] in ("nlc", "log-avg")
        }
        assert len(found) == 10
        assert min(found.values()) > 0.5


class TestWhatPredictWrites:
    @pytest.fixture
    def written(self, clipsyn: Any, tiny_store: FeatureStore, tmp_path: Path) -> Path:
        router, path = tmp_path / "router", tmp_path / "predictions.csv"
        clipsyn("fit", tiny_store.path, "-d", "toy", "--ensemble", "log-avg", "-o", router)
        clipsyn("predict", router, tiny_store.path, "-o", path)
        return path

    def test_is_predictions(self, clipsyn, tiny_store, written, tmp_path):
        columns = ("--columns", "prediction=class,confidence=probability")
        result = clipsyn("import", tmp_path / "other", written, "-d", "food", *columns, "-o", "-")
        (cell,) = json.loads(result.stdout)
        assert (cell["kind"], cell["images"], cell["valid"]) == ("predictions", 20, 20)
        store, said = FeatureStore.open(tmp_path / "other"), pl.read_csv(written)["class"]
        names = store.samples("food", "test").class_names
        assert names == tuple(sorted(set(said)))
        found = store.cell(FeatureKey("food", "test", "clean", "predictions")).predictions(
            "imported"
        )
        assert [names[index] for index in found] == said.to_list()


# `clipsyn export`, and what `clipsyn import` makes of it


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_store_goes_out_and_comes_back(clipsyn, tiny_store, tmp_path, layout):
    out = tmp_path / "out"
    said = clipsyn("export", tiny_store.path, out, "--layout", layout, "-s", "test")
    assert said.stdout == f"4 cells written to {out}, with README.md\n"
    result = clipsyn("import", tmp_path / "again", out)
    assert result.exit_code == 0, result.output
    again = FeatureStore.open(tmp_path / "again")
    assert again.keys() == tiny_store.keys(split=["test"])
    back, gone = (
        json.loads(clipsyn("zeroshot", path, "-s", "test", "-o", "-").stdout)[0]["value"]
        for path in (tmp_path / "again", tiny_store.path)
    )
    assert back == gone


def test_what_cannot_be(fails, tiny_store, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").touch()
    assert "is there already" in fails(2, "export", tiny_store.path, tmp_path / "there")
    assert "did you mean" in fails(2, "export", tiny_store.path, tmp_path / "n", "-b", "fake/tow")
    assert "is no feature store" in fails(4, "export", tmp_path / "none", tmp_path / "n")
    assert not (tmp_path / "n").exists()

"""Files of predictions: what is added is there, whatever is killed meanwhile."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.evaluation.results.frame import ABOUT
from clipsyn.evaluation.results.predictions import (
    PREDICTIONS,
    Predicted,
    PredictionsFile,
    scan,
    subjects,
)
from clipsyn.store.samples import SampleTable

LABELS = np.array([0, 1, 1, -1, 2], np.int32)


@pytest.fixture
def samples() -> SampleTable:
    content = np.zeros((5, 32), np.uint8)
    content[:4] = np.arange(1, 5)[:, None]
    ids = ("a.png", "b.png", "ç=1", "d.png", "e.png")
    return SampleTable("birds", "test", ids, LABELS, content, ("x", "y", "z"))


def predicted(name: str = "log-avg", made_from: str = "here", **changes) -> Predicted:
    about = dict.fromkeys(ABOUT) | {
        "dataset": "birds",
        "split": "test",
        "perturbation": "clean",
        "head": "zero-shot",
        "ensemble": name,
        "backbones": ["a/x", 'b/"y"'],
        "prompts": "own",
        "classes": "all",
        "shots": "0",
    }
    about |= changes
    made_of = f"{name} {about['seed']} {made_from}"
    rows = np.array([0, 1, 2, 4])
    confidence = np.array([0.5, 0.75, 1, 0.25], np.float32)
    about |= {"fingerprint": made_of, "data": {"labels": "1f"}}
    return Predicted(about, rows, np.array([0, 1, 2, 2]), confidence)


def test_a_row_is_an_image_with_all_that_its_results_are_named_by(samples, tmp_path):
    path = tmp_path / "deep" / "p.parquet"
    with PredictionsFile(path) as file:
        file.add(
            [(1, predicted()), (1, predicted("vote-1")._replace(confidence=None))], [None, samples]
        )
    frame = pl.read_parquet(path)
    assert dict(frame.schema) == PREDICTIONS
    assert frame["sample_id"].to_list() == ["a.png", "b.png", "ç=1", "e.png"] * 2
    assert frame["label"].to_list() == [0, 1, 1, 2] * 2
    assert frame["prediction"].to_list() == [0, 1, 2, 2] * 2
    assert frame["confidence"].to_list() == [0.5, 0.75, 1, 0.25, None, None, None, None]
    assert frame["ensemble"].to_list() == ["log-avg"] * 4 + ["vote-1"] * 4
    assert json.loads(frame["backbones"].unique().item()) == ["a/x", 'b/"y"']
    assert frame["seed"].is_null().all()
    images = frame["image"].to_list()[:4]
    assert images[:3] == [int.from_bytes(bytes([value] * 8), "little") for value in (1, 2, 3)]
    assert images[3] is None  # nobody has seen it


def test_one_file_grows_and_what_it_knows_is_not_added_again(samples, tmp_path):
    path = tmp_path / "p.parquet"
    with PredictionsFile(path) as file:
        file.add([(0, predicted())], [samples])
    with PredictionsFile(path) as file:
        assert file.known == {"log-avg None here"}
        file.add([(0, predicted()), (0, predicted("nlc", seed=1))], [samples])
    assert subjects(path).select("ensemble", "seed", "n").rows() == [
        ("log-avg", None, 4),
        ("nlc", 1, 4),
    ]
    assert len(pl.read_parquet(path)) == 8
    assert [it.name for it in tmp_path.iterdir()] == ["p.parquet"]


def test_other_predictions_under_the_same_names_are_refused_or_replace_them(samples, tmp_path):
    path = tmp_path / "p.parquet"
    with PredictionsFile(path) as file:
        file.add([(0, predicted()), (0, predicted("nlc"))], [samples])
    before = sorted(path.iterdir())
    with (
        PredictionsFile(path) as file,
        pytest.raises(ConflictingResults),
    ):
        file.add([(0, predicted(made_from="there"))], [samples])
    assert sorted(path.iterdir()) == before
    with PredictionsFile(path, replace=True) as file:
        file.add([(0, predicted(made_from="there"))], [samples])
        assert file.known == {"log-avg None there", "nlc None here"}
    kept = subjects(path).select("ensemble", "fingerprint").rows()
    assert sorted(kept) == [("log-avg", "log-avg None there"), ("nlc", "nlc None here")]
    assert len(pl.read_parquet(path)) == 8


def test_without_a_path_nothing_is_kept(samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with PredictionsFile(None) as file:
        file.add([(0, predicted())], [samples])
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("content", [b"no parquet", None])
def test_a_file_of_something_else_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "p.parquet"
    pl.DataFrame({"x": [1]}).write_parquet(path) if content is None else path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(UsageError):
        PredictionsFile(path)
    with pytest.raises(UsageError, match="evaluate STORE -o"):
        scan(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("shots", [None, "many", "-1"])
def test_a_file_that_others_wrote_has_shots_everywhere(samples, tmp_path, shots):
    path = tmp_path / "p.parquet"
    with PredictionsFile(path) as file:
        file.add([(0, predicted()), (0, predicted("nlc", shots=shots))], [samples])
    with pytest.raises(UsageError, match="shots"):
        subjects(path)

"""Frames as files: complete or not at all."""

from __future__ import annotations

import json
import math

import polars as pl
import pytest

from clipsyn.errors import UsageError
from clipsyn.frames import to_json, write


@pytest.fixture
def results() -> pl.DataFrame:
    return pl.DataFrame({"backbones": ["a", "b"], "value": [0.5, None], "n": [3, 4]})


def test_json_has_null_for_nan():
    frame = pl.DataFrame({"x": [1.5, math.nan, None], "name": ["é", "b", None]})
    assert json.loads(to_json(frame)) == [
        {"x": 1.5, "name": "é"},
        {"x": None, "name": "b"},
        {"x": None, "name": None},
    ]
    assert "é" in to_json(frame)


def test_files_hold_the_frame(results, tmp_path):
    write(results, csv=tmp_path / "r.csv", parquet=tmp_path / "r.parquet")
    assert pl.read_parquet(tmp_path / "r.parquet").equals(results)
    assert pl.read_csv(tmp_path / "r.csv", schema=results.schema).equals(results)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.parquet"]


def test_nothing_asked_for_nothing_written(results, tmp_path):
    write(results)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_folder_that_is_missing_is_one_sentence(results, tmp_path, kind):
    with pytest.raises(UsageError, match=r"cannot write .*nowhere.*existing folder"):
        write(results, **{kind: tmp_path / "nowhere" / "r"})


def test_a_file_survives_a_failed_rewrite(results, tmp_path):
    target = tmp_path / "r.csv"
    target.mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        write(results, csv=target)
    assert list(tmp_path.iterdir()) == [target]

"""Frames as files: complete or not at all."""

from __future__ import annotations

import json
import math
import threading
import time

import polars as pl
import pytest

from clipsyn.errors import UsageError
from clipsyn.frames import locked, make_folder_of, to_json, write


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


def test_folders_are_made_unless_a_file_is_in_the_way(tmp_path):
    make_folder_of(tmp_path / "a" / "b" / "r.csv")
    make_folder_of(tmp_path / "a" / "b" / "r.csv")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*file/r\.csv"):
        make_folder_of(tmp_path / "file" / "r.csv")


def test_only_one_at_a_time_holds_a_lock(tmp_path):
    path, inside, most = tmp_path / "r.parquet", 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with locked(path):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_left_behind_holds_nothing(tmp_path):
    (tmp_path / ".r.parquet.lock").touch()
    with locked(tmp_path / "r.parquet"):
        pass
    assert list(tmp_path.iterdir()) == []

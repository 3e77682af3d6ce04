"""Frames as files: complete or not at all."""

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import UsageError
from clipsyn.show.files import check_place
from clipsyn.show.frames import guarded, printable_frame, read_parquet, to_json, unguarded, write


@pytest.fixture
def results():
    return pl.DataFrame({"backbones": ["a", "b"], "value": [0.5, None], "n": [3, 4]})


def test_damaged_parquet_files_are_refused(tmp_path):
    """Never a panic, which is no Exception; what is read in spite of it has the rows it had."""
    path = tmp_path / "mine.parquet"
    frame = pl.DataFrame({"x": [1, 2, 2] * 50, "y": ["a", None, "b"] * 50, "z": [[1.0, 2.0]] * 150})
    frame.write_parquet(path, row_group_size=50)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for at in rng.integers(4, len(whole), 300):
        changed = bytearray(whole)
        changed[at] ^= int(rng.integers(1, 256))
        path.write_bytes(changed[: len(changed) - int(at) % 3])
        with suppress(OSError, pl.exceptions.PolarsError):
            assert len(read_parquet(path)) <= 150


def test_json_has_null_for_nan():
    frame = pl.DataFrame({"x": [1.5, math.nan, None], "name": ["é", "b", None]})
    assert json.loads(to_json(frame)) == [
        {"x": 1.5, "name": "é"},
        {"x": None, "name": "b"},
        {"x": None, "name": None},
    ]
    assert "é" in to_json(frame)


LISTS = pl.DataFrame(
    {"backbones": [["a", 'b "c", d'], [], None, ["=e\x1b"]]},
    schema={"backbones": pl.List(pl.String)},
)


def test_a_list_of_names_is_json_in_a_csv_file(tmp_path):
    """The rule of docs/evaluating.md, and how it is read back."""
    write(LISTS, csv=tmp_path / "r.csv", parquet=tmp_path / "r.parquet")
    assert pl.read_parquet(tmp_path / "r.parquet").equals(LISTS)
    read = pl.read_csv(tmp_path / "r.csv")
    assert [text and json.loads(text) for text in read["backbones"]] == LISTS["backbones"].to_list()
    names = pl.col("backbones").str.json_decode(pl.List(pl.String))
    assert read.with_columns(names).equals(LISTS)


def test_what_is_for_programs_stays_out_of_a_csv_file(tmp_path):
    frame = pl.DataFrame({"n": [1, 2], "data": [{"labels": "1f"}, None]})
    write(frame, csv=tmp_path / "r.csv", parquet=tmp_path / "r.parquet")
    assert pl.read_csv(tmp_path / "r.csv").columns == ["n"]
    assert pl.read_parquet(tmp_path / "r.parquet").equals(frame)


def test_folders_are_made_unless_a_file_is_in_the_way(tmp_path):
    check_place(tmp_path / "a" / "b" / "r.csv")
    check_place(tmp_path / "a" / "b" / "r.csv")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*file/r\.csv"):
        check_place(tmp_path / "file" / "r.csv")


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "'=1", "''@x"]
HARMLESS = ["-1", "+1.5e3", "-.5", "a=b", "", "'tis", "crème", "1-2", None]


def test_a_spreadsheet_runs_no_text(tmp_path):
    """https://owasp.org/www-community/attacks/CSV_Injection; numbers stay numbers."""
    frame = pl.DataFrame({"id": FORMULAS + HARMLESS, "n": [-1.5] * 16})
    write(frame, csv=tmp_path / "f.csv")
    read = pl.read_csv(tmp_path / "f.csv", schema_overrides={"id": pl.String})
    assert read["n"].to_list() == frame["n"].to_list()
    assert read["id"].to_list() == [f"'{text}" for text in FORMULAS] + HARMLESS
    assert unguarded(read).equals(frame)
    assert unguarded(guarded(frame)).equals(frame)


def test_what_is_printed_has_no_controls():
    frame = pl.DataFrame({"a\x1b": ["b\n", "c", None], "n": [1, 2, 3]})
    assert printable_frame(frame).to_dict(as_series=False) == {
        "a\\u001b": ["b\\u000a", "c", None],
        "n": [1, 2, 3],
    }


@pytest.mark.parametrize("name", ["", "/", "folder", "n" * 300])
def test_a_place_for_a_file_is_looked_at_first(results, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*choose an existing folder"):
        check_place(Path(name))
    with pytest.raises(UsageError):
        write(results, csv=Path(name))
    check_place(Path("r.csv"))


def test_a_device_is_written_to_and_stays_one(results, tmp_path):
    """A pipe stands for /dev/stdout: a file that took its place would hide it from everybody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as other:
        read = other.submit(pipe.read_text)
        write(results, csv=pipe)
        assert read.result().startswith("backbones,value,n")
    assert pipe.is_fifo()

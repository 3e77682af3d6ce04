"""Files of predictions: what is added is there, whatever is killed meanwhile."""

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.files import PREDICTIONS, RowsFile, ask, predicted
from clipsyn.store.samples import SampleTable

LABELS = np.array([0, 1, 1, -1, 2], np.int32)


@pytest.fixture
def samples():
    content = np.zeros((5, 32), np.uint8)
    content[:4] = np.arange(1, 5)[:, None]
    ids = ("a.png", "b.png", "ç=1", "d.png", "e.png")
    return SampleTable("birds", "test", ids, LABELS, content, ("x", "y", "z"))


def rows(fingerprint, samples, *, sure=True):
    confidence = np.array([0.5, 0.75, 1, 0.25], np.float32) if sure else None
    at, said = np.array([0, 1, 2, 4]), np.array([0, 1, 2, 2])
    return predicted(fingerprint, samples, at, said, confidence)


def test_a_row_is_an_image_of_a_method(samples, tmp_path):
    path = tmp_path / "deep" / "p.parquet"
    with RowsFile(path, PREDICTIONS) as file:
        for name, sure in (("log-avg", True), ("vote-1", False)):
            file.add(rows(name, samples, sure=sure))
    frame = pl.read_parquet(path)
    assert dict(frame.schema) == PREDICTIONS
    assert frame["fingerprint"].to_list() == ["log-avg"] * 4 + ["vote-1"] * 4
    assert set(frame["dataset"]) == {"birds"}
    assert frame["sample_id"].to_list() == ["a.png", "b.png", "ç=1", "e.png"] * 2
    assert frame["label"].to_list() == [0, 1, 1, 2] * 2
    assert frame["prediction"].to_list() == [0, 1, 2, 2] * 2
    assert frame["confidence"].to_list() == [0.5, 0.75, 1, 0.25, None, None, None, None]
    images = frame["image"].to_list()[:4]
    assert images[:3] == [int.from_bytes(bytes([value] * 8), "little") for value in (1, 2, 3)]
    assert images[3] is None  # nobody has seen it


def test_one_file_grows_and_what_it_knows_is_not_added_again(samples, tmp_path):
    path = tmp_path / "p.parquet"
    with RowsFile(path, PREDICTIONS) as file:
        file.add(rows("one", samples))
    with RowsFile(path, PREDICTIONS) as file:
        assert file.known == {"one"}
        file.add(rows("one", samples))
        file.add(rows("two", samples))
    assert pl.read_parquet(path)["fingerprint"].to_list() == ["one"] * 4 + ["two"] * 4
    assert [it.name for it in tmp_path.iterdir()] == ["p.parquet"]


@pytest.mark.parametrize("content", [b"no parquet", None])
def test_a_file_of_something_else_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "p.parquet"
    pl.DataFrame({"x": [1]}).write_parquet(path) if content is None else path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(UsageError):
        RowsFile(path, PREDICTIONS)
    with pytest.raises(UsageError, match="evaluate STORE -o"):
        ask(path, pl.LazyFrame.collect)
    assert path.read_bytes() == before

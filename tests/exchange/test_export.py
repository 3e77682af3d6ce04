"""What is written, read by others' means: numpy, and tables alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from clipsyn.errors import UnknownName, UsageError
from clipsyn.exchange import LAYOUTS
from clipsyn.exchange import export as exporting
from clipsyn.exchange.export import export
from clipsyn.names import FeatureKey

KEY = FeatureKey("toy", "test", "clean", "fake/one")
CELL = Path("toy/test/clean/fake--one")


@pytest.fixture
def exported(fakes, mixed, tmp_path):
    def run(layout):
        export(mixed, tmp_path / layout, mixed.keys(), layout, fakes.Quiet())
        return tmp_path / layout

    return run


def test_npz_is_plain_arrays(exported, mixed):
    with np.load(exported("npz") / CELL.with_suffix(".npz"), allow_pickle=False) as held:
        names = {"clipsyn", "embeddings", "valid", "ids", "labels", "class_names"}
        assert set(held.files) == names
        assert held["embeddings"].tobytes() == mixed.cell(KEY).embeddings().tobytes()
        assert tuple(held["ids"]) == mixed.samples("toy", "test").ids


def test_huggingface_is_tables_that_the_card_names(exported, mixed):
    folder = exported("huggingface")
    _, front, _ = (folder / "README.md").read_text().split("---\n", 2)
    configs = {it["config_name"]: it["data_files"] for it in yaml.safe_load(front)["configs"]}
    files = configs["toy--clean--fake--one"]
    assert [file["split"] for file in files] == ["test", "train"]
    table = pl.read_parquet(folder / files[0]["path"])
    rows = table["image_embedding"].to_list()
    assert rows[3] is None
    assert np.array_equal(np.array(rows[0], np.float16), mixed.cell(KEY).embeddings()[0])
    named = {file["path"] for of in configs.values() for file in of}
    assert named == {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_class_embeddings_lie_beside_with_their_scale(exported, mixed, layout):
    with np.load(exported(layout) / "classes" / "toy" / "openai" / "fake--one.npz") as held:
        embeddings, scale = mixed.class_embeddings("toy", "openai", "fake/one")
        assert held["class_embeddings"].tobytes() == embeddings.tobytes()
        assert held["logit_scale"] == scale


def test_the_folder_is_there_whole_or_not_at_all(fakes, mixed, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(exporting.WRITERS, "npz", full)
    with pytest.raises(UsageError, match="No space"):
        export(mixed, tmp_path / "out", mixed.keys(), "npz", fakes.Quiet())
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_said(fakes, mixed, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(UsageError, match="is there already"):
        export(mixed, tmp_path / "there", [KEY], "npz", fakes.Quiet())
    with pytest.raises(UnknownName, match="unknown layout 'nzp'"):
        export(mixed, tmp_path / "new", [KEY], "nzp", fakes.Quiet())
    with pytest.raises(UsageError, match="lies in"):
        export(mixed, mixed.path / "features" / "new", [KEY], "npz", fakes.Quiet())
    assert not (tmp_path / "new").exists()

"""`clipsyn.exchange.tables`: which role each column has, and which tables are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange import ImportSettings, tables
from clipsyn.exchange.tables import ROLES, read_table

NAMES = ("cat", "dog", "bee")


def read(path, known=(), **options):
    return read_table(path, ImportSettings("toy", **options), known)


def only(path, known=(), **options):
    (part,) = read(path, known, **options)
    return part


@pytest.mark.parametrize("name", ["id", "sample_id", "image", "FileName"])
def test_predictions_ids_are_found_and_kept_as_written(write_csv, name):
    part = only(write_csv([name, "prediction"], [["007", "cat"], ["08", "dog"]]))
    assert part.ids == ("007", "08")
    assert part.values.tolist() == ["cat", "dog"]
    assert (part.kind, part.backbone, part.perturbation) == ("predictions", "mine", "clean")
    assert part.labels is None


def test_predictions_columns_of_other_names(write_csv):
    path = write_csv(["Key", "guess", "truth"], [["a", "1", "2"]])
    columns = {"id": "key", "prediction": "guess", "label": "truth"}
    part = only(path, columns=columns, backbone="net", perturbation="jpeg:3")
    assert (part.ids, part.values.tolist(), part.labels) == (("a",), ["1"], ("2",))
    assert (part.backbone, part.perturbation) == ("net", "jpeg-3")


def test_predictions_a_long_table_is_several_backbones(write_csv):
    rows = [["a", "x", "cat"], ["a", "y", "dog"], ["b", "y", "bee"], ["b", "x", "cat"]]
    parts = read(write_csv(["id", "model", "prediction"], rows))
    assert {part.backbone: (part.ids, part.values.tolist()) for part in parts} == {
        "x": (("a", "b"), ["cat", "cat"]),
        "y": (("a", "b"), ["dog", "bee"]),
    }


def test_predictions_severities_and_perturbations(write_csv):
    rows = [["a", "0", "cat"], ["a", "3", "dog"]]
    parts = read(write_csv(["id", "severity", "prediction"], rows), perturbation="jpeg")
    assert [(part.perturbation, part.of_condition) for part in parts] == [
        ("clean", True),
        ("jpeg-3", True),
    ]
    header = ["id", "corruption", "severity", "prediction"]
    rows = [["a", "clean", "", "cat"], ["a", "fog", "2", "dog"]]
    assert [p.perturbation for p in read(write_csv(header, rows))] == ["clean", "fog-2"]
    rows = [["a", "fog-2", "cat"]]
    part = only(write_csv(["id", "perturbation", "prediction"], rows))
    assert part.perturbation == "fog-2"


@pytest.mark.parametrize("nothing", ["NA", "nan", "NaN", "null", "None", "", " "])
def test_numbers_a_cell_without_a_number_is_a_row_without_a_value(write_csv, nothing):
    path = write_csv(["id", "cat", "dog"], [["a", nothing, 1], ["b", " 2.5", "Infinity"]])
    part = only(path)
    assert part.columns == ("cat", "dog")
    np.testing.assert_array_equal(part.values, np.array([[np.nan, 1], [2.5, np.inf]], np.float32))


@pytest.mark.parametrize("index", ["", "Unnamed: 0", "__index_level_0__"])
def test_numbers_the_index_that_pandas_writes_is_no_class(write_csv, index):
    path = write_csv([index, "id", "cat", "dog"], [[0, "a", 0.9, 0.1], [1, "b", 0.2, 0.8]])
    assert only(path).columns == ("cat", "dog")
    assert (only(path).values < 0).all()  # logarithms of probabilities


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(("name", "other"), [("run[1]", "run1"), ("m*", "m2")])
def test_numbers_a_file_that_is_called_like_a_pattern_is_itself(tmp_path, kind, name, other):
    for stem, ids in ((name, "a"), (other, "z")):
        frame = pl.DataFrame({"id": [ids], "prediction": ["cat"]})
        with (tmp_path / f"{stem}.{kind}").open("wb") as file:
            frame.write_csv(file) if kind == "csv" else frame.write_parquet(file)
    assert only(tmp_path / f"{name}.{kind}").ids == ("a",)


def test_numbers_columns_called_after_known_classes_in_any_order(write_csv):
    path = write_csv(["id", "dog", "confidence", "bee", "cat"], [["a", 1, 9, 2, 3]])
    np.testing.assert_array_equal(only(path, NAMES).values, [[3, 1, 2]])


@pytest.mark.parametrize("role", ["label", "said"])
def test_numbers_a_column_that_no_label_knows_may_be_no_class(write_csv, role):
    path = write_csv(["id", "sure", "cat", role], [["a", 1, 2, "cat"]])
    with pytest.raises(DatasetError, match=r"the columns sure.* a class: .*classes="):
        only(path)


@pytest.mark.parametrize("known", [(), NAMES, ("a", "b", "a")])
def test_numbered_columns_in_any_order(write_csv, known):
    part = only(write_csv(["id", "logit_2", "logit_0", "logit_1"], [["a", 2, 0, 1]]), known)
    np.testing.assert_array_equal(part.values, [[0, 1, 2]])
    assert part.columns == ()


@pytest.mark.parametrize("kind", ["embeddings", "auto"])
def test_numbers_embeddings(write_csv, kind):
    path = write_csv(["id", "e1", "e0"], [["a", 0.25, 0.75]])
    part = only(path, NAMES, kind=kind)
    assert part.kind == "embeddings"
    np.testing.assert_array_equal(part.values, np.array([[0.75, 0.25]], np.float32))


def test_numbers_predictions_win_unless_logits_are_asked_for(write_csv):
    path = write_csv(["id", "prediction", "cat", "dog"], [["a", "dog", 5, -5]])
    assert only(path).kind == "predictions"
    part = only(path, kind="logits")
    assert (part.kind, part.columns) == ("logits", ("cat", "dog"))


def test_bad_input_no_ids_names_the_columns_found(write_csv):
    path = write_csv(["key", "prediction"], [["a", "cat"]])
    with pytest.raises(DatasetError, match=r"id=NAME\); its columns are key, prediction"):
        only(path)


@pytest.mark.parametrize("columns", [["cat", "dog"], ["l0", "l1"], ["l1", "l2", "l3"]])
def test_bad_input_fewer_or_other_columns_than_classes(write_csv, columns):
    path = write_csv(["id", *columns], [["a", *range(2, 2 + len(columns))]])
    with pytest.raises(DatasetError, match="3 classes need a column each"):
        only(path, NAMES)


def test_bad_input_a_row_without_id_or_backbone(write_csv):
    with pytest.raises(DatasetError, match="row 1 has no id"):
        only(write_csv(["id", "prediction"], [["a", "cat"], ["", "dog"]]))
    with pytest.raises(DatasetError, match="row 0 has no model"):
        only(write_csv(["id", "model", "prediction"], [["a", "", "cat"]]))


def test_bad_input_one_name_for_several_backbones(write_csv):
    path = write_csv(["id", "model", "prediction"], [["a", "x", "cat"], ["a", "y", "cat"]])
    with pytest.raises(UsageError, match=r"several backbones \(x, y\)"):
        read(path, backbone="mine")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", b""), ("a.csv", b"id,prediction\na,b,c,d\n"), ("a.parquet", b"PAR1 it is not")],
)
def test_bad_input_what_is_no_table(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be read as a table"):
        only(tmp_path / name)


def test_bad_input_a_text_among_the_numbers(write_csv):
    rows = [[f"im{row}", 1, 2] for row in range(1500)]
    rows[1200][1] = "n/a"
    with pytest.raises(DatasetError, match="'n/a' in row 1200 of column cat is no number"):
        only(write_csv(["id", "cat", "dog"], rows))


def test_bad_input_a_column_twice(write_csv):
    with pytest.raises(DatasetError, match="has two columns called 'cat'"):
        only(write_csv(["id", "cat", "dog", "cat"], [["a", 1, 2, 3]]))


def test_every_name_of_a_column_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "importing.md").read_text("utf-8")
    assert [name for names in ROLES.values() for name in names if f"`{name}`" not in text] == []


def test_numbers_are_read_some_rows_at_a_time(write_csv, monkeypatch):
    monkeypatch.setattr(tables, "_BATCH", 3)
    rows = [[f"im{row}", row / 8, "" if row == 5 else -row] for row in range(10)]
    part = only(write_csv(["id", "e0", "e1"], rows), kind="embeddings")
    expected = [[row / 8, np.nan if row == 5 else -row] for row in range(10)]
    np.testing.assert_array_equal(part.values[2:9], expected[2:9])
    assert part.ids == tuple(f"im{row}" for row in range(10))
    rows[8][1] = "x"
    with pytest.raises(DatasetError, match="'x' in row 8 of column e0"):
        only(write_csv(["id", "e0", "e1"], rows), kind="embeddings")


def test_numbers_alone_in_the_order_of_the_samples(write_csv):
    part = only(write_csv(["e0", "e1"], [[1, 2], [3, 4]]), kind="embeddings", row_order=True)
    np.testing.assert_array_equal(part.values, [[1, 2], [3, 4]])

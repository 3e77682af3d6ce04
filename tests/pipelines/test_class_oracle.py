"""The oracle of classes, from accuracies by class as their source writes them."""

import json

import polars as pl
import pytest

from clipsyn.errors import DatasetError
from tests.pipelines.scripts import script

study = script("class_oracle")

PERCENT = {  # by model and class
    "backboneRN50_pretrainedcc3m": {"cat": 10.0, "dog": 90.0, "bee": 20.0},
    "backboneViT-B-32_pretrainedlaion2b": {"cat": 80.0, "dog": 40.0, "bee": 30.0},
}


@pytest.fixture
def folder(tmp_path):
    for name, models in (("pets-2_ensemble", PERCENT), ("pets-2_class", {"one": {"cat": 5.0}})):
        content = {
            model: {"full": 1.0, "classwise": by_class} for model, by_class in models.items()
        }
        (tmp_path / f"{name}_results.json").write_text(json.dumps(content))
    return tmp_path


def test_best_model_and_best_of_each_class(folder):
    (row,) = study.class_oracles(study.read(folder), "ensemble").iter_rows(named=True)
    assert (row["dataset"], row["classes"]) == ("pets-2", 3)
    assert row["best"] == "ViT-B-32/laion2b"
    assert row["mean per class"] == pytest.approx((80 + 40 + 30) / 300)
    assert row["class oracle"] == pytest.approx((80 + 90 + 30) / 300)
    assert row["gain"] == pytest.approx(50 / 300)


def test_a_table_says_the_same(folder, tmp_path):
    rows = [
        ("pets-2", "ensemble", *model.removeprefix("backbone").split("_pretrained"), name, accuracy)
        for model, by_class in PERCENT.items()
        for name, accuracy in by_class.items()
    ]
    names = ["dataset", "prompts", "architecture", "pretrained", "class", "accuracy"]
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(tmp_path / "table.parquet")
    tables = [study.read(path) for path in (folder, tmp_path / "table.parquet")]
    one, other = (study.class_oracles(table, "ensemble") for table in tables)
    assert one.equals(other)


def test_what_cannot_be(folder, tmp_path):
    with pytest.raises(DatasetError, match="no prompts 'simple': choose one of class, ensemble"):
        study.class_oracles(study.read(folder), "simple")
    with pytest.raises(DatasetError, match="has no file"):
        study.read(tmp_path / "nowhere")
    lacking = json.loads((folder / "pets-2_ensemble_results.json").read_text())
    del lacking["backboneRN50_pretrainedcc3m"]["classwise"]["bee"]
    (folder / "pets-2_ensemble_results.json").write_text(json.dumps(lacking))
    with pytest.raises(DatasetError, match="not every model has an accuracy of every class"):
        study.class_oracles(study.read(folder), "ensemble")


def test_the_command(folder, capsys):
    study.main([str(folder)])
    assert capsys.readouterr().out.splitlines()[2].split()[-3:] == ["50.0", "66.7", "16.7"]
    with pytest.raises(SystemExit, match="Error: there are no prompts"):
        study.main([str(folder), "own"])

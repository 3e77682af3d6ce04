"""`clipsyn.exchange.importing`: from files to cells of a store, all or nothing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses.oracle import OracleSettings
from clipsyn.analyses.oracle.measure import sample_table
from clipsyn.errors import DatasetError, InputError, MissingCell, StaleCell, UsageError
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import IMPORTED, import_files
from clipsyn.methods.numerics.logits import NONE_OF_THEM
from clipsyn.names import FeatureKey
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore

KEY = FeatureKey("toy", "test", "clean", "mine")
ROWS = [["a", "cat", "cat"], ["b", "dog", "dog"], ["c", "bee", "cat"]]


@pytest.fixture
def mine(write_csv):
    return write_csv(["id", "prediction", "label"], ROWS)


def test_a_new_store_has_the_samples_of_the_file(bring, mine, tmp_path):
    frame = bring(mine)
    assert frame.schema == IMPORTED
    assert frame.rows() == [
        ("toy", "test", "clean", "mine", None, "predictions", 3, 3, pytest.approx(2 / 3), "new")
    ]
    store = FeatureStore.open(tmp_path / "store")
    table = store.samples("toy", "test")
    assert (table.ids, table.class_names) == (("a", "b", "c"), ("bee", "cat", "dog"))
    np.testing.assert_array_equal(table.labels, [1, 2, 1])
    np.testing.assert_array_equal(store.cell(KEY).predictions("imported"), [1, 2, 0])
    with pytest.raises(MissingCell, match=r"clipsyn import .* mine --dataset toy --split train`"):
        store.samples("toy", "train")


def test_a_new_store_none_of_the_classes_is_an_answer_that_is_wrong(bring, write_csv, tmp_path):
    rows = [["a", NONE_OF_THEM, "cat"], ["b", "cat", "cat"], ["c", "", "dog"]]
    frame = bring(write_csv(["id", "prediction", "label"], rows))
    assert frame.select("images", "valid", "acc1").rows() == [(3, 2, 0.5)]
    store = FeatureStore.open(tmp_path / "store")
    assert store.samples("toy", "test").class_names == ("cat", "dog")
    table = sample_table(store, OracleSettings())
    predicted = table.select("mine predicts", "mine right").rows()
    assert predicted == [(None, False), ("cat", True), (None, None)]


def test_a_new_store_images_shown_under_one_condition_each(bring, write_csv, tmp_path):
    rows = [["a", "net", 0, "cat"], ["b", "net", 2, "dog"]]
    rows += [["b", "vit", 2, "cat"], ["a", "vit", 0, "cat"]]
    path = write_csv(["id", "model", "severity", "prediction"], rows)
    frame = bring(path, perturbation="contrast", names={"vit": "ViT-B-32"})
    assert frame.select("perturbation", "backbone", "images", "valid").rows() == [
        (label, name, 1, 1) for label in ("clean", "contrast-2") for name in ("ViT-B-32", "net")
    ]


def test_a_new_store_classes_called_by_numbers(bring, write_csv, tmp_path):
    """Labels are whole, and predictions floating point, since one is missing."""
    (tmp_path / "classes.txt").write_text("1\n2\n3\n")
    rows = [["a", 1, "1.0"], ["b", 2, "2.0"], ["c", 3, ""], ["d", 1, "1.0"]]
    path = write_csv(["id", "label", "prediction"], rows)
    frame = bring(path, classes=tmp_path / "classes.txt")
    assert frame.select("valid", "acc1").rows() == [(3, 1.0)]


# Predictions with their confidences, under several prompt sets.


@pytest.fixture
def files(bring, write_csv):
    """They are imported; the prompt sets."""
    sets = ["80 templates", "CLS", "a photo of a CLS."]
    for prompts, sure in zip(sets, (1, 0.5, 0.75), strict=True):
        rows = [["a", "dog", sure, "cat"], ["b", "dog", 0.5, "dog"]]
        path = write_csv(["id", "prediction", "confidence", "label"], rows)
        (said,) = bring(path, prompts=prompts)["prompts"].to_list()
        assert said == prompts
    return sets


def test_prompts_stand_beside_each_other(files, tmp_path):
    store = FeatureStore.open(tmp_path / "store")
    assert store.cell(KEY).prompt_sets() == files
    assert store.cell(KEY).confidences("CLS").tolist() == [0.5, 0.5]
    assert store.cell(KEY).confidences("80 templates").tolist() == [1.0, 0.5]
    assert store.cell(KEY).fingerprint("CLS") != store.cell(KEY).fingerprint("80 templates")
    with pytest.raises(MissingCell, match="not 'own'"):
        store.cell(KEY).predictions("own")


def test_prompts_may_be_said(bring, mine, tmp_path):
    assert bring(mine, prompts="mine")["prompts"].to_list() == ["mine"]
    with pytest.raises(StaleCell, match=r"under a prompt set: .*another name with backbone="):
        bring(mine)
    store = FeatureStore.open(tmp_path / "store")
    with pytest.raises(MissingCell, match="imported as predictions, without confidences"):
        store.cell(KEY).confidences("mine")


@pytest.mark.parametrize(
    ("confidence", "sentence"),
    [("1.5", "not 1.5"), ("", "not nan")],
)
def test_prompts_a_confidence_that_cannot_be(bring, write_csv, confidence, sentence):
    rows = [["a", "cat", "cat", 0.5], ["b", "cat", "cat", confidence], ["c", "cat", "cat", 0.5]]
    with pytest.raises(InputError, match=sentence):
        bring(write_csv(["id", "prediction", "label", "confidence"], rows))


def test_again_the_same_file_changes_nothing(bring, mine, tmp_path, fakes):
    bring(mine)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "store").rglob("*") if f.is_file()}
    assert bring(mine)["was"].to_list() == ["there"]
    after = {f: f.stat().st_mtime_ns for f in (tmp_path / "store").rglob("*") if f.is_file()}
    assert before == after
    assert fakes.draft_folders(tmp_path / "store") == []


def test_again_other_content_needs_another_name_or_replace(bring, mine, write_csv, tmp_path):
    bring(mine)
    other = write_csv(["id", "prediction"], [["a", "dog"], ["b", "dog"], ["c", "cat"]])
    with pytest.raises(StaleCell, match=r"other content .*replace=True, or .*backbone=NA"):
        bring(other)
    assert bring(other, backbone="other")["was"].to_list() == ["new"]
    assert bring(other, replace=True)["was"].to_list() == ["replaced"]
    store = FeatureStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.cell(KEY).predictions("imported"), [2, 2, 1])


def test_nothing_is_written_where_one_of_several_files_is_bad(bring, mine, write_csv, tmp_path):
    bad = write_csv(["id", "prediction"], [["a", "cat"], ["a", "dog"]], "bad.csv")
    with pytest.raises(DatasetError, match=r"bad \(clean, bad\.csv\): 1 id occurs more than"):
        bring(mine, bad)
    assert not (tmp_path / "store").exists()


def test_nothing_is_written_where_backbones_have_other_samples(bring, mine, write_csv, tmp_path):
    two = write_csv(["id", "prediction"], [[x, "cat"] for x in "bcd"], "two.csv")
    with pytest.raises(DatasetError, match=r"mine .*1 samples are not in it \(d\)"):
        bring(mine, two)
    assert not (tmp_path / "store").exists()
    frame = bring(mine, two, intersect=True)
    assert frame.select("images", "valid").rows() == [(4, 3), (4, 3)]


def test_nothing_is_written_where_a_dataset_or_split_has_no_name(bring, mine):
    with pytest.raises(UsageError, match="the dataset has no name: give one with dataset=…"):
        bring(mine, dataset=None)
    (only,) = {*bring(mine)["dataset"]}
    assert [*bring(mine, dataset=None)["dataset"]] == [only]
    with pytest.raises(UsageError, match="the split has no name"):
        bring(mine, split=" ")


# tiny_store has 20 images im000.png … of toy/test, three classes.


@pytest.fixture
def theirs(tiny_store, write_csv):
    ids, names = tiny_store.samples("toy", "test").ids, ("cat", "dog", "crème brûlée")
    rows = [[name, names[row % 3]] for row, name in enumerate(ids)]
    return write_csv(["id", "prediction"], rows[::-1], "theirs.csv")


def test_beside_extracted_cells_predictions_are_of_every_prompt_set(bring, theirs, tiny_store):
    frame = bring(theirs, store=tiny_store.path)
    assert frame["acc1"].to_list() == [1]
    key = FeatureKey("toy", "test", "clean", "theirs")
    assert tiny_store.cell(key).prompt_sets() == ["simple"]
    np.testing.assert_array_equal(tiny_store.cell(key).predictions("simple"), np.arange(20) % 3)


def test_beside_extracted_cells_other_class_names_are_refused(bring, theirs, tiny_store, tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DatasetError, match=r"other classes .* \(3 and 2\)"):
        bring(theirs, store=tiny_store.path, classes=tmp_path / "classes.txt")


def test_the_source_is_recorded(bring, mine, tmp_path):
    import hashlib

    bring(mine)
    attributes = arrays.read_attributes(tmp_path / "store/predictions/toy/test/clean/mine/imported")
    digest = hashlib.sha256(mine.read_bytes()).hexdigest()
    assert attributes["source"] == [{"file": "mine.csv", "sha256": digest}]
    assert attributes["identity"]["source"] == "imported"
    assert attributes["identity"]["confidences"] is False


def test_names_that_a_spreadsheet_would_run_come_back(tmp_path):
    """What `-o FILE.csv` writes is what `import` reads, marks and all; so is a plain file."""
    from clipsyn.show.frames import write as write_frame

    classes = ["=1+1", "@x", "'=y", "-b", "+a"]
    frame = pl.DataFrame(
        {"id": [f"-{row}.png" for row in range(5)], "prediction": classes, "label": classes[::-1]}
    )
    write_frame(frame, csv=tmp_path / "guarded.csv")
    assert "'-0.png,'=1+1," in (tmp_path / "guarded.csv").read_text()
    frame.with_columns(pl.col("label").replace("'=y", "''=y")).write_csv(tmp_path / "plain.csv")
    for name in ("guarded", "plain"):
        where = ImportSettings(dataset=name, backbone="mine", kind="predictions")
        import_files(tmp_path / "store", [tmp_path / f"{name}.csv"], where)
        samples = FeatureStore.open(tmp_path / "store").samples(name, "test")
        assert samples.ids == tuple(frame["id"])
        assert [samples.class_names[label] for label in samples.labels] == classes[::-1]

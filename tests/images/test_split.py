"""Manifests with train and test: what extraction reads of them, and what is refused."""

import os
from pathlib import Path

import polars as pl
import pytest

from clipsyn.errors import DatasetError, UnknownName, UsageError
from clipsyn.extract.images import open_source
from clipsyn.images.split import split


@pytest.fixture
def write(tmp_path):
    """Files by path (or of other content where given) below a new folder; each its own content."""

    def write(*names, root="photos", other=None):
        folder = tmp_path / root
        for name, content in ({name: name.encode() for name in names} | dict(other or {})).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    return write


def many(*classes, count=6):
    return [f"{label}/{row}.png" for label in classes for row in range(count)]


def sides_of(path):
    """The split of each id."""
    frame = pl.read_csv(path, infer_schema=False)
    return dict(zip(frame["id"], frame["split"], strict=True))


def test_extraction_finds_the_images_labels_and_classes_of_the_folder(write, tmp_path):
    folder = write(*many("cat", "dog"), "loose.png")
    (folder / "empty-class").mkdir()
    split(folder, tmp_path / "sub.csv", test=0.34)
    whole = open_source(f"sub={folder}", "any")
    labels = dict(zip(whole.ids, whole.labels.tolist(), strict=True))
    seen: dict[str, int] = {}
    for name, size in (("train", 8), ("test", 4)):
        source = open_source(str(tmp_path / "sub.csv"), name)
        assert source.class_names == whole.class_names == ("cat", "dog", "empty-class")
        assert len(source) == size
        for row, (sample, label) in enumerate(zip(source.ids, source.labels, strict=True)):
            seen[sample] = int(label)
            assert source.digest(row) == whole.digest(whole.ids.index(sample))
    assert seen == labels
    kept = open_source(str(tmp_path / "sub.csv"), "unlabelled")
    assert (kept.ids, kept.labels.tolist()) == (("loose.png",), [-1])


def test_the_same_bytes_twice_and_others_with_another_seed(write, tmp_path):
    folder = write(*many("a", "b"))
    written = []
    for name, seed in (("one.csv", 0), ("two.csv", 0), ("other.csv", 1)):
        split(folder, tmp_path / name, seed=seed)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] != written[2]


def test_copies_are_left_out_and_counted(write, tmp_path):
    """The sides are those of the images without them."""
    folder = write(*many("cat", "dog", count=12))
    split(folder, tmp_path / "without.csv")
    write("again.png", other={f"cat/{row}copy.png": f"cat/{row}.png".encode() for row in range(8)})
    write(other={"again.png": b"dog/1.png", "alone.png": b"alone", "twice.png": b"alone"})
    division = split(folder, tmp_path / "with.csv")
    side = sides_of(tmp_path / "with.csv")
    assert side == sides_of(tmp_path / "without.csv") | dict.fromkeys(
        ["again.png", "alone.png"], "unlabelled"
    )
    assert "9 (cat/0copy.png, cat/1copy.png, cat/2copy.png, …)" in next(division.notes())


def test_copies_that_are_kept_are_on_one_side(write, tmp_path):
    copies = {f"cat/copy{row}.png": f"cat/{row % 4}.png".encode() for row in range(8)}
    for seed in range(5):
        folder = write(*many("cat", "dog", count=12), other=copies)
        split(folder, tmp_path / f"{seed}.csv", seed=seed, copies="keep")
        side = sides_of(tmp_path / f"{seed}.csv")
        assert all(side[name] == side[origin.decode()] for name, origin in copies.items())


def test_what_is_odd_is_kept_apart_and_said(write, tmp_path):
    odd = {
        "cat/both.png": b"cat and dog",
        "dog/both.png": b"cat and dog",
        "again.png": b"cat/0.png",
        "cat/empty.png": b"",
        "dog/empty.png": b"",
        "notes.txt": b"",
    }
    division = split(write(*many("cat", "dog"), "fox/1.png", other=odd), tmp_path / "s.csv")
    side = sides_of(tmp_path / "s.csv")
    assert [name for name in side if side[name] == "conflicting"] == [
        "cat/both.png",
        "dog/both.png",
    ]
    assert [name for name in side if side[name] == "unlabelled"] == ["again.png"]
    assert side["fox/1.png"] == "train"
    assert {side["cat/empty.png"], side["dog/empty.png"]} <= {"train", "test"}
    named = ("suffix", "cat/both.png, dog/both.png", "cat/empty.png, dog/empty.png", "(fox)")
    assert all(it in note for it, note in zip(named, division.notes(), strict=True))


def test_a_class_may_stand_for_no_label(write, tmp_path):
    folder = write(*many("cat", "dog", "unsorted"))
    split(folder, tmp_path / "s.csv", unlabelled="unsorted")
    side = sides_of(tmp_path / "s.csv")
    assert {side[name] for name in many("unsorted")} == {"unlabelled"}
    source = open_source(str(tmp_path / "s.csv"), "unlabelled")
    assert source.class_names == ("cat", "dog")
    with pytest.raises(UnknownName, match="unknown class 'unsortd': did you mean unsorted"):
        split(folder, tmp_path / "t.csv", unlabelled="unsortd")


# --- manifests ---


def test_a_manifest_keeps_ids_paths_and_labels(write, tmp_path):
    folder = write("1.png", "2.png", "3.png", "4.png", "5.png")
    lines = "id,path,label a,1.png,dog b,2.png,dog c,3.png,cat d,4.png,cat e,5.png,"
    (folder / "labels.csv").write_text("\n".join(lines.split()))
    (tmp_path / "elsewhere").mkdir()
    division = split(folder / "labels.csv", tmp_path / "elsewhere" / "s.parquet")
    frame = pl.read_parquet(tmp_path / "elsewhere" / "s.parquet")
    assert frame.columns == ["path", "label", "split", "id"]
    assert frame["path"].to_list() == [f"../photos/{row}.png" for row in range(1, 6)]
    assert frame["label"].to_list() == ["1", "1", "0", "0", None]
    assert frame["id"].to_list() == [*"abcde"]
    assert frame["split"].to_list().count("test") == 2
    assert frame["split"][4] == "unlabelled"
    written = str(tmp_path / "elsewhere" / "s.parquet")
    root = division.root_beyond(tmp_path / "elsewhere")
    assert len(open_source(written, "train", root=root)) == 2
    with pytest.raises(DatasetError):  # a manifest leads out of its folder only where it may
        split(Path(written), tmp_path / "elsewhere" / "t.csv")


@pytest.mark.parametrize("names", [["missile", "missile"], ["7", "3"], [" x", "y"]])
def test_names_that_can_be_mistaken(names, write, tmp_path):
    folder = write("1.png", "2.png", "3.png", "4.png")
    lines = ["path,label", "1.png,1", "2.png,1", "3.png,0", "4.png,0"]
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "labels.csv.classnames.json").write_text(f'["{names[0]}", "{names[1]}"]')
    split(folder / "labels.csv", tmp_path / "s.csv")
    source = open_source(str(tmp_path / "s.csv"), "train")
    assert source.class_names == tuple(name.strip() for name in names)
    assert sorted(source.labels.tolist()) == [0, 1]


# --- what is refused ---


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.png", "2.png"], "has no labelled image"),
        (["a/1.png", "b/2.png"], "no class of .* has two different images"),
        (["train/a/1.png", "test/a/2.png"], "has splits already: .*-s test,train"),
        (["train/a/1.png", "other/2.png"], "has splits already: .*-s train"),
        (["notes.txt"], "there is no image"),
        (["test/0.tar", "test/nshards.txt"], "is no folder and no manifest"),
    ],
)
def test_folders_that_cannot_be_divided(names, message, write, tmp_path):
    with pytest.raises(DatasetError, match=message):
        split(write(*names), tmp_path / "s.csv")
    assert not list(tmp_path.glob("s.csv*"))


def test_manifests_and_names_that_cannot_be_divided(write, tmp_path):
    folder = write("1.png")
    (folder / "s.csv").write_text("path,label,split\n1.png,a,train\n")
    refused = {
        str(folder / "s.csv"): "has a column 'split' already",
        str(folder / "none"): "is no folder and no manifest",
        "emoji-food": "'emoji-food' has splits already: train, test",
    }
    for images, message in refused.items():
        with pytest.raises(DatasetError, match=message):
            split(images, tmp_path / "o.csv")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("s.txt", "is no name of a manifest: end it in .csv or .parquet"),
        ("there.csv", "is there already: add replace=True"),
    ],
)
def test_places_that_cannot_be_written(output, message, write, tmp_path):
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(UsageError, match=message):
        split(write(*many("a", "b")), tmp_path / output)
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_what_is_read_is_never_replaced(write, tmp_path):
    folder = write("1.png", "2.png")
    manifest = folder / "labels.csv"
    manifest.write_text("path,label\n1.png,a\n2.png,a\n")
    os.link(manifest, tmp_path / "same.csv")
    with pytest.raises(UsageError, match="read"):
        split(manifest, tmp_path / "same.csv", replace=True)
    split(manifest, tmp_path / "new.csv")
    split(manifest, tmp_path / "new.csv", replace=True, seed=1)
    assert manifest.read_text().startswith("path,label\n1.png")

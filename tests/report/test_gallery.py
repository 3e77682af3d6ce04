"""Images to look at, against plain loops; the right pictures, and nothing but their pixels."""

import hashlib
import io
import shutil
import tarfile
from base64 import b64decode
from collections import Counter

import numpy as np
import polars as pl
import pytest
from PIL import Image

from clipsyn.analyses.predicted import predicted
from clipsyn.errors import UsageError
from clipsyn.evaluation import Selection, predictions_of
from clipsyn.evaluation.loop import evaluate
from clipsyn.report import ReportSettings
from clipsyn.report.evidence import gather
from clipsyn.report.tables import Example, Thumbnails, examples

PLACE = ("photos", "test")


def of(store):
    (group,) = predicted(store, Selection(perturbations=("clean",), splits=("test",)))
    return group


def shown(store, most=100, chosen=None):
    return examples(of(store), most, chosen or {})


@pytest.fixture
def drawn(answered):
    """Answers of four backbones at random; labels, with images that have none."""
    draw = np.random.default_rng(5)
    labels = draw.integers(-1, 3, 90)
    answers = {name: draw.integers(0, 3, 90) for name in "abcd"}
    return answered(answers, labels), answers, labels


def test_every_image_that_a_backbone_gets_wrong_is_there_with_what_each_says(drawn):
    store, answers, labels = drawn
    expected = {}
    for row, label in enumerate(labels):
        said = [every[row] for every in answers.values()]
        if label >= 0 and any(answer != label for answer in said):
            expected[f"pets-{row}.png"] = [
                (name, ("cat", "dog", "owl")[answer], answer == label)
                for name, answer in zip("abcd", said, strict=True)
            ]
    found = {it.id: [one[:3] for one in it.said] for it in shown(store)}
    assert found == expected


def test_there_are_as_many_of_each_kind_as_there_are(drawn):
    store, *_ = drawn

    def kinds(most):
        right = [[said.is_right for said in it.said] for it in shown(store, most)]
        return Counter(it.index(True) if sum(it) == 1 else -sum(it) - 1 for it in right)

    every, few = kinds(100), kinds(21)
    assert len(every) == 7  # one alone of four; none, two, three
    assert few.total() == 21
    assert max(few.values()) - min(few[kind] for kind in every if every[kind] > 4) <= 1


def test_what_the_chosen_method_gets_wrong_is_one_more_kind(answered):
    store = answered({"a": [0, 0, 1, 0], "b": [0, 0, 0, 0]}, [0, 0, 0, 0])
    chosen = {"pets-0.png": (0, 0.9), "pets-1.png": (1, 0.4), "pets-2.png": (2, None)}
    found = shown(store, chosen=chosen)
    assert [it.id for it in found] == ["pets-1.png", "pets-2.png"]
    assert [it.said[-1] for it in found] == [
        ("chosen", "dog", False, 0.4),
        ("chosen", "owl", False, None),
    ]


def test_answers_of_the_chosen_method_are_of_the_first_draw_at_the_most_shots(tiny_store, tmp_path):
    output = tmp_path / "results.parquet"
    evaluate(tiny_store, ensembles=["log-avg", "chosen"], shots=(1, 4), seeds=2, output=output)
    settings = ReportSettings(output=tmp_path / "page.html", results=output)
    group, kept = of(tiny_store), pl.read_parquet(predictions_of(output) / "*.parquet")
    right = {row: kept.filter(fingerprint=row) for row in kept["fingerprint"].unique()}
    (row,) = (
        pl.read_parquet(output / "*.parquet")
        .filter(ensemble="chosen", metric="acc1", shots="4", seed=0, dataset=group.samples.dataset)
        .filter(split="test", perturbation="clean")["fingerprint"]
    )
    expected = right[row].rows_by_key("sample_id", named=True)
    found = gather(tiny_store, settings).chosen(group)
    assert found
    assert found == {id: (one["prediction"], one["confidence"]) for id, (one,) in expected.items()}


def test_confidences_are_those_of_logits_and_not_known_of_answers_alone(answered):
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], np.float32))
    (found,) = shown(answered({"a": logits, "b": [0, 0]}, [0, 0]))
    one, other = found.said
    assert one.confidence == pytest.approx(0.8, abs=1e-3)
    assert other.confidence is None


# pictures


@pytest.fixture
def photos(write_images):
    return write_images()


def example(id, content, place=PLACE):
    return Example(*place, id, content, "cat", ())


def digest(path):
    return hashlib.sha256(path.read_bytes()).digest()


def pixels(data):
    assert data
    return np.asarray(Image.open(io.BytesIO(b64decode(data)))).astype(int)


def close_to(data, path):
    """Noise does not survive JPEG whole, but it stays like itself and unlike other noise."""
    shown, there = pixels(data), np.asarray(Image.open(path)).astype(int)
    return bool(np.corrcoef(shown.ravel(), there.ravel())[0, 1] > 0.5)


def packed(photos, tar, arcname):
    with tarfile.open(tar, "w") as archive:
        archive.add(photos, arcname)
    return tar


def manifest(photos, folder):
    rows = "path,label,id\nphotos/dog/1.png,dog,dog/1.png\nphotos/cat/1.png,cat,yours\n"
    (folder / "list.csv").write_text(rows)
    return folder / "list.csv"


@pytest.mark.parametrize(
    "place",
    [
        lambda photos, folder: photos.parent,  # of several datasets
        lambda photos, folder: packed(photos, folder / "a.tar", "."),
        lambda photos, folder: packed(photos, folder / "a.tar", "data/photos"),
        manifest,
    ],
)
def test_places_where_an_image_is_found(place, photos, tmp_path):
    file = photos / "dog" / "1.png"
    there = Thumbnails(place(photos, tmp_path), [PLACE])
    assert close_to(there.of(example("dog/1.png", digest(file))), file)


def test_a_place_without_images(tmp_path):
    with pytest.raises(UsageError, match="has no images of photos/test"):
        Thumbnails(tmp_path, [PLACE])


def test_another_image_of_the_same_name_is_not_shown(photos):
    there = Thumbnails(photos, [PLACE])
    assert there.of(example("dog/1.png", digest(photos / "dog" / "2.png"))) is None


def test_of_two_with_the_same_name_the_right_one_is(photos, tmp_path):
    tar = packed(photos, tmp_path / "a.tar", "photos")
    for label in ("cat", "dog"):
        file = photos / label / "1.png"
        assert close_to(Thumbnails(tar, [PLACE]).of(example(f"{label}/1.png", digest(file))), file)


def test_an_image_that_nobody_has_read_is_known_by_its_id(photos):
    there = Thumbnails(photos, [PLACE])
    assert close_to(there.of(example("dog/1.png", bytes(32))), photos / "dog" / "1.png")
    assert there.of(example("dog/9.png", bytes(32))) is None


def test_ids_never_lead_out_of_the_folder(photos, tmp_path):
    shutil.copy(photos / "cat" / "0.png", tmp_path / "secret.png")
    there = Thumbnails(photos, [PLACE])
    for id in ("../secret.png", str(tmp_path / "secret.png"), "dog/../../secret.png"):
        assert there.of(example(id, digest(tmp_path / "secret.png"))) is None


def test_names_never_lead_out_of_the_folder(photos, tmp_path):
    """Dataset and split are a store's, which a stranger may have made."""
    (tmp_path / "given").mkdir()
    shutil.copytree(photos, tmp_path / "secret" / "test")
    packed(photos, tmp_path / "secret" / "test" / "0.tar", ".")
    places = [
        *[(name, "test") for name in (str(photos), "../photos", f"x={photos}", "a\0b")],
        *[("given", name) for name in (str(photos), "../photos", "../secret/test")],
    ]
    with pytest.raises(UsageError):
        Thumbnails(tmp_path / "given", places)


def test_a_picture_is_small_and_has_nothing_of_its_file(photos):
    file = photos / "dog" / "1.png"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 300, 3), np.uint8))
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    image.save(file, exif=exif)
    data = Thumbnails(photos, [PLACE]).of(example("dog/1.png", digest(file)))
    assert data
    shown = Image.open(io.BytesIO(b64decode(data)))
    assert shown.size == (67, 112)
    assert not shown.getexif()
    assert b"where I live" not in b64decode(data)


def test_a_damaged_image_is_left_out(photos):
    file = photos / "dog" / "1.png"
    file.write_bytes(file.read_bytes()[:40])
    assert Thumbnails(photos, [PLACE]).of(example("dog/1.png", digest(file))) is None

"""Folders of features as others publish them: what comes in, what is left out, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.errors import DatasetError, InputError, UsageError
from clipsyn.exchange.align import likeness, taken
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore
from clipsyn.store.given import Made

LABELS = np.array([0, 0, 1, 1, 2])
CLASSES = np.eye(4)[:, :3] * 7  # (embed, class), of any norm


def features(labels=LABELS):
    """(row, 4) of norm 2 and more: each image by its class and a little of its own."""
    classes = labels if labels.ndim == 1 else labels.argmax(axis=1)
    own = np.linspace(0, 0.3, len(labels))[:, None] * np.ones(4)
    return (2 * np.eye(4)[classes] + own).astype(np.float32)


@pytest.fixture
def zlap(tmp_path):
    """Function (dataset, backbone, split) -> the folder, with that of ZLaP's layout in it."""

    def lay(dataset="dtd", backbone="RN50", split="test", *, labels=LABELS, values=None, text=True):
        folder = tmp_path / "features" / dataset
        (folder / "classifiers").mkdir(parents=True, exist_ok=True)
        rows = features(labels) if values is None else values
        np.save(folder / f"{backbone}_{split}_feats.npy", rows)
        np.save(folder / f"{backbone}_{split}_targets.npy", labels)
        if text:
            np.save(folder / f"classifiers/{backbone}_text_classifier.npy", CLASSES)
        return tmp_path / "features"

    return lay


@pytest.fixture
def caches(tmp_path):
    """Two datasets of Tip-Adapter's, of which one has a single cache."""
    torch = pytest.importorskip("torch")
    unit = features() / np.linalg.norm(features(), axis=1, keepdims=True)
    for dataset in ("dtd", "eurosat"):
        folder = tmp_path / "caches" / dataset
        folder.mkdir(parents=True)
        torch.save(torch.tensor(unit).half(), folder / "test_f.pt")
        torch.save(torch.tensor(LABELS), folder / "test_l.pt")
        torch.save(torch.tensor(unit[1::2]).half().T, folder / "keys_1shots.pt")
        torch.save(torch.eye(3)[LABELS[1::2]].half(), folder / "values_1shots.pt")
    for name in ("values_1shots.pt", "best_F_1shots.pt"):
        (tmp_path / "caches/eurosat" / name).unlink(missing_ok=True)
    torch.save(torch.ones(2, 2), tmp_path / "caches/eurosat/best_F_1shots.pt")
    return tmp_path / "caches"


def test_all_of_zlap_comes_in_at_once(bring, zlap, tmp_path):
    other = features()[:, ::-1].astype(np.float16)  # of another width than text: none is there
    zlap("dtd", "ViT-B-16", values=np.hstack([other, other]), text=False)
    zlap("dtd", split="train", labels=np.array([0, 2, 1]))
    zlap("dtd")
    zlap("cars", split="val")
    frame = bring(zlap("coco", labels=np.eye(3)[LABELS]), dataset=None, row_order=True)
    assert frame.select("dataset", "split", "backbone", "valid", "acc1").rows() == [
        ("cars", "test", "RN50", 5, 1),  # as ZLaP itself does: there is no other
        ("dtd", "test", "RN50", 5, 1),
        ("dtd", "test", "ViT-B-16", 5, None),
        ("dtd", "train", "RN50", 3, 1),
    ]
    store = FeatureStore.open(tmp_path / "store")
    cell = store.cell(FeatureKey("dtd", "test", "clean", "RN50"))
    unit = features() / np.linalg.norm(features(), axis=1, keepdims=True)
    np.testing.assert_allclose(cell.embeddings(), unit, atol=1e-3)
    np.testing.assert_allclose(cell.logits("imported"), 100 * unit[:, :3], atol=0.1)
    assert store.samples("dtd", "test").class_names == ("0", "1", "2")
    np.testing.assert_array_equal(store.samples("dtd", "train").labels, [0, 2, 1])


def test_what_is_left_out_is_named(bring, zlap, caches, caplog):
    with pytest.raises(DatasetError, match="none of its features"):
        bring(zlap("coco", labels=np.eye(3)[LABELS]), dataset=None)
    (zlap() / "dtd/notes.txt").touch()  # as InMaP's and CuPL's classifiers are
    with caplog.at_level("INFO", "clipsyn"):
        bring(caches.parent / "features", dataset=None)
        frame = bring(caches, dataset=None, backbone="RN50", store=caches / "store")
    for name in ("coco/RN50_test_feats.npy", "notes.txt", "keys_1shots.pt", "best_F_1shots.pt"):
        assert name in caplog.text
    assert [*frame["dataset"]] == ["dtd", "dtd", "eurosat"]


def test_all_of_tip_adapter_comes_in_at_once(bring, caches, tmp_path):
    with pytest.raises(UsageError, match="backbone"):
        bring(caches, dataset=None)
    frame = bring(caches, dataset=None, backbone="RN50")
    assert frame.select("dataset", "split", "valid").rows() == [
        ("dtd", "1shots", 2),
        ("dtd", "test", 5),
        ("eurosat", "test", 5),
    ]
    store = FeatureStore.open(tmp_path / "store")
    held = {
        split: store.cell(FeatureKey("dtd", split, "clean", "RN50")) for split in frame["split"]
    }
    np.testing.assert_array_equal(held["1shots"].embeddings(), held["test"].embeddings()[1::2])
    np.testing.assert_array_equal(store.samples("dtd", "1shots").labels, LABELS[1::2])


def test_caches_of_clip_benchmark(bring, tmp_path):
    torch = pytest.importorskip("torch")
    folder = tmp_path / "Food101-ViT-B-32"
    folder.mkdir()
    for split, rows in (("train", 3), ("val", 2)):
        torch.save(torch.eye(rows, 4).half(), folder / f"features_{split}.pt")
        torch.save(torch.arange(rows), folder / f"targets_{split}.pt")
    with pytest.raises(UsageError, match="dataset"):
        bring(folder, dataset=None)
    frame = bring(folder, dataset="food101", names={folder.name: "ViT"})
    assert frame.select("dataset", "split", "backbone", "valid").rows() == [
        ("food101", "train", "ViT", 3),
        ("food101", "test", "ViT", 2),
    ]


@pytest.mark.parametrize(
    "option", [{"split": "train"}, {"columns": {"id": "a"}}, {"kind": "logits"}]
)
def test_options_of_other_files(option, bring, zlap):
    with pytest.raises(UsageError, match=next(iter(option))):
        bring(zlap(), dataset=None, **option)


ORDERS = {
    "labels in another order": {"labels": LABELS[::-1].copy()},
    "more rows": {"labels": np.array([0, 0, 1, 1, 2, 2])},
    "fewer labels": {"values": features()[:4]},
    "no matrix": {"values": np.zeros((5, 2, 2), np.float32)},
    "texts": {"values": np.full((5, 4), "a")},
    "empty": {"values": np.zeros((0, 4), np.float32), "labels": LABELS[:0]},
}


@pytest.mark.parametrize("case", ORDERS.values(), ids=ORDERS.keys())
def test_a_backbone_that_does_not_fit_the_others(case, bring, zlap, tmp_path):
    with pytest.raises(DatasetError, match="ViT"):
        bring(zlap(), zlap(backbone="ViT", **case), dataset=None)
    assert not (tmp_path / "store").exists()


def test_a_classifier_by_rows(bring, zlap):
    folder = zlap()
    np.save(folder / "dtd/classifiers/RN50_text_classifier.npy", CLASSES.T)
    with pytest.raises(InputError, match="RN50"):
        bring(folder, dataset=None)


@pytest.mark.parametrize("name", ["test_f.pt", "test_l.pt", "keys_1shots.pt", "values_1shots.pt"])
def test_hostile_tensors(name, bring, caches):
    torch = pytest.importorskip("torch")
    for thing in (torch.nn.Linear(2, 2), torch.full((2, 3, 1), 0.5), torch.tensor(1.0)):
        torch.save(thing, caches / "dtd" / name)
        with pytest.raises(DatasetError, match="dtd"):
            bring(caches, dataset=None, backbone="RN50")


# Labels may be equal where images of a class stand in another order.


@pytest.fixture
def seen():
    """Function (width, order of the images) -> 240 images of three classes by a backbone."""
    images = np.random.default_rng(0).normal(size=(240, 12)) + 3 * np.eye(12)[np.arange(240) % 3]

    def see(width, order):
        turned = np.random.default_rng(width).normal(size=(12, width))
        return (images[order] @ turned).astype(np.float32)

    return see


ALL = np.arange(240)
WITHIN = np.concatenate([ALL[3:], ALL[:3]])  # every image gets the place of the next of its class


def test_images_of_a_class_in_another_order_are_refused(bring, zlap, seen, tmp_path):
    labels = (ALL % 3).astype(np.int64)
    zlap(labels=labels, values=seen(4, ALL), text=False)
    folder = zlap(backbone="ViT", labels=labels, values=seen(6, WITHIN), text=False)
    with pytest.raises(DatasetError, match=r"ViT.* than those of RN50"):
        bring(folder, dataset=None)
    np.save(folder / "dtd/ViT_test_feats.npy", seen(6, ALL))
    assert len(bring(folder, dataset=None)) == 2
    later = zlap(backbone="later", labels=labels, values=seen(6, WITHIN), text=False)
    for path in later.rglob("[RV]*.npy"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"later.* than those of RN50"):
        bring(later, dataset=None)


def test_likeness_against_one_class_after_another(seen):
    labels = (ALL % 3).astype(np.int32)
    one, other = (
        it / np.linalg.norm(it, axis=1, keepdims=True) for it in (seen(4, ALL), seen(6, ALL))
    )
    pairs = []
    for name in range(3):
        rows = np.flatnonzero(labels == name)
        both = np.array([[x[i] @ x[j] for i in rows for j in rows if i < j] for x in (one, other)])
        pairs.append(both - both.mean(axis=1, keepdims=True))
    expected = np.corrcoef(np.concatenate(pairs, axis=1))[0, 1]
    assert likeness(one, other, labels) == pytest.approx(expected, abs=2e-3)
    assert np.isnan(likeness(one[:3], other[:3], labels[:3]))


def test_a_few_rows_of_many_are_read_in_blocks():
    width, made = 1_000_000, []

    def make(some: slice) -> np.ndarray:
        made.append(some.stop - some.start)
        numbers = np.arange(some.start, some.stop, dtype=np.float32)
        return np.broadcast_to(numbers[:, None], (len(numbers), width))

    values = Made((600, width), np.dtype(np.float32), make)
    rows = [599, 3, 3, 250, 0]
    assert taken(values, np.array(rows))[:, 0].tolist() == rows
    assert sum(made) < 60

"""`predict_store`: a row for each image, and refusals that name what differs."""

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from clipsyn.errors import MissingCell, RouterMismatch
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.methods.numerics.logits import softmax
from clipsyn.names import FeatureKey
from clipsyn.router.fit import FittedRouter, fit_router
from clipsyn.router.predict import predict_store
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable


@pytest.fixture
def router(tiny_store):
    return fit_router(tiny_store, "toy", "log-avg")


@pytest.fixture
def other(fakes, tmp_path):
    """Function (source, change of an encoder) -> another store of the same two backbones."""

    def make(source=None, change=lambda encoder: None, **settings):
        encoders = fakes.two()
        change(encoders[1])
        return fakes.fill(tmp_path / "other", encoders, [source or fakes.Source()], **settings)

    return make


def test_a_row_for_each_image(router, tiny_store):
    found = predict_store(router, tiny_store, "toy")
    pool = tiny_store.pool("toy", "test")
    scores = router.combine(pool)
    frame = found.frame
    assert frame["id"].to_list() == list(pool.ids)
    assert frame["class_index"].to_list() == scores.argmax(axis=1).tolist()
    assert frame["class"].to_list() == [pool.class_names[i] for i in scores.argmax(axis=1)]
    np.testing.assert_array_equal(frame["probability"], softmax(scores).max(axis=1))
    for column, name in enumerate(pool.backbones):
        weights = router.weights(pool)[:, column]
        np.testing.assert_array_equal(frame[f"weight {name}"], weights)
    assert frame["seen"].to_list() == [False] * 20
    assert frame.width == 5 + len(pool.backbones)
    assert found.accuracy == (router.score(pool), 20)
    assert not found.other_classes


def test_an_ensemble_without_weights_has_no_such_columns(tiny_store):
    router = fit_router(tiny_store, "toy", "vote-1")
    frame = predict_store(router, tiny_store, "toy", "train").frame
    assert frame.columns == ["id", "class", "class_index", "probability", "seen"]
    assert frame["seen"].to_list() == [True] * 11


@pytest.mark.parametrize("templates", [(), ("a {c}.",)], ids=["stored logits", "derived"])
def test_images_are_predicted_a_few_at_a_time(router, other, fakes, templates):
    store = other(fakes.Source(templates=templates))
    whole = predict_store(router, store, "toy")
    sizes = []
    combine = FittedRouter.combine_and_weigh

    def spy(self, pool):
        sizes.append(len(pool))
        return combine(self, pool)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FittedRouter, "combine_and_weigh", spy)
        patch.setattr("clipsyn.store.arrays.BLOCK_BYTES", 1)
        parts = predict_store(router, store, "toy")
    assert sizes == [7, 7, 6]
    assert parts.frame.equals(whole.frame)
    assert parts.accuracy == whole.accuracy


def test_an_unreadable_image_keeps_its_row(router, other, fakes):
    store = other(fakes.Source(bad={3: "cut"}), max_bad=1.0)
    found = predict_store(router, store, "toy")
    row = found.frame.row(3, named=True)
    assert (row.pop("id"), row.pop("seen")) == ("im003.png", False)
    assert set(row.values()) == {None}
    assert found.frame["class"].null_count() == 1
    assert found.accuracy is not None
    assert found.accuracy.n == 19


def test_a_missing_backbone_comes_with_the_line_that_helps(router, fakes, tmp_path):
    store = fakes.fill(tmp_path / "one", [fakes.Encoder()])
    line = (
        f"clipsyn extract {store.path} --backbones fake/two=local-dir:checkpoints/fake/two "
        "--dataset toy=… --split test"
    )
    with pytest.raises(MissingCell) as caught:
        predict_store(router, store, "toy")
    assert f"run `{line}`" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("weights", "0" * 64), ("precision", "bf16"), ("preprocess.size", {"size": [9, 9]})],
)
def test_another_backbone_of_that_name(router, other, field, value):
    def change(encoder):
        encoder.identity[field.partition(".")[0]] = value

    store = other(change=change)
    for use in (
        lambda: predict_store(router, store, "toy"),
        lambda: router.predict(store.pool("toy", "test")),
    ):
        with pytest.raises(RouterMismatch) as caught:
            use()
        assert caught.value.field == f"{field} of fake/two"


def test_other_texts_in_the_store_change_nothing(other, fakes, tmp_path):
    """The router brings its own, under the same name too."""
    train = fakes.Source(split="train", templates=("a {c}.",))
    encoders = fakes.two()
    router = fit_router(fakes.fill(tmp_path / "fit", encoders, [train]), "toy", "log-avg")
    found = predict_store(router, other(fakes.Source(templates=("the {c}.",))), "toy")
    expected = predict_store(
        router,
        fakes.fill(tmp_path / "same", encoders, [fakes.Source(templates=("a {c}.",))]),
        "toy",
    )
    assert_frame_equal(found.frame, expected.frame)
    assert found.accuracy == expected.accuracy


@pytest.mark.parametrize(
    "names", [("cat", "hound", "crème brûlée"), ("dog", "dog"), ("cat", "dog", "crème brûlée", "x")]
)
def test_images_of_other_classes_have_no_accuracy(router, other, fakes, names):
    store = other(fakes.Source(class_names=names))
    found = predict_store(router, store, "toy")
    assert found.accuracy is None
    assert found.other_classes
    assert set(found.frame["class"]) <= set(router.class_names)


def test_images_of_some_of_the_classes_in_another_order(router, other, fakes):
    store = other(fakes.Source(class_names=("dog", "cat")))
    found = predict_store(router, store, "toy")
    samples = store.samples("toy", "test")
    names = [samples.class_names[label] if label >= 0 else None for label in samples.labels]
    pairs = [pair for pair in zip(names, found.frame["class"], strict=True) if None not in pair]
    assert found.accuracy is not None
    assert found.accuracy.n == len(pairs)
    assert found.accuracy.value == sum(name == given for name, given in pairs) / len(pairs)
    assert not found.other_classes


@pytest.fixture
def imported(tiny_store, tmp_path):
    """The logits of `tiny_store`, as its owner would import them into another store."""
    for split in ("train", "test"):
        pool = tiny_store.pool("toy", split)
        (tmp_path / "classes.txt").write_text("\n".join(pool.class_names))
        about = {"ids": pool.ids, "labels": [pool.class_names[label] for label in pool.labels]}
        for column, name in enumerate(pool.backbones):
            np.savez(tmp_path / "logits.npz", logits=pool.logits[:, column], **about)
            wanted = ImportSettings(
                dataset="toy", split=split, backbone=name, classes=tmp_path / "classes.txt"
            )
            import_files(tmp_path / "imported", [tmp_path / "logits.npz"], wanted)
    return FeatureStore.open(tmp_path / "imported")


def test_imported_logits_are_taken_on_trust(router, tiny_store, imported):
    ours, theirs = predict_store(router, tiny_store, "toy"), predict_store(router, imported, "toy")
    assert theirs.frame.drop("seen").equals(ours.frame.drop("seen"))
    assert theirs.frame["seen"].null_count() == 20
    assert theirs.accuracy == ours.accuracy


def test_a_router_fitted_on_imported_logits(imported):
    router = fit_router(imported, "toy", "log-avg")
    predicted = predict_store(router, imported, "toy").frame["class_index"].to_numpy()
    pool = imported.pool("toy", "test")
    np.testing.assert_array_equal(predicted, pool.logits.mean(axis=1).argmax(axis=1))


@pytest.fixture
def written(tiny_store, tmp_path):
    """The embeddings and class embeddings of `tiny_store`, written from Python."""
    store = FeatureStore.create(tmp_path / "written")
    for split in ("train", "test"):
        pool = tiny_store.pool("toy", split)
        samples = SampleTable.of("toy", split, pool.ids, pool.labels, pool.class_names)
        for name in pool.backbones:
            key = FeatureKey("toy", split, "clean", name)
            with store.writer(samples, name) as cell:
                classes, scale = tiny_store.class_embeddings("toy", "simple", name)
                cell.classes("simple", classes, scale=scale)
                cell.embeddings(tiny_store.cell(key).embeddings())
    return store


@pytest.mark.parametrize("ensemble", ["log-avg", "nlc"])
def test_routers_serve_extracted_and_written_cells_of_the_same_backbones(
    ensemble, tiny_store, written
):
    whole = predict_store(fit_router(tiny_store, "toy", ensemble), tiny_store, "toy").frame
    for fitted_on, applied_to in ((tiny_store, written), (written, tiny_store), (written, written)):
        router = fit_router(fitted_on, "toy", ensemble)
        found = predict_store(router, applied_to, "toy").frame
        assert_frame_equal(found.drop("seen"), whole.drop("seen"))
        assert found["seen"].null_count() == 20  # of images that were not read, nothing is known

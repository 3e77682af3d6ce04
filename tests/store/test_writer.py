"""`FeatureStore.writer`: cells from Python, whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, InputError, StaleCell, UsageError
from clipsyn.names import FeatureKey
from clipsyn.store import arrays
from clipsyn.store.cell import Cell
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import left_over
from clipsyn.store.samples import SampleTable
from clipsyn.store.writer import CellWriter
from tests.kills import problems, unfinished

N, WIDTH, CLASSES = 23, 6, ("ant", "bee", "cat")
KEY = FeatureKey("toy", "test", "clean", "mine")
GENERATOR = np.random.default_rng(0)


def unit(rows: int, width: int = WIDTH) -> NDArray[np.float64]:
    values = GENERATOR.normal(size=(rows, width))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


IMAGES, TEXTS = unit(N), unit(len(CLASSES))
LOGITS = GENERATOR.normal(size=(N, len(CLASSES)))
PREDICTED = GENERATOR.integers(0, len(CLASSES), N)
SURE = GENERATOR.random(N)
VALID = np.arange(N) % 7 != 3


def samples(**changes: Any) -> SampleTable:
    asked = {
        "dataset": "toy",
        "split": "test",
        "ids": [f"im{row:02}" for row in range(N)],
        "labels": np.arange(N) % len(CLASSES),
        "class_names": CLASSES,
    }
    return SampleTable.of(**{**asked, **changes})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """Empty, with products of eight rows, and embeddings in chunks of two of these."""
    monkeypatch.setattr(arrays, "_WRITTEN", 2 * 8 * 4 * WIDTH)
    return FeatureStore.create(tmp_path / "store", chunk_rows=8)


def embedded(cell: CellWriter) -> None:
    cell.classes("simple", TEXTS, 100.0)
    cell.embeddings(IMAGES, VALID)


WRITE: dict[str, Callable[[CellWriter], None]] = {
    "embeddings with classes": embedded,
    "embeddings": lambda cell: cell.embeddings(IMAGES, VALID),
    "logits": lambda cell: cell.logits(LOGITS, VALID),
    "predictions": lambda cell: cell.predictions(PREDICTED, valid=VALID),
    "confidences": lambda cell: cell.predictions(PREDICTED, SURE, VALID),
}


def write(store: FeatureStore, rows: Callable[[CellWriter], None], **options: Any) -> None:
    with store.writer(samples(), "mine", **options) as cell:
        rows(cell)


def written(store: FeatureStore, kind: str, **options: Any) -> Cell:
    write(store, WRITE[kind], **options)
    return store.cell(KEY)


def test_what_is_read_embeddings_and_their_logits(store: FeatureStore) -> None:
    """The logits are what numpy makes of the rounded embeddings."""
    with store.writer(samples(), "mine") as cell:
        cell.embeddings(IMAGES)
        cell.classes("simple", TEXTS, scale=50)
    rounded = IMAGES.astype(np.float16)
    np.testing.assert_array_equal(store.cell(KEY).embeddings(), rounded)
    expected = 50 * rounded.astype(np.float64) @ TEXTS.astype(np.float32).T
    np.testing.assert_allclose(store.cell(KEY).logits("simple"), expected, atol=2e-5)
    np.testing.assert_array_equal(store.cell(KEY).predictions("simple"), expected.argmax(axis=1))
    texts, scale = store.class_embeddings("toy", "simple", "mine")
    np.testing.assert_array_equal(texts, TEXTS.astype(np.float32))
    assert scale == 50
    assert problems(store, deep=True) == []


@pytest.mark.parametrize("valid", [None, VALID])
def test_what_is_read_embeddings_that_are_mapped_stay_as_they_are(store, tmp_path, valid):
    np.save(tmp_path / "mine.npy", IMAGES.astype(np.float16))
    mapped = np.load(tmp_path / "mine.npy", mmap_mode="r")
    write(store, lambda cell: cell.embeddings(mapped, valid))
    has = slice(None) if valid is None else valid
    np.testing.assert_array_equal(store.cell(KEY).embeddings()[has], mapped[has])


def test_what_is_read_logits_and_their_predictions(store: FeatureStore) -> None:
    with store.writer(samples(), "mine") as cell:
        cell.logits(LOGITS)
    np.testing.assert_array_equal(store.cell(KEY).logits("imported"), LOGITS.astype(np.float32))
    np.testing.assert_array_equal(store.cell(KEY).predictions("imported"), LOGITS.argmax(axis=1))


def test_what_is_read_predictions_with_confidences_of_a_prompt_set(store: FeatureStore) -> None:
    for prompts in ("one", "two"):
        with store.writer(samples(), "mine", prompts=prompts) as cell:
            cell.predictions(PREDICTED, SURE if prompts == "one" else 1 - SURE)
    np.testing.assert_array_equal(store.cell(KEY).predictions("two"), PREDICTED)
    np.testing.assert_allclose(store.cell(KEY).confidences("two"), 1 - SURE, atol=1e-7)


def test_what_is_read_logits_of_more_classes_than_a_chunk_of_so_many_rows_holds(store, monkeypatch):
    monkeypatch.setattr(arrays, "_LARGEST", 5 * len(CLASSES) * 4)  # bytes of five rows of eight
    monkeypatch.setattr(arrays, "_WRITTEN", 0)
    write(store, lambda cell: cell.logits(LOGITS))
    cell = FeatureStore.open(store.path).cell(KEY)
    assert {layout.rows for layout in cell.group().arrays.values()} == {5}
    np.testing.assert_array_equal(cell.logits("any"), LOGITS.astype(np.float32))
    assert problems(store) == []


@pytest.mark.parametrize("kind", WRITE)
def test_what_is_read_rows_without_a_value(store: FeatureStore, kind: str) -> None:
    cell = written(store, kind)
    np.testing.assert_array_equal(cell.valid(), VALID)
    assert (cell.facts["images"], cell.facts["bad"]) == (N, np.count_nonzero(~VALID))
    if cell.has_embeddings:
        np.testing.assert_array_equal(np.isnan(cell.embeddings()).all(axis=1), ~VALID)
    if cell.has_predictions:
        (prompts,) = cell.prompt_sets()
        np.testing.assert_array_equal(cell.predictions(prompts) == 65535, ~VALID)
    assert problems(store, deep=True) == []


@pytest.mark.parametrize("kind", WRITE)
def test_whole_or_not_at_all_an_exception_leaves_the_store_as_it_was(store, kind):
    def interrupted(cell: CellWriter) -> None:
        WRITE[kind](cell)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(store, interrupted)
    assert store.places() == []
    assert unfinished(store.path) == left_over(store.path) == []


def test_whole_or_not_at_all_nothing_is_visible_before_the_end(store: FeatureStore) -> None:
    with store.writer(samples(), "mine") as cell:
        embedded(cell)
        assert store.places() == []
    assert len(store.places()) == 4


def test_whole_or_not_at_all_a_writer_that_is_killed_leaves_no_cell(store: FeatureStore) -> None:
    """And what it left can be seen and dropped, and is in nobody's way."""
    code = (
        "import os, signal, sys, numpy as np, clipsyn\n"
        "store = clipsyn.FeatureStore.open(sys.argv[1])\n"
        f"samples = clipsyn.SampleTable.of('toy', 'test', range({N}), None, list('abc'))\n"
        "with store.writer(samples, 'mine') as cell:\n"
        "    cell.classes('simple', np.eye(3), 100)\n"
        f"    cell.embeddings(np.eye(3)[np.zeros({N}, int)])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, store.path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (store.keys(), store.places()) == ([], [])
    (draft,) = unfinished(store.path)
    assert (draft.target, draft.done) == ("features/toy/test/clean/mine", 1)
    written(store, "embeddings with classes")
    assert store.keys() == [KEY]


def test_whole_or_not_at_all_of_two_writers_of_one_name_the_second_is_refused(store):
    def late(cell: CellWriter) -> None:
        cell.embeddings(-IMAGES)
        written(store, "embeddings")

    with pytest.raises(StaleCell):
        write(store, late)
    np.testing.assert_array_equal(store.cell(KEY).embeddings()[VALID], IMAGES[VALID].astype("f2"))


def test_whole_or_not_at_all_of_two_that_nothing_forbade_the_second_looks_again(store):
    """As two imports of one name at once, of other kinds: both would be there."""
    first, second = (store.writer(samples(), "mine") for _ in range(2))
    first.predictions(PREDICTED)
    second.logits(LOGITS)
    assert (first.finish(), second.finish()) == ("new", "new")
    first.__exit__(None, None, None)
    with pytest.raises(StaleCell):
        second.__exit__(None, None, None)
    assert problems(store, deep=True) == []
    assert store.cell(KEY).imported_as == "predictions"


@pytest.mark.parametrize("kind", WRITE)
def test_another_time_the_same_numbers_change_nothing(store: FeatureStore, kind: str) -> None:
    before = written(store, kind).group().attributes
    assert written(store, kind).group().attributes == before


def test_another_time_other_numbers_need_replace(store: FeatureStore) -> None:
    written(store, "embeddings with classes")
    with pytest.raises(StaleCell, match="content"), store.writer(samples(), "mine") as cell:
        cell.embeddings(-IMAGES)
    with store.writer(samples(), "mine", replace=True) as cell:
        cell.embeddings(-IMAGES)
    np.testing.assert_array_equal(store.cell(KEY).embeddings(), -IMAGES.astype(np.float16))
    expected = 100 * -IMAGES.astype(np.float16).astype(np.float64) @ TEXTS.T
    np.testing.assert_allclose(store.cell(KEY).logits("simple"), expected, atol=1e-4)
    assert problems(store, deep=True) == []


def test_another_time_other_class_embeddings_need_replace(store: FeatureStore) -> None:
    written(store, "embeddings with classes")

    def colder(cell: CellWriter) -> None:
        cell.classes("simple", TEXTS, 50)
        cell.embeddings(IMAGES, VALID)

    with pytest.raises(StaleCell):
        write(store, colder)
    write(store, colder, replace=True)
    assert store.class_embeddings("toy", "simple", "mine")[1] == 50
    assert np.nanmax(np.abs(store.cell(KEY).logits("simple"))) <= 50


def test_another_time_what_was_extracted_is_never_overwritten(tiny_store, fakes):
    table = tiny_store.samples("toy", "test")
    with pytest.raises(StaleCell):
        tiny_store.writer(table, "fake/one", replace=True)
    writer = tiny_store.writer(table, "fake/one", "fog-1", replace=True)
    writer.classes("simple", np.eye(3), 100)
    writer.embeddings(np.eye(3)[np.zeros(len(table), int)])
    with pytest.raises(StaleCell):
        writer.__exit__(None, None, None)
    assert unfinished(tiny_store.path) == []


def test_another_time_one_name_is_with_a_prompt_set_or_without(store: FeatureStore) -> None:
    written(store, "logits")
    with pytest.raises(StaleCell):
        store.writer(samples(), "mine", prompts="simple")


NAN = np.where(np.arange(N)[:, None] == 4, np.nan, IMAGES)


# Each is one sentence that says what, where and what to do instead.


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda cell: cell.embeddings(NAN), InputError),
        (lambda cell: cell.embeddings(2 * IMAGES), InputError),
        (lambda cell: cell.embeddings(IMAGES.astype(str)), InputError),
        (lambda cell: cell.embeddings(unit(N + 1)), InputError),
        (lambda cell: cell.embeddings(unit(N - 1)), InputError),
        (
            lambda cell: (cell.classes("simple", unit(3, 5), 1), cell.embeddings(IMAGES)),
            InputError,
        ),
        (lambda cell: cell.classes("simple", unit(4), 1), InputError),
        (lambda cell: cell.classes("simple", 3 * TEXTS, 1), InputError),
        (lambda cell: cell.classes("simple", TEXTS, float("nan")), InputError),
        (lambda cell: (cell.logits(LOGITS), cell.embeddings(IMAGES)), UsageError),
        (lambda cell: (cell.logits(LOGITS), cell.classes("simple", TEXTS, 1)), UsageError),
        (lambda cell: cell.logits(LOGITS[:, :2]), DatasetError),
        (lambda cell: cell.logits(np.full((N, 3), 3e38)), InputError),
        (lambda cell: cell.predictions(PREDICTED.astype(np.int64) + 2**32), InputError),
        (lambda cell: cell.predictions(np.array(CLASSES)[PREDICTED]), InputError),
        (lambda cell: cell.predictions(PREDICTED, SURE + 1), InputError),
        (lambda cell: (cell.predictions(PREDICTED), cell.predictions(PREDICTED)), UsageError),
        (lambda cell: cell.logits(LOGITS, PREDICTED), InputError),
        (lambda cell: None, UsageError),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(store, write, error):
    with pytest.raises(error), store.writer(samples(), "mine") as cell:
        write(cell)
    assert store.places() == []
    assert unfinished(store.path) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ids": [f"im{row:02}" for row in range(1, N + 1)]}, "1 added .*, 1 gone"),
        ({"ids": [f"im{row:02}" for row in range(N)][::-1]}, "the order of the images"),
        ({"labels": None}, "other labels or class names"),
        ({"class_names": ("x", "y", "z")}, "other labels or class names"),
        ({"split": "train", "class_names": ("x", "y", "z")}, "other classes than toy/test"),
    ],
)
def test_what_cannot_be_other_samples(store: FeatureStore, changes: Any, said: str) -> None:
    written(store, "logits")
    with pytest.raises(DatasetError, match=said):
        store.writer(samples(**changes), "other")


def test_what_cannot_be_logits_of_samples_without_class_names(store: FeatureStore) -> None:
    nameless = samples(labels=None, class_names=())
    with pytest.raises(DatasetError), store.writer(nameless, "mine") as cell:
        cell.logits(LOGITS)
    with store.writer(nameless, "mine") as cell:
        cell.embeddings(IMAGES)
    assert store.cell(KEY).prompt_sets() == []

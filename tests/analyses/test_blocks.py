"""No command asks for a whole split at once: what is read at a time does not grow with it."""

import shutil

import numpy as np
import pytest

from clipsyn import fit_router, predict_store
from clipsyn.analyses.accuracy import zeroshot
from clipsyn.analyses.oracle import oracle
from clipsyn.errors import DatasetError
from clipsyn.exchange import ImportSettings, npz
from clipsyn.exchange.export import export
from clipsyn.exchange.importing import import_files
from clipsyn.names import FeatureKey
from clipsyn.store import arrays, groups
from clipsyn.store.features import FeatureStore
from clipsyn.store.given import Made
from clipsyn.store.samples import SampleTable

ROWS, CLASSES = 100, 6
KEY = FeatureKey("toy", "test", "clean", "mine")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Without logits, in chunks of ten rows, which are the smallest that can be read."""
    monkeypatch.setattr(arrays, "_WRITTEN", 1)
    made = FeatureStore.create(tmp_path / "store", chunk_rows=10)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        labels = np.arange(ROWS) % CLASSES
        ids = [f"{split}/{row}" for row in range(ROWS)]
        table = SampleTable.of("toy", split, ids, labels, "abcdef")
        values = rng.normal(size=(ROWS, 8)) + 2 * np.eye(8)[labels]
        with made.writer(table, "mine") as cell:
            cell.classes("simple", np.eye(CLASSES, 8), 10.0)
            cell.embeddings(values / np.linalg.norm(values, axis=1, keepdims=True))
    shutil.rmtree(made.path / "logits")
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1)
    monkeypatch.setattr(npz, "_LARGE", 1)
    return FeatureStore.open(made.path)


@pytest.fixture
def asked(monkeypatch):
    """The arrays that are read, and how many rows at once."""
    found: list[tuple[str, int]] = []
    read = groups.Tree.read

    def spy(self, path, array, rows, listed):
        found.append((array, listed.shape[0] if rows is None else len(rows)))
        return read(self, path, array, rows, listed)

    monkeypatch.setattr(groups.Tree, "read", spy)
    return found


def exported(store, fakes):
    export(store, store.path.parent / "out", [KEY], "npz", fakes.Quiet())
    return store.path.parent / "out"


@pytest.mark.parametrize(
    ("run", "asks_for_ids"),
    [
        (lambda store, *_: zeroshot(store, splits="test"), False),
        (lambda store, *_: oracle(store, splits="test"), False),
        (lambda store, router, _: predict_store(router, store, "toy"), True),
        (lambda store, _, fakes: exported(store, fakes), True),
    ],
    ids=["zeroshot", "oracle", "predict", "export"],
)
def test_embeddings_and_ids_are_read_some_rows_at_a_time(store, asked, fakes, run, asks_for_ids):
    router = fit_router(store, "toy", "log-avg")
    asked.clear()
    run(store, router, fakes)
    sizes = [count for array, count in asked if array == "image_embedding"]
    assert (sum(sizes), max(sizes)) == (ROWS, 10)
    assert ("sample_id" in dict(asked)) == asks_for_ids


def test_an_import_of_an_export_has_its_bits_whatever_is_read_at_once(
    store, asked, fakes, monkeypatch
):
    folder, sizes, make = exported(store, fakes), [], Made.__getitem__

    def spy(self, rows):
        found = make(self, rows)
        sizes.append(len(found) if self.shape == (ROWS, 8) else 0)
        return found

    monkeypatch.setattr(Made, "__getitem__", spy)
    FeatureStore.create(store.path.parent / "new", chunk_rows=10)
    import_files(store.path.parent / "new", [folder], ImportSettings())
    assert max(sizes) == 10
    again = FeatureStore.open(store.path.parent / "new")
    assert again.cell(KEY).embeddings().tobytes() == store.cell(KEY).embeddings().tobytes()
    assert again.cell(KEY).logits("simple").tobytes() == store.cell(KEY).logits("simple").tobytes()
    assert again.samples("toy", "test").ids == store.samples("toy", "test").ids


def test_a_damaged_export_is_refused(store, fakes):
    (file,) = exported(store, fakes).glob("toy/**/*.npz")
    data = bytearray(file.read_bytes())
    at = data.index(store.cell(KEY).embeddings()[50].tobytes())
    data[at] ^= 1
    file.write_bytes(data)
    new = FeatureStore.create(store.path.parent / "new")
    with pytest.raises(DatasetError):
        import_files(new.path, [file], ImportSettings())
    assert new.keys() == []

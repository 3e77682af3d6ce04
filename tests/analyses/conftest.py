"""A store of extracted birds, and stores of answers that a test gives."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clipsyn.analyses.predicted import Predicted
from clipsyn.methods.numerics.logits import NO_PREDICTION
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable


@pytest.fixture(scope="session")
def varied(fakes):
    """Encoders of which each takes an image for another class."""

    class Varied(fakes.Encoder):  # type: ignore[misc]
        def encode_images(self, pixels):
            return super().encode_images(pixels.astype(int) - 127)

    return Varied


@pytest.fixture(scope="session")
def birds(fakes, varied, tmp_path_factory):
    """Three backbones of different weights, two undecodable birds, clean and jpeg-3; flags."""
    path = tmp_path_factory.mktemp("birds") / "store"
    encoders = [varied(name) for name in ("vit/a", "rn/b", "cnx/c")]
    six, bad = tuple(f"class {c}" for c in range(6)), {3: "truncated", 41: "empty file"}
    source = fakes.Source("birds", count=90, class_names=six, bad=bad)
    fakes.fill(path, encoders, [source], ("clean", "jpeg:3"), max_bad=0.1)
    filled: FeatureStore = fakes.fill(path, encoders, [fakes.Source("flags", count=30)])
    return filled


class Stub:
    """What `Predicted` asks of a store, from logits (backbone, sample, class)."""

    product_rows = staticmethod(FeatureStore(Path(), chunk_rows=3).product_rows)

    def __init__(self, logits, names):
        self.logits_of = dict(zip(names, logits.astype(np.float32), strict=True))
        self.read: list[range] = []

    def cell(self, key):
        logits = self.logits_of[key.backbone]
        missing = np.isnan(logits).any(axis=1)
        predicted = np.where(missing, NO_PREDICTION, np.nan_to_num(logits).argmax(1))

        def read(prompts, rows):
            self.read.append(rows)
            return logits[rows.start : rows.stop]

        return SimpleNamespace(
            predictions=lambda *_: predicted.astype(np.uint16),
            logits=read,
            fingerprint=lambda _: f"of {key.backbone}",
        )


@pytest.fixture
def give(monkeypatch):
    """Function (module, logits, labels): its store has this one group of images; returns that."""

    def given(module, logits, labels):
        array, truth = np.asarray(logits, float), np.asarray(labels, np.int32)
        names = tuple("abcde"[: len(array)])
        store = Stub(array, names)
        ids = tuple(f"im{row}" for row in range(len(truth)))
        classes = tuple(f"class {c}" for c in range(array.shape[2]))
        content = np.zeros((len(truth), 32), np.uint8)
        samples = SampleTable("toy", "test", ids, truth, content, classes)
        keys = tuple(FeatureKey("toy", "test", "clean", name) for name in names)
        group = Predicted(store, samples, keys, "own")
        monkeypatch.setattr("clipsyn.evaluation.results.data.with_data", lambda _, frame: frame)
        monkeypatch.setattr(module, "predicted", lambda *_, **__: iter([group]))
        return store

    return given


@pytest.fixture(scope="session")
def one_hot():
    """Function (predictions, classes): logits (backbone, sample, class); NaN for None."""

    def made(predictions, classes=3):
        every = [[[p == c for c in range(classes)] for p in row] for row in predictions]
        missing = [[p is None for p in row] for row in predictions]
        return np.where(np.array(missing)[:, :, None], np.nan, np.array(every, float))

    return made

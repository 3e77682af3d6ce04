"""Entry points of other packages: loaded for a name that a user wrote, never for one in a file."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner

from clipsyn import __version__
from clipsyn.catalog import datasets
from clipsyn.cli import main
from clipsyn.errors import PluginError, UnknownName
from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.plan import versions
from clipsyn.extract.images import open_source
from clipsyn.images import perturb
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.router.artefact import load_router, save_router

CODE = """
from clipsyn.catalog.datasets import DatasetInfo
from clipsyn.images.perturb import PerturbationInfo
from clipsyn.images.files import open_folder
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.heads.base import Head

class Sharp(Ensemble):
    learns = False

    def __init__(self, power: float = 2.0):
        self.power = power

    def _combine(self, pool):
        return self.power * pool.logits.mean(axis=1)

class Plain(Head):
    learns = False

DARK = PerturbationInfo("birds:darken", version=3, doc="less light", group="lights")

def darken(image, severity, rng):
    return image // (severity + 1)

BIRDS = DatasetInfo("garden", "Birds", "acc1", "CC0", source="birds:open_birds")

def open_birds(split, root, download):
    return open_folder(root / "photos", "garden", split)
"""
OFFERED = {
    "ensembles": {"sharp": "Sharp"},
    "heads": {"plain": "Plain"},
    "perturbations": {"dark": "DARK"},
    "datasets": {"garden": "BIRDS"},
}


@pytest.fixture
def birds(offer, monkeypatch):
    offer("birds", CODE, OFFERED)
    monkeypatch.setattr(perturb, "INFO", dict(perturb.INFO))
    monkeypatch.setattr(ENSEMBLES, "_others", {})
    monkeypatch.setattr(HEADS, "_others", {})
    index = dict(datasets._index())
    monkeypatch.setattr(datasets, "_index", lambda: index)
    versions.cache_clear()


@pytest.mark.usefixtures("birds")
def test_methods_are_measured_beside_ours(tiny_store):
    assert from_text(ENSEMBLES, "sharp:power=3").power == 3
    assert type(from_text(HEADS, "plain")).__name__ == "Plain"
    assert "sharp" not in [*ENSEMBLES]
    frame = evaluate(tiny_store, ensembles=["sharp", "log-avg"], shots=[1], seeds=1)
    found = frame.filter(metric="acc1", head="zero-shot")
    sharp, log_avg = (found.filter(ensemble=name)["value"] for name in ("sharp", "log-avg"))
    assert sharp.to_list() == log_avg.to_list() != []
    assert versions("zero-shot", "sharp:power=3") == [__version__, "birds-pack 1.5"]
    assert versions("zero-shot", "nlc") == versions("zero-shot", "oracle") == [__version__]


@pytest.mark.usefixtures("birds")
def test_a_router_does_not_load_what_nobody_asked_for(tiny_store, tmp_path, monkeypatch):
    pool = tiny_store.pool("toy", "train")
    fitted = from_text(ENSEMBLES, "sharp").fit(pool)
    save_router(tmp_path / "r", fitted, pool)
    again = load_router(tmp_path / "r")
    np.testing.assert_array_equal(again.combine(pool), fitted.combine(pool))
    del sys.modules["birds"]
    monkeypatch.setattr(ENSEMBLES, "_others", {})
    with pytest.raises(UnknownName):
        load_router(tmp_path / "r")
    assert "birds" not in sys.modules


@pytest.mark.usefixtures("birds")
def test_images_and_what_is_done_to_them(write_images):
    folder = write_images()
    assert len(open_source("garden", "test", root=folder.parent)) == 8
    assert perturb.resolve("dark:2").version == 3
    image = np.full((2, 2, 3), 90, np.uint8)
    assert perturb.apply(perturb.resolve("dark:2"), image, "a").max() == 30


@pytest.mark.parametrize("command", ["ls", "zeroshot", "verify", "evaluate", "catalog"])
def test_what_does_not_ask_for_a_broken_one_goes_on(offer, tiny_store, command):
    offer("broken", "raise RuntimeError('no luck')", {group: {"broken": "X"} for group in OFFERED})
    words = {"evaluate": ["--ensembles", "all", "--shots", "1", "--seeds", "1"]}
    where = "datasets" if command == "catalog" else str(tiny_store.path)
    result = CliRunner().invoke(main, [command, where, *words.get(command, [])])
    assert result.exit_code == 0, result.output
    assert "broken" not in result.output
    with pytest.raises(PluginError, match=r"broken-pack 1\.5.*no luck"):
        ENSEMBLES.load("broken")

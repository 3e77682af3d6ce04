"""Plugins: found by name, loaded only for a name that a user wrote, named in errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn import __version__
from clipsyn.catalog import datasets
from clipsyn.errors import ClipsynError, PluginError, UnknownName, UsageError
from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.plan import versions
from clipsyn.extract.sources import open_source
from clipsyn.images import perturb
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.router.artefact import load_router, save_router
from clipsyn.store.features import FeatureStore

Offer = Callable[[str, str, dict[str, dict[str, str]]], None]

SHARP = """
from clipsyn.methods.ensembles.base import Ensemble

class Sharp(Ensemble):
    learns = False

    def __init__(self, power: float = 2.0, shape: int | None = None):
        self.power = power
        self.shape = shape

    def _combine(self, pool):
        return self.power * pool.logits.mean(axis=1)
"""
DARK = """
import numpy as np
from clipsyn.images.perturb import PerturbationInfo

DARK = PerturbationInfo("dark:darken", version=3, doc="less light", group="lights")

def darken(image, severity, rng):
    return image // (severity + 1)
"""
BIRDS = """
from clipsyn.catalog.datasets import DatasetInfo
from clipsyn.images.sources.files import open_folder

BIRDS = DatasetInfo("birds", "Birds", "mean_per_class_recall", "CC0", source="birds:open_birds")

def open_birds(split, root, download):
    return open_folder(root / "photos", "birds", split)
"""


@pytest.fixture
def sharp(offer: Offer) -> None:
    offer("sharp", SHARP, {"ensembles": {"sharp": "Sharp"}})


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(perturb, "INFO", dict(perturb.INFO))
    yield
    datasets._index.cache_clear()
    versions.cache_clear()


@pytest.mark.usefixtures("sharp")
class TestEnsembles:
    def test_one_is_used_by_name_and_parameters(self) -> None:
        sharp = from_text(ENSEMBLES, "sharp:power=3:shape=4")
        assert (sharp.power, sharp.shape) == (3.0, 4)
        assert ENSEMBLES.name_of(type(sharp)) == "sharp"
        with pytest.raises(UsageError):
            from_text(ENSEMBLES, "sharp:power=x")

    def test_all_are_our_own(self) -> None:
        assert "sharp" not in [*ENSEMBLES]

    def test_it_is_measured_beside_ours(self, tiny_store: FeatureStore) -> None:
        frame = evaluate(tiny_store, ensembles=["sharp", "log-avg"], shots=[1], seeds=1)
        found = frame.filter(metric="acc1", head="zero-shot")
        (sharp,), (log_avg,) = (
            found.filter(ensemble=name)["value"] for name in ("sharp", "log-avg")
        )
        assert sharp == log_avg

    def test_its_version_decides_whether_results_are_the_same(self) -> None:
        assert versions("zero-shot", "sharp:power=3") == [__version__, "sharp-pack 1.5"]
        assert versions("zero-shot", "nlc") == versions("zero-shot", "oracle") == [__version__]

    def test_a_name_that_is_near(self) -> None:
        with pytest.raises(UnknownName, match=r"unknown ensemble 'sharpe': did you mean sharp\?"):
            ENSEMBLES.load("sharpe")
        assert "sharp" not in sys.modules

    def test_a_router_does_not_load_it_unless_the_user_says_so(
        self, tiny_store: FeatureStore, tmp_path: Path
    ) -> None:
        pool = tiny_store.pool("toy", "train")
        fitted = from_text(ENSEMBLES, "sharp").fit(pool)
        save_router(tmp_path / "r", fitted, pool)
        del sys.modules["sharp"]
        with pytest.raises(UsageError) as caught:
            load_router(tmp_path / "r")
        assert "sharp" not in sys.modules
        assert "the ensemble 'sharp' of the package sharp-pack 1.5, whose code" in str(caught.value)
        again = load_router(tmp_path / "r", plugins=True)
        np.testing.assert_array_equal(again.combine(pool), fitted.combine(pool))
        assert again.method == "sharp"


def test_a_head_of_another_package(offer: Offer) -> None:
    code = "from clipsyn.methods.heads.base import Head\nclass Plain(Head):\n    learns = False\n"
    offer("plain", code, {"heads": {"plain": "Plain"}})
    assert type(from_text(HEADS, "plain")).__name__ == "Plain"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('no\\n  luck')", "RuntimeError: no luck"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = (", "SyntaxError: "),
        ("", "AttributeError: module 'broken' has no attribute 'Thing'"),
        (
            "class Thing: pass",
            "TypeError: broken:Thing is no clipsyn.methods.ensembles.base.Ensemble",
        ),
        (
            "from clipsyn.methods.ensembles.static import LogAverage as Thing",
            "TypeError: the entry point says broken:Thing, the class is "
            "clipsyn.methods.ensembles.static:LogAverage",
        ),
        (
            "from clipsyn.methods.ensembles.base import Ensemble\n"
            "class Thing(Ensemble):\n    def __init__(self, size): self.size = size\n",
            "TypeError: Thing.__init__() missing 1 required positional argument: 'size'",
        ),
    ],
)
def test_a_broken_one_is_one_sentence_that_names_its_package(
    offer: Offer, code: str, why: str
) -> None:
    offer("broken", code, {"ensembles": {"broken": "Thing"}})
    with pytest.raises(PluginError) as caught:
        from_text(ENSEMBLES, "broken")
    said = str(caught.value)
    assert said.startswith(f"ensemble 'broken' of the package broken-pack 1.5 does not work ({why}")
    assert "\n" not in said
    assert from_text(ENSEMBLES, "log-avg")


def test_a_name_of_two_packages(offer: Offer) -> None:
    for module in ("one", "two"):
        offer(module, SHARP, {"ensembles": {"sharp": "Sharp"}})
    with pytest.raises(PluginError, match=r"is offered by one-pack 1\.5 and two-pack 1\.5"):
        ENSEMBLES.load("sharp")


def test_a_name_of_ours_stays_ours(offer: Offer) -> None:
    offer("sharp", SHARP, {"ensembles": {"nlc": "Sharp"}})
    assert ENSEMBLES.load("nlc").__module__ == "clipsyn.methods.ensembles.nlc"


def test_a_perturbation(offer: Offer) -> None:
    offer("dark", DARK, {"perturbations": {"dark": "DARK"}})
    (asked,) = perturb.expand(["dark:4"])
    assert (asked.name, asked.severity, asked.version) == ("dark", 4, 3)
    image = np.full((4, 4, 3), 200, np.uint8)
    assert (perturb.apply(asked, image, "x") == 40).all()
    assert "lights" not in perturb.GROUPS


def test_a_perturbation_is_looked_for_when_it_is_asked_for(offer: Offer) -> None:
    offer("dark", DARK, {"perturbations": {"dark": "DARK"}})
    perturb.expand(["imagenet-c:1"])
    with pytest.raises(UnknownName, match="did you mean dark"):
        perturb.expand(["darc:2"])
    assert "dark" not in sys.modules
    assert "dark" in perturb.available()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("DARK = 3", "dark:DARK is no clipsyn.images.perturb.PerturbationInfo"),
        (DARK.replace("dark:darken", "dark"), "'dark' is not 'module:function'"),
    ],
)
def test_a_broken_perturbation(
    offer: Offer, code: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    offer("dark", code, {"perturbations": {"dark": "DARK"}})
    with pytest.raises(PluginError, match="perturbation 'dark' of the package dark-pack") as it:
        perturb.resolve("dark:2")
    assert why in str(it.value)
    assert "dark" not in perturb.available()
    assert "dark-pack 1.5" in caplog.text


def test_a_dataset(offer: Offer, write_images: Any) -> None:
    offer("birds", BIRDS, {"datasets": {"birds": "BIRDS"}})
    root = write_images().parent
    assert datasets.find_dataset("birds") is None
    assert "birds" not in sys.modules
    source = open_source("birds", "test", root=root)
    assert (source.name, len(source), source.metric) == ("birds", 8, "mean_per_class_recall")
    assert datasets.resolve_datasets(["birds,emoji-food"]) == ["birds", "emoji-food"]
    (birds,) = (info for info in datasets.available() if info.name == "birds")
    assert birds.where == "birds"
    assert birds not in datasets.catalogue()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (BIRDS.replace('"birds", "Birds"', '"Birds", "Birds"'), "it is called Birds"),
        (BIRDS.replace("birds:open_birds", ""), "its source is ''"),
        (BIRDS.replace("birds:open_birds", "birds:nothing"), "has no attribute 'nothing'"),
        (BIRDS.replace("split, root, download):", "split):"), "takes 1 positional argument"),
    ],
)
def test_a_broken_dataset(offer: Offer, write_images: Any, code: str, why: str) -> None:
    offer("birds", code, {"datasets": {"birds": "BIRDS"}})
    root = write_images().parent
    with pytest.raises(PluginError, match="dataset 'birds' of the package birds-pack") as it:
        open_source("birds", "test", root=root)
    assert why in str(it.value)


def test_what_a_source_finds_wrong_is_its_users_to_mend(offer: Offer, tmp_path: Path) -> None:
    offer("birds", BIRDS, {"datasets": {"birds": "BIRDS"}})
    with pytest.raises(ClipsynError) as caught:
        open_source("birds", "test", root=tmp_path)
    assert not isinstance(caught.value, PluginError)


def test_a_package_may_offer_a_name_that_is_not_known_here(offer: Offer) -> None:
    with pytest.raises(UnknownName):
        HEADS.load("lp++")
    code = "from clipsyn.methods.heads.base import ZeroShot\nclass Published(ZeroShot): ..."
    offer("published", code, {"heads": {"lp++": "Published"}})
    assert HEADS.load("lp++").__name__ == "Published"

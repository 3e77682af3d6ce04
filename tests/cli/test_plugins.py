"""Commands with plugins of another package: used by name, harmless when broken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from clipsyn.images import perturb
from clipsyn.store.features import FeatureStore

GROUPS = ("ensembles", "heads", "perturbations", "datasets")
SHARP = """
from clipsyn.methods.ensembles.base import Ensemble

class Sharp(Ensemble):
    learns = False

    def _combine(self, pool):
        return 2 * pool.logits.mean(axis=1)
"""


@pytest.fixture
def broken(offer: Any) -> None:
    offer("broken", "raise RuntimeError('no luck')", {group: {"broken": "X"} for group in GROUPS})


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    "command",
    [
        "catalog backbones",
        "ls STORE",
        "ls STORE --status",
        "verify STORE",
        "zeroshot STORE",
        "oracle STORE",
        "evaluate STORE --ensembles log-avg,super-learner --shots 1 --seeds 1",
        "evaluate STORE --ensembles all --shots 1 --seeds 1",
        "fit STORE -d toy --ensemble log-avg -o ROUTER",
        "run",
    ],
)
def test_what_does_not_ask_for_it_does_not_load_it(
    clipsyn: Any, tiny_store: FeatureStore, tmp_path: Path, command: str
) -> None:
    words = command.replace("STORE", str(tiny_store.path)).replace("ROUTER", str(tmp_path / "r"))
    result = clipsyn(*words.split())
    assert result.exit_code == 0, result.output
    assert "broken" not in result.output


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("ensemble", "evaluate STORE --ensembles broken"),
        ("head", "evaluate STORE --heads broken"),
        ("ensemble", "fit STORE -d toy --ensemble broken -o ROUTER"),
        ("perturbation", "extract NEW -d PHOTOS --perturb broken:2"),
        ("dataset", "extract NEW -d broken"),
    ],
)
def test_asked_for_it_is_one_sentence(
    fails: Any, tiny_store: FeatureStore, tmp_path: Path, kind: str, command: str
) -> None:
    words = command.replace("STORE", str(tiny_store.path)).split()
    places = {"ROUTER": "r", "NEW": "new", "PHOTOS": "photos"}
    words = [str(tmp_path / places[word]) if word in places else word for word in words]
    assert fails(1, *words) == (
        f"{kind} 'broken' of the package broken-pack 1.5 does not work (RuntimeError: no luck): "
        "mend or uninstall that package"
    )


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("command", ["datasets", "perturbations"])
def test_a_list_goes_on_without_it(clipsyn: Any, command: str) -> None:
    result = clipsyn("catalog", command)
    assert result.exit_code == 0
    assert "of the package broken-pack 1.5 does not work" in result.stderr
    assert "broken" not in result.stdout


def test_a_list_has_what_works(clipsyn: Any, offer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perturb, "INFO", dict(perturb.INFO))
    code = (
        "from clipsyn.images.perturb import PerturbationInfo as P\n"
        "X = P('dim:f', 1, 'less light')\n"
    )
    offer("dim", code, {"perturbations": {"dim": "X"}})
    assert "less light" in clipsyn("catalog", "perturbations").stdout


def test_a_router_of_another_package_is_for_the_user_to_allow(
    clipsyn: Any, fails: Any, offer: Any, tiny_store: FeatureStore, tmp_path: Path
) -> None:
    offer("sharp", SHARP, {"ensembles": {"sharp": "Sharp"}})
    router = tmp_path / "r"
    result = clipsyn("fit", tiny_store.path, "-d", "toy", "--ensemble", "sharp", "-o", router)
    assert result.exit_code == 0, result.output
    del sys.modules["sharp"]
    assert "add --plugins" in fails(2, "predict", router, tiny_store.path)
    assert "sharp" not in sys.modules
    assert clipsyn("predict", router, tiny_store.path, "--plugins").exit_code == 0

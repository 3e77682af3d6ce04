"""Commands with plugins of another package: used by name, harmless when broken."""

from __future__ import annotations

from typing import Any

import pytest

GROUPS = ("ensembles", "heads", "perturbations", "datasets")


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
def test_what_does_not_ask_for_it_does_not_load_it(clipsyn, tiny_store, tmp_path, command):
    words = command.replace("STORE", str(tiny_store.path)).replace("ROUTER", str(tmp_path / "r"))
    result = clipsyn(*words.split())
    assert result.exit_code == 0, result.output
    assert "broken" not in result.output


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("command", ["datasets", "perturbations"])
def test_a_list_goes_on_without_it(clipsyn: Any, command: str) -> None:
    result = clipsyn("catalog", command)
    assert result.exit_code == 0
    assert "of the package broken-pack 1.5 does not work" in result.stderr
    assert "broken" not in result.stdout

"""What the Tab key offers, through click's own completion."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from clipsyn.cli import main
from clipsyn.store.features import FeatureStore


def offered(*words: object) -> list[str]:
    *arguments, incomplete = map(str, words)
    shell = ShellComplete(main, {}, "clipsyn", "_CLIPSYN_COMPLETE")
    return [item.value for item in shell.get_completions(arguments, incomplete)]


def test_figures_and_names_of_the_store_that_one_is_drawn_of(tiny_store: FeatureStore):
    assert offered("plot", "accuracy") == ["accuracy-matrix"]
    assert offered("plot", "upset", tiny_store.path, "-b", "fake/o") == ["fake/one"]


@pytest.mark.parametrize("command", ["zeroshot", "oracle", "rm", "evaluate", "fit"])
def test_names_of_the_store_on_the_line(command: str, tiny_store: FeatureStore):
    path = tiny_store.path
    assert offered(command, path, "-d", "") == ["toy"]
    assert offered(command, path, "-b", "fake/o") == ["fake/one"]
    assert offered(command, path, "--prompts", "") == ["simple"]


def test_the_last_name_of_a_list(tiny_store: FeatureStore):
    line = "zeroshot", tiny_store.path
    assert offered(*line, "-p", "clean,j") == ["clean,jpeg-3"]
    assert offered(*line, "--split", "t") == ["test", "train"]


def test_names_of_the_catalogues_for_what_is_to_be_made(tiny_store: FeatureStore):
    line = "extract", tiny_store.path
    assert "emoji-food" in offered(*line, "-d", "emoji-f")
    assert "ViT-B-32/openai" in offered(*line, "-b", "ViT-B-32/o")
    assert offered(*line, "-p", "jpe") == ["jpeg"]
    assert "clip-benchmark" in offered(*line, "--prompts", "clip")


def test_methods(tiny_store: FeatureStore):
    assert offered("evaluate", tiny_store.path, "--ensembles", "log-avg,nl") == ["log-avg,nlc"]
    assert "tip-adapter-f" in offered("evaluate", tiny_store.path, "--heads", "tip")
    assert offered("fit", tiny_store.path, "--ensemble", "nl") == ["nlc"]


def test_a_store_that_is_not_there_offers_nothing(tmp_path):
    assert offered("zeroshot", tmp_path / "none", "-d", "") == []


def test_a_key_press_loads_no_array_library(tiny_store: FeatureStore):
    code = (
        "import sys; from click.shell_completion import ShellComplete as S; "
        "from clipsyn.cli import main; s = S(main, {}, 'clipsyn', 'X'); "
        f"assert s.get_completions(['zeroshot', {str(tiny_store.path)!r}, '-b'], ''); "
        "assert s.get_completions(['evaluate', 'store', '--ensembles'], 'n'); "
        "assert not {'torch', 'sklearn', 'zarr', 'polars'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_declared_setting_names(tiny_store: FeatureStore):
    """A split by its metavar, and names of a list that is given with the setting."""
    assert offered("cascade", tiny_store.path, "--support", "t") == ["test", "train"]
    assert offered("cascade", tiny_store.path, "--order", "g") == ["greedy", "given"]

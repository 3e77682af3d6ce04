"""Commands that show something over datasets say which of them hold the same images."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from clipsyn.analyses import ANALYSES
from clipsyn.cli import main

NOTE = (
    "note: images stand in several of these sets, birds/test (20 of 20), more/test (20 of 24): "
    "means and correlations over datasets count them more than once\n"
)
QUICK = "--heads zero-shot --ensembles log-avg --shots 1 --seeds 1 -p clean"
OF_EACH = [name for name in ANALYSES if not ANALYSES.load(name).over_datasets]
OVER_DATASETS = [
    *([name] for name in ANALYSES if name not in OF_EACH),
    ["evaluate", *QUICK.split()],
]


@pytest.fixture(scope="module")
def store(fakes, tmp_path_factory):
    """Birds are in more, too; cars are not."""
    path = tmp_path_factory.mktemp("shared") / "store"
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    sources = [fakes.Source("birds"), fakes.Source("more", count=24)]
    sources += [fakes.Source("cars", changed=set(range(20)))]
    sources += [fakes.Source(test.name, "train", changed=test.changed) for test in sources]
    fakes.fill(path, encoders, sources, ("clean", "jpeg:3"))
    return path


def said(store, command: list[str], *options: str) -> str:
    result = CliRunner().invoke(main, [command[0], str(store), *command[1:], *options])
    assert result.exit_code == 0, result.stderr
    return result.stderr


@pytest.mark.parametrize("command", OVER_DATASETS, ids=lambda command: command[0])
def test_it_is_said(store, command):
    assert NOTE in said(store, command)
    assert NOTE in said(store, command, "-o", "-")
    for datasets in ("birds,cars", "birds"):
        assert "several of these sets" not in said(store, command, "-d", datasets)


@pytest.mark.parametrize("name", OF_EACH)
def test_what_shows_each_dataset_alone_says_nothing(store, name):
    assert "several of these sets" not in said(store, [name])

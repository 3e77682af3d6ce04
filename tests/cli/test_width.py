"""On a terminal of 80 columns no line of a table is longer, of nine backbones with long names."""

import click
import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.store.features import FeatureStore
from clipsyn.text import cells

LONG = "describable-textures-dataset-of-the-visual-geometry-group"
BACKBONES = (
    "RN50/openai", "ViT-B-32/openai", "EVA02-E-14-plus/laion2b_s9b_b144k",
    "ViT-bigG-14-CLIPA-336/datacomp1b", "convnext_xxlarge/laion2b_s34b_b82k_augreg_soup",
    "coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k", "nllb-clip-large-siglip/mrl",
    "xlm-roberta-large-ViT-H-14/frozen_laion5b_s13b_b90k", "MobileCLIP-S2-OpenCLIP/datacompdr",
)  # fmt: skip
CLASSES = ("a class that has quite a long name of its own, with a comma", "dog", "日本語の長い名前")


@pytest.fixture(scope="module")
def store(fakes, tmp_path_factory):
    path = tmp_path_factory.mktemp("wide") / "store"
    encoders = [
        fakes.Encoder(name, size=4 + place, embed_dim=8) for place, name in enumerate(BACKBONES)
    ]
    fill, labels = fakes.fill, ("clean", "gaussian_noise:5")
    for split, count, perturbations in (("test", 18, labels), ("train", 12, labels[:1])):
        sources = [
            fakes.Source(name=name, split=split, count=count, class_names=CLASSES)
            for name in (LONG, "toy")
        ]
        fill(path, encoders, sources, perturbations)
    fakes.caption(FeatureStore.open(path))
    return path


@pytest.fixture
def shown(clipsyn, monkeypatch):
    """Run a command with a terminal for its output; what it shows, without colours."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        result = clipsyn("-q", *arguments)
        assert result.exit_code == 0, result.output
        text = click.unstyle(result.stdout)
        long = [line for line in text.split("\n") if cells(line) > 80]
        assert not long, "\n".join([*long, "in", text])
        return text

    return run


@pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["ls", "--status"],
        *([name, "-p", "clean,*-5"] for name in ANALYSES),
        *([name, "-d", LONG, "-p", "clean"] for name in ANALYSES if name != "robustness"),
        ["oracle", "-d", LONG, "-p", "clean", "--weights"],
        ["evaluate", "-p", "clean,*-5", "--shots", "1,full", "--seeds", "1",
         "--ensembles", "vote-1,log-avg,super-learner,c-log-avg"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_line_is_longer_than_the_terminal(shown, store, command):
    name, *options = command
    text = shown(name, store, *options)
    if name != "ls":
        assert "─" in text


@pytest.mark.parametrize("command", ["backbones", "datasets", "perturbations"])
def test_the_catalogues_fit(shown, command):
    assert "─" in shown("catalog", command)


def test_into_a_pipe_tables_are_whole(clipsyn, store, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = clipsyn("ls", store).stdout.split("\n")
    assert max(map(len, lines)) > 80
    assert any(line.startswith(f"{LONG}  test   clean ") for line in lines)

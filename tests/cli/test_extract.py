"""`clipsyn extract` and `split`, with a tiny checkpoint and real image files."""

from __future__ import annotations

import csv
import itertools
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from clipsyn import catalog
from clipsyn.names import FeatureKey
from clipsyn.show.table import NOTHING
from clipsyn.store.features import FeatureStore

# `clipsyn extract`, with a tiny checkpoint and real image files


@pytest.fixture
def asked(checkpoint: Path, write_images: Callable[..., Path]) -> list[str]:
    """Options for two perturbations of two classes of four images."""
    photos = write_images()
    return ["-b", f"local-dir:{checkpoint}", "-d", str(photos), "-p", "clean,jpeg:3"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


class TestWork:
    def test_a_dry_run_shows_the_plan_and_writes_nothing(self, clipsyn, asked, store):
        result = clipsyn("extract", store, *asked, "--dry-run")
        assert result.exit_code == 0
        assert not store.exists()
        found = [row[:6] for row in rows(result.stdout)]
        assert ["photos", "test", "8", "2", "2", "0"] in found
        said = r"2 of 2 cells to make: 16 images .* GFLOPs, .* MB to store"
        assert re.search(said, result.stdout)

    def test_progress_is_in_lines_where_there_is_no_terminal(self, clipsyn, asked, store):
        done = clipsyn("extract", store, *asked)
        assert done.exit_code == 0, done.stderr
        assert done.stdout == ""
        assert "photos/test · clean · tiny: 8 of 8 images in " in done.stderr
        assert "\x1b" not in done.stderr
        assert "Traceback" not in done.stderr

    def test_quiet_says_nothing_but_notes(self, clipsyn, asked, store):
        result = clipsyn("-q", "extract", store, *asked)
        assert (result.exit_code, result.stdout) == (0, "")
        notes = result.stderr.splitlines()
        assert notes
        assert all(line.startswith("note: ") for line in notes)

    def test_names_for_backbone_and_dataset(self, clipsyn, checkpoint, write_images, store):
        options = ["-b", f"mine=local-dir:{checkpoint}", "-d", f"set/one={write_images()}"]
        assert clipsyn("extract", store, *options, "-s", "val").exit_code == 0
        keys = FeatureStore.open(store).keys()
        assert keys == [FeatureKey("set/one", "val", "clean", "mine")]


class TestMistakes:
    """Exit code, and the sentence that says what to do."""

    @pytest.mark.parametrize(
        ("options", "code", "said"),
        [
            (["-b", "ViT-B-23/openai"], 2, "'ViT-B-23': did you mean ViT-B-32"),
            (["-b", "local-dir:no/where"], 3, "no/where"),
            (["-d", "no/where.csv"], 3, "there is no folder or file 'no/where.csv'"),
            (["-d", "emoji-food", "-s", "tset"], 3, "no split 'tset'; it has test, train"),
            (["-d", "cifar10"], 3, "--data-root"),
            (["-p", "jpeg:9"], 2, "severities 1 to 5, not 9"),
            (["--prompts", "no.json"], 2, "there is no prompt file 'no.json'"),
            (["--max-bad", "2"], 2, "2.0 is not in the range 0<=x<=1"),
            (["--shard", "0/3"], 2, "--shard 0/3: write I/N"),
            (["--device", "gpu"], 2, "device 'gpu' is not to be had here"),
        ],
    )
    def test_one_sentence(self, fails, asked, options, code, said):
        given = dict(zip(asked[::2], asked[1::2], strict=True))
        given |= zip(options[::2], options[1::2], strict=True)
        assert said in fails(code, "extract", "store", *itertools.chain(*given.items()))
        assert not Path("store").exists()

    @pytest.mark.parametrize("module", ["torch", "PIL"])
    def test_without_the_extra(self, tmp_path: Path, module: str) -> None:
        """The module is hidden, as in an install without the extra."""
        script = (
            "import sys\n"
            "class Hidden:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.split('.')[0] == {module!r}:\n"
            "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
            "sys.meta_path.insert(0, Hidden())\n"
            "from clipsyn.cli import main\n"
            "main(prog_name='clipsyn')\n"
        )
        done = _python(script, "extract", tmp_path / "store", "-d", "emoji-food")
        assert done.returncode == 1
        message = f"Error: this needs {module}: run `pip install 'clipsyn[extract]'` first\n"
        assert done.stderr == message


def _python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": root},
    )


# `clipsyn extract --dry-run` without weights or images: from the catalogue, and it says so


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a network, and without weights in its cache."""

    def getaddrinfo(host: str, *_: Any, **__: Any) -> None:
        pytest.fail(f"the network was asked for {host}")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.delenv("CLIPSYN_DATA", raising=False)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.mark.usefixtures("bare")
def test_the_plan_needs_no_weights_and_no_images(clipsyn: Any, tmp_path: Path) -> None:
    result = clipsyn("extract", tmp_path / "s", "-b", "openai", "-d", "food101", "--dry-run")
    assert result.exit_code == 0
    assert not (tmp_path / "s").exists()
    lines = files(catalog).joinpath("backbones.csv").read_text("utf-8").splitlines()
    nine = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    found = rows(result.stdout)
    for row in nine:
        width, cost = f"{int(row['embed_dim']):,}", f"{float(row['image_gflops']):.1f}"
        assert [row["name"], width, cost, "not", "here"] in found
    images, classes = 25_250, 101
    gflops = f"{images * sum(float(row['image_gflops']) for row in nine):,.0f}"
    embeddings = sum(images * (2 * int(row["embed_dim"]) + 1) for row in nine)
    megabytes = (embeddings + 9 * images * (4 * classes + 2)) / 1e6
    (row,) = (row for row in found if row[:1] == ["food101"])
    assert row[1:7] == ["test", "25,250", "101", "9", "0", gflops]
    assert float(row[7].replace(",", "")) == pytest.approx(megabytes, rel=2e-3)
    assert row[8:] == ["not", "here"]
    assert (
        f"9 of 9 cells to make: {9 * images:,} images through a backbone, {gflops} GFLOPs, "
        f"{megabytes:,.1f} MB to store"
    ) in result.stdout
    assert "The numbers of food101/test are the catalogue's" in result.stdout
    assert (
        "note: dataset 'food101' does not ship: say where it is with --data-root ROOT"
        in result.stderr
    )


@pytest.mark.usefixtures("bare")
def test_what_nobody_knows_is_not_guessed(clipsyn: Any, tmp_path: Path) -> None:
    line = ("extract", tmp_path / "s", "-b", "hf-hub:a/b", "-d", "caltech101", "-s", "all")
    result = clipsyn(*line, "--dry-run")
    found = rows(result.stdout)
    nothing = "\N{EN DASH}"
    assert ["hf-hub:a/b", nothing, nothing, "not", "here"] in found
    unknown = ["vtab/caltech101", "all", nothing, "102", "1", "0", *[nothing] * 2]
    assert [*unknown, "not", "here"] in found
    assert result.stdout.count("an unknown number of") == 3


@pytest.mark.usefixtures("bare")
def test_what_is_here_is_counted_here(clipsyn, checkpoint, write_images, tmp_path):
    line = ("extract", tmp_path / "s", "-b", f"tiny=local-dir:{checkpoint}", "-d", write_images())
    assert clipsyn(*line).exit_code == 0
    more = ("-p", "clean,jpeg:2,jpeg:3", "-d", "cifar10")
    result = clipsyn(*line, *more, "--dry-run")
    found = [row[:6] for row in rows(result.stdout)]
    assert ["photos", "test", "8", "2", "3", "1"] in found
    assert ["cifar10", "test", "10,000", "10", "3", "0"] in found
    assert "5 of 6 cells to make: 30,016 images through a backbone" in result.stdout


@pytest.mark.usefixtures("bare")
def test_a_dry_run_downloads_no_images(clipsyn, monkeypatch, tmp_path):
    asked = []

    def food(root: str, *, download: bool, **_: Any) -> None:
        asked.append(download)
        raise RuntimeError("Dataset not found.")

    monkeypatch.setattr("torchvision.datasets.Food101", food)
    line = ("extract", tmp_path / "s", "-b", "zoo", "-d", "food101", "--data-root", tmp_path)
    assert clipsyn(*line, "--download", "--dry-run").exit_code == 0
    assert asked == [False]


# `clipsyn extract` says which classes its backbones cannot tell apart


def test_classes_of_one_name(clipsyn, checkpoint, write_images, tmp_path):
    photos = write_images(count=1, classes=("a", "b", "c"))
    (photos / "classnames.txt").write_text("crane\ncat\ncrane\n")
    line = ("extract", tmp_path / "store", "-b", f"local-dir:{checkpoint}", "-d", photos)
    assert "classes share the name 'crane'" in clipsyn(*line).stderr
    said = "photos (prompts simple): 2 of 3 classes cannot be told apart by tiny"
    assert said in clipsyn("zeroshot", tmp_path / "store").stderr


# `clipsyn split`: what it says, and that extraction takes what it writes


Run = Callable[..., Any]


@pytest.fixture
def folder(write_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two classes and two images beside them, in the working directory."""
    folder = write_images(count=6)
    for name in ("new.png", "newer.png"):
        (folder / name).write_bytes((folder / "cat" / "0.png").read_bytes() + name.encode())
    monkeypatch.chdir(folder.parent)
    return folder


def test_it_says_what_it_made_and_what_comes_next(clipsyn, folder, read_table):
    result = clipsyn("-q", "split", "photos", "-o", "photos.csv", "--test", "0.34")
    assert result.exit_code == 0, result.output
    assert read_table(result.stdout).rows == [
        {"split": "train", "images": "8", "classes": "2"},
        {"split": "test", "images": "4", "classes": "2"},
        {"split": "unlabelled", "images": "2", "classes": NOTHING},
    ]
    assert result.stdout.splitlines()[-1] == (
        "written to photos.csv: next, `clipsyn extract STORE -d photos.csv -s "
        "train,test,unlabelled`"
    )
    assert result.stderr == ""


def test_what_it_writes_is_extracted(clipsyn: Run, folder: Path, checkpoint: Path) -> None:
    assert clipsyn("split", "photos", "-o", "photos.csv", "--seed", "3").exit_code == 0
    options = ("-d", "photos.csv", "-s", "train,test,unlabelled", "-b", f"local-dir:{checkpoint}")
    result = clipsyn("extract", "store", *options)
    assert result.exit_code == 0, result.output
    store = FeatureStore.open("store")
    written = pl.read_csv("photos.csv")
    for split in ("train", "test", "unlabelled"):
        table = store.samples("photos", split)
        assert table.class_names == ("cat", "dog")
        assert list(table.ids) == written.filter(split=split)["id"].to_list()
    assert clipsyn("zeroshot", "store", "-s", "test").exit_code == 0


def test_refusals_name_flags(fails: Run, clipsyn: Run, folder: Path) -> None:
    clipsyn("split", "photos", "-o", "photos.csv")
    assert fails(2, "split", "photos", "-o", "photos.csv") == (
        "photos.csv is there already: add --replace, or choose another output"
    )
    assert "'fotos' is no folder of image files and no manifest" in fails(
        3, "split", "fotos", "-o", "f.csv"
    )
    assert clipsyn("split", "photos", "-o", "photos.csv", "--replace").exit_code == 0

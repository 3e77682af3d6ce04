"""`clipsyn extract` and `split`, with a tiny checkpoint and real image files."""

import itertools
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clipsyn.catalog.backbones import cost, resolve_backbones
from clipsyn.names import FeatureKey
from clipsyn.show.table import NOTHING
from clipsyn.store.features import FeatureStore

# `clipsyn extract`, with a tiny checkpoint and real image files


@pytest.fixture
def asked(checkpoint, write_images):
    """Options for two perturbations of two classes of four images."""
    photos = write_images()
    return ["-b", f"local-dir:{checkpoint}", "-d", str(photos), "-p", "clean,jpeg:3"]


@pytest.fixture
def store(tmp_path):
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
            (["--prompts", "no.json"], 2, "there is no prompt file 'no.json'"),
            (["--max-bad", "2"], 2, "2.0 is not in the range 0<=x<=1"),
            (["--shard", "0/3"], 2, "--shard 0/3: write I/N"),
            (["--device", "gpu"], 2, "device 'gpu' is not to be had"),
        ],
    )
    def test_one_sentence(self, fails, asked, options, code, said):
        given = dict(zip(asked[::2], asked[1::2], strict=True))
        given |= zip(options[::2], options[1::2], strict=True)
        assert said in fails(code, "extract", "store", *itertools.chain(*given.items()))
        assert not Path("store").exists()

    @pytest.mark.parametrize("module", ["torch", "PIL"])
    def test_without_the_extra(self, tmp_path, module):
        """The module is hidden, as in an install without the extra."""
        script = f"import sys; sys.modules[{module!r}] = None; from clipsyn.cli import main; main()"
        line = [sys.executable, "-c", script, "extract", tmp_path / "store", "-d", "emoji-food"]
        root = Path(__file__).parents[2]
        done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=root)
        assert done.returncode == 1
        message = f"Error: this needs {module}: run `pip install 'clipsyn[extract]'` first\n"
        assert done.stderr == message


# `clipsyn extract --dry-run` without weights or images: from the catalogue, and it says so


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without a network, and without weights in its cache."""

    def getaddrinfo(host, *_, **__):
        pytest.fail(f"the network was asked for {host}")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.delenv("CLIPSYN_DATA", raising=False)


def rows(text):
    return [line.split() for line in text.splitlines()]


@pytest.mark.usefixtures("bare")
def test_the_plan_needs_no_weights_and_no_images(clipsyn, tmp_path):
    result = clipsyn("extract", tmp_path / "s", "-b", "openai", "-d", "food101", "--dry-run")
    assert result.exit_code == 0
    assert not (tmp_path / "s").exists()
    costs = [cost(backbone.name) for backbone in resolve_backbones(["openai"])]
    images, classes, widths = 25_250, 101, [it.embed_dim for it in costs]
    gflops = f"{images * sum(it.image_gflops for it in costs):,.0f}"
    megabytes = images * sum(2 * width + 1 + 4 * classes + 2 for width in widths) / 1e6
    (row,) = (row for row in rows(result.stdout) if row[:1] == ["food101"])
    assert row[1:7] == ["test", "25,250", "101", "9", "0", gflops]
    assert float(row[7].replace(",", "")) == pytest.approx(megabytes, rel=2e-3)
    assert row[8:] == ["not", "here"]
    assert f"9 of 9 cells to make: {9 * images:,} images" in result.stdout
    assert "--data-root ROOT" in result.stderr


@pytest.mark.usefixtures("bare")
def test_what_nobody_knows_is_not_guessed(clipsyn, tmp_path):
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

    def food(root, *, download, **_):
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


@pytest.fixture
def folder(write_images, monkeypatch):
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
    assert "`clipsyn extract STORE -d photos.csv -s train,test,unlabelled`" in result.stdout


def test_refusals_name_flags(fails, clipsyn, folder):
    clipsyn("split", "photos", "-o", "photos.csv")
    assert "add --replace" in fails(2, "split", "photos", "-o", "photos.csv")
    assert "'fotos' is no folder" in fails(3, "split", "fotos", "-o", "f.csv")
    assert clipsyn("split", "photos", "-o", "photos.csv", "--replace").exit_code == 0

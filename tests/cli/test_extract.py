"""`clipsyn extract`, with a tiny checkpoint and real image files."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore


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
        header, _, *rows, summary = result.stdout.splitlines()
        assert "GFLOPs" in header
        assert header.split()[-1] == "MB"
        columns = ["photos", "test", "clean", "8", "1", "0", "8"]
        assert [row.split()[:7] for row in rows] == [
            columns,
            [*columns[:2], "jpeg-3", *columns[3:]],
        ]
        assert re.match(r"2 of 2 cells to make: 16 images .* GFLOPs, .* MB to store", summary)

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

    def test_unlabelled_images_lead_to_ls(self, clipsyn, checkpoint, write_images, store):
        flat = write_images("flat", classes=("",))
        result = clipsyn("extract", store, "-b", f"local-dir:{checkpoint}", "-d", flat)
        assert result.exit_code == 0
        assert "no class names: image embeddings only" in result.stderr
        assert f"next, `clipsyn ls {store}`" in result.stderr

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
            (["-b", "ViT-B-32/opnai"], 2, "did you mean openai"),
            (["-b", "ViTB32"], 2, "did you mean ViT-B-32/openai"),
            (["-b", "local-dir:no/where"], 3, "no/where"),
            (["-d", "emoji-fod"], 2, "did you mean emoji, emoji-faces, emoji-food"),
            (["-d", "no/where.csv"], 3, "there is no folder or file 'no/where.csv'"),
            (["-d", "emoji-food", "-s", "tset"], 3, "no split 'tset'; it has test, train"),
            (["-d", "cifar10"], 3, "--data-root"),
            (["-p", "jpg:3"], 2, "unknown perturbation 'jpg': did you mean jpeg?"),
            (["-p", "jpeg:9"], 2, "severities 1 to 5, not 9"),
            (["-p", "jpeg"], 2, "write clean or NAME:SEVERITY"),
            (["--prompts", "simpel"], 2, "did you mean simple"),
            (["--prompts", "no.json"], 2, "there is no prompt file 'no.json'"),
            (["--max-bad", "2"], 2, "2.0 is not in the range 0<=x<=1"),
            (["--max-bad", "few"], 2, "'few' is not a valid float"),
            (["--batch-size", "0"], 2, "0 is not in the range"),
            (["--shard", "0/3"], 2, "--shard 0/3: write I/N"),
            (["--shard", "4/3"], 2, "--shard 4/3: write I/N"),
            (["--shard", "some"], 2, "--shard some: write I/N"),
            (["--device", "gpu"], 2, "unknown device 'gpu': write auto, cpu, cuda"),
            (["--precision", "half"], 2, "unknown precision 'half': write auto, fp32"),
        ],
    )
    def test_one_sentence(self, fails, asked, options, code, said):
        given = dict(zip(asked[::2], asked[1::2], strict=True))
        given |= zip(options[::2], options[1::2], strict=True)
        assert said in fails(code, "extract", "store", *itertools.chain(*given.items()))
        assert not Path("store").exists()

    def test_a_folder_of_something_else(self, fails: Any, asked: list[str], tmp_path: Path) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.txt").touch()
        assert "thesis" in fails(4, "extract", tmp_path / "thesis", *asked)
        assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]

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


class TestStops:
    def test_ctrl_c_elsewhere_promises_nothing(self, fails, tiny_store, monkeypatch):
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("clipsyn.store.inventory.cell_rows", interrupt)
        assert fails(130, "ls", tiny_store.path) == "interrupted"


def _python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": root},
    )

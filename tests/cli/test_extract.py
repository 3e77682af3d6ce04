"""`clipsyn extract`, with a tiny checkpoint and real image files."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.errors import UsageError
from clipsyn.names import FeatureKey, parse_shard
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
    def test_a_dry_run_shows_the_plan_and_writes_nothing(
        self, clipsyn: Any, asked: list[str], store: Path
    ) -> None:
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

    def test_what_is_there_is_not_made_again(
        self, clipsyn: Any, asked: list[str], store: Path, fakes: Any
    ) -> None:
        first = clipsyn("extract", store, *asked)
        assert first.exit_code == 0
        assert f"`clipsyn zeroshot {store}`" in first.stderr
        files = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
        before = fakes.contents(store)
        second = clipsyn("extract", store, *asked)
        assert second.exit_code == 0
        assert "all 2 cells are there" in second.stderr
        assert fakes.contents(store) == before
        assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == files

    def test_progress_is_in_lines_where_there_is_no_terminal(
        self, terminal: Any, asked: list[str], store: Path
    ) -> None:
        done = terminal("extract", store, *asked)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        assert "photos/test · clean · tiny: 8 of 8 images in " in done.stderr
        assert "\x1b" not in done.stderr
        assert "Traceback" not in done.stderr

    def test_quiet_says_nothing_but_notes(
        self, clipsyn: Any, asked: list[str], store: Path
    ) -> None:
        result = clipsyn("-q", "extract", store, *asked)
        assert (result.exit_code, result.stdout) == (0, "")
        notes = result.stderr.splitlines()
        assert notes
        assert all(line.startswith("note: ") for line in notes)

    def test_the_store_may_be_named_in_the_environment(
        self, clipsyn: Any, asked: list[str], store: Path
    ) -> None:
        result = clipsyn("extract", *asked, env={"CLIPSYN_STORE": str(store)})
        assert result.exit_code == 0
        assert len(FeatureStore.open(store).keys()) == 2

    def test_unlabelled_images_lead_to_ls(
        self, clipsyn: Any, checkpoint: Path, write_images: Any, store: Path
    ) -> None:
        flat = write_images("flat", classes=("",))
        result = clipsyn("extract", store, "-b", f"local-dir:{checkpoint}", "-d", flat)
        assert result.exit_code == 0
        assert "no class names: image embeddings only" in result.stderr
        assert f"next, `clipsyn ls {store}`" in result.stderr

    def test_logits_are_stored_or_derived_and_equal(
        self, clipsyn: Any, asked: list[str], tmp_path: Path
    ) -> None:
        clipsyn("extract", tmp_path / "stored", *asked)
        clipsyn("extract", tmp_path / "derived", *asked, "--logits", "none")
        stored, derived = (FeatureStore.open(tmp_path / n) for n in ("stored", "derived"))
        assert not (tmp_path / "derived" / "logits").exists()
        key = FeatureKey("photos", "test", "jpeg-3", "tiny")
        for name in stored.prompt_sets(key):
            assert np.array_equal(stored.logits(key, name), derived.logits(key, name))

    def test_names_for_backbone_and_dataset(
        self, clipsyn: Any, checkpoint: Path, write_images: Any, store: Path
    ) -> None:
        options = ["-b", f"mine=local-dir:{checkpoint}", "-d", f"set/one={write_images()}"]
        assert clipsyn("extract", store, *options, "-s", "val").exit_code == 0
        keys = FeatureStore.open(store).keys()
        assert keys == [FeatureKey("set/one", "val", "clean", "mine")]

    def test_two_shards_make_what_one_command_makes(
        self, clipsyn: Any, asked: list[str], tmp_path: Path, fakes: Any
    ) -> None:
        clipsyn("extract", tmp_path / "one", *asked)
        first = clipsyn("extract", tmp_path / "two", *asked, "--shard", "1/2")
        assert "this worker's share" in first.stderr
        assert f"`clipsyn ls {tmp_path / 'two'} --status`" in first.stderr
        second = clipsyn("extract", tmp_path / "two", *asked, "--shard", "2/2")
        assert "is up to date" in second.stderr
        assert fakes.unlike(tmp_path / "one", tmp_path / "two") == []


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
    def test_one_sentence(
        self, fails: Any, asked: list[str], options: list[str], code: int, said: str
    ) -> None:
        given = dict(zip(asked[::2], asked[1::2], strict=True))
        given |= zip(options[::2], options[1::2], strict=True)
        assert said in fails(code, "extract", "store", *itertools.chain(*given.items()))
        assert not Path("store").exists()

    def test_an_empty_folder(
        self, fails: Any, checkpoint: Path, tmp_path: Path, store: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        options = ["-b", f"local-dir:{checkpoint}", "-d", tmp_path / "empty"]
        assert "there is no image" in fails(3, "extract", store, *options)

    def test_without_dataset_or_store(self, fails: Any, store: Path) -> None:
        assert "Missing option '-d'" in fails(2, "extract", store)
        assert "Missing argument 'STORE'" in fails(2, "extract")

    def test_a_folder_of_something_else(self, fails: Any, asked: list[str], tmp_path: Path) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.txt").touch()
        assert "thesis" in fails(4, "extract", tmp_path / "thesis", *asked)
        assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]

    def test_bad_images_are_named_and_may_be_kept(
        self, fails: Any, clipsyn: Any, asked: list[str], store: Path
    ) -> None:
        photos = Path(asked[3])
        (photos / "cat" / "broken.png").write_text("no image")
        said = fails(3, "extract", store, *asked)
        assert "1 of 9 images of photos/test cannot be decoded" in said
        assert "cat/broken.png" in said
        enough = re.search(r"--max-bad (\S+)", said)
        assert enough is not None
        result = clipsyn("extract", store, *asked, "--max-bad", enough[1])
        assert result.exit_code == 0
        opened = FeatureStore.open(store)
        assert opened.valid(opened.keys()[0]).sum() == 8

    def test_other_weights_under_a_taken_name(
        self, fails: Any, clipsyn: Any, asked: list[str], checkpoint: Path, store: Path
    ) -> None:
        from safetensors.torch import load_file, save_file

        clipsyn("extract", store, *asked)
        weights = load_file(checkpoint / "open_clip_model.safetensors")
        weights["visual.class_embedding"] += 1
        other = store.with_name("tiny")
        other.mkdir()
        config = (checkpoint / "open_clip_config.json").read_bytes()
        (other / "open_clip_config.json").write_bytes(config)
        save_file(weights, other / "open_clip_model.safetensors")
        asked[1] = f"local-dir:{other}"
        said = fails(4, "extract", store, *asked)
        assert "backbone.weights" in said
        assert "--replace" in said
        assert clipsyn("extract", store, *asked, "--replace").exit_code == 0

    @pytest.mark.parametrize("module", ["torch", "open_clip", "PIL"])
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
    def test_ctrl_c_is_one_sentence_and_leaves_what_can_be_resumed(
        self, asked: list[str], store: Path, clipsyn: Any, fakes: Any
    ) -> None:
        assert _interrupted(signal.SIGINT, store, asked) == (
            130,
            "Error: interrupted; finished blocks are kept, run the same command again",
        )
        assert clipsyn("extract", store, *asked).exit_code == 0
        whole = store.with_name("whole")
        clipsyn("extract", whole, *asked)
        assert fakes.unlike(store, whole) == []

    def test_sigterm_too(self, asked: list[str], store: Path) -> None:
        code, said = _interrupted(signal.SIGTERM, store, asked)
        assert code == 130
        assert said.startswith("Error: stopped by SIGTERM; finished blocks are kept")

    def test_ctrl_c_elsewhere_promises_nothing(
        self, fails: Any, tiny_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("clipsyn.store.inventory.cell_rows", interrupt)
        assert fails(130, "ls", tiny_store.path) == "interrupted"


def _interrupted(number: signal.Signals, store: Path, asked: list[str]) -> tuple[int, str]:
    """Exit code and last line of an extraction that gets a signal with its second batch."""
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's & ignores it
        "from clipsyn.extract import encoder\n"
        "encode = encoder.Encoder.encode_images\n"
        "batches = []\n"
        "def stopped(self, pixels):\n"
        "    batches.append(len(pixels))\n"
        "    if len(batches) == 2:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "    return encode(self, pixels)\n"
        "encoder.Encoder.encode_images = stopped\n"
        "from clipsyn.cli import main\n"
        "main(prog_name='clipsyn')\n"
    )
    done = _python(script, "extract", store, *asked, "--batch-size", "4")
    return done.returncode, done.stderr.splitlines()[-1]


def _python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": root},
    )


class TestShard:
    @pytest.mark.parametrize(
        ("variables", "expected"),
        [
            ({"RANK": "2", "WORLD_SIZE": "4"}, (2, 4)),
            ({"SLURM_PROCID": "1", "SLURM_NTASKS": "3"}, (1, 3)),
            ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "8"}, (5, 8)),
            (  # --array=1-7:2
                {
                    "SLURM_ARRAY_TASK_ID": "5",
                    "SLURM_ARRAY_TASK_COUNT": "4",
                    "SLURM_ARRAY_TASK_MIN": "1",
                    "SLURM_ARRAY_TASK_STEP": "2",
                },
                (2, 4),
            ),
        ],
    )
    def test_auto_reads_the_scheduler(
        self,
        monkeypatch: pytest.MonkeyPatch,
        variables: dict[str, str],
        expected: tuple[int, int],
    ) -> None:
        self._clear(monkeypatch)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert parse_shard("auto") == expected

    def test_auto_without_a_scheduler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._clear(monkeypatch)
        with pytest.raises(UsageError, match="write I/N"):
            parse_shard("auto")

    def test_one_counts_from_one(self) -> None:
        assert parse_shard("2/8") == (1, 8)
        assert parse_shard(None) == (0, 1)

    @staticmethod
    def _clear(monkeypatch: pytest.MonkeyPatch) -> None:
        for name in list(os.environ):
            if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE"):
                monkeypatch.delenv(name)

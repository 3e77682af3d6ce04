"""Extractions that are killed, raced, or run out of disk, in processes of their own."""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clipsyn.cli import main
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import find_groups
from clipsyn.store.unfinished import leftovers, unfinished
from clipsyn.store.verify import damage

CONFTEST = Path(__file__).parents[1] / "conftest.py"
KILLS = 30

# Imports torch once, then forks a process for every line of settings: 30 kills in seconds.
FORKER = """
import importlib.util, json, os, sys, traceback
spec = importlib.util.spec_from_file_location("fakes", sys.argv[1])
fakes = importlib.util.module_from_spec(spec)
sys.modules["fakes"] = fakes
spec.loader.exec_module(fakes)
import clipsyn.extract.plan, clipsyn.extract.run, zarr, zarr.codecs
from pathlib import Path

def extract(path, seconds=0.0, count=45, weights="", **options):
    encoders = [
        fakes.FakeEncoder(weights=weights),
        fakes.FakeEncoder("fake/two", size=6, weights=weights + "2"),
    ]
    for encoder in encoders:
        encoder.seconds = seconds
    sources = [fakes.FakeSource(count=count, bad={7: "torn"}), fakes.FakeSource(split="train")]
    options.setdefault("perturbations", ["clean", "jpeg:3"])
    options.setdefault("shard", [0, 1])
    fakes.fill(Path(path), encoders, sources, max_bad=0.1, batch_size=4, **options)

print("ready", flush=True)
for line in sys.stdin:
    command = json.loads(line)
    if "wait" in command:
        print(os.waitstatus_to_exitcode(os.waitpid(command["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        try:
            extract(**command)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
"""


class Forker:
    """Starts extractions with fakes, each in its own process."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", "-c", FORKER, str(CONFTEST)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._answer() == "ready"

    def start(self, path: Path, **options: Any) -> int:
        return int(self._ask({"path": str(path), **options}))

    def wait(self, process: int) -> int:
        return int(self._ask({"wait": process}))

    def run(self, path: Path, **options: Any) -> int:
        return self.wait(self.start(path, **options))

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, command: dict[str, Any]) -> str:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    forker = Forker()
    yield forker
    forker.close()


@pytest.fixture(scope="module")
def whole(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an extraction makes that nothing interrupts."""
    path = tmp_path_factory.mktemp("whole") / "store"
    assert forker.run(path) == 0
    return path


def timed(forker: Forker, path: Path) -> float:
    start = time.monotonic()
    assert forker.run(path, seconds=0.002) == 0
    return time.monotonic() - start


def assert_sound(path: Path) -> None:
    store = FeatureStore.open(path)
    problems = [problem for group in find_groups(store, {}) for problem in damage(store, group)]
    assert problems == []


def test_killed_at_random_moments_it_ends_in_the_same_bytes(
    forker: Forker, whole: Path, tmp_path: Path, fakes: Any
) -> None:
    lasts = min(timed(forker, tmp_path / f"timing{number}") for number in range(3))
    moments = random.Random(2026)
    path, killed, numbers = tmp_path / "store", 0, itertools.count()
    while killed < KILLS:
        process = forker.start(path, seconds=0.002)
        time.sleep(moments.uniform(0, lasts / 4 if killed % 3 else lasts))
        os.kill(process, signal.SIGKILL)
        if forker.wait(process) == -signal.SIGKILL:
            killed += 1
        else:  # it was done before: little was left, or the machine has become faster
            lasts *= 0.97
        if (path / "clipsyn.json").exists():
            assert_sound(path)  # whatever is published is whole
            unfinished(path)  # and what is not can be listed
            if not fakes.unlike(whole, path):  # done: begin another
                path = tmp_path / f"store{next(numbers)}"
    assert forker.run(path) == 0
    assert fakes.unlike(whole, path) == []
    assert not unfinished(path)
    assert_sound(path)


def test_killed_while_replacing_it_keeps_the_old_or_has_the_new(
    forker: Forker, whole: Path, tmp_path: Path, fakes: Any
) -> None:
    new = tmp_path / "new"
    assert forker.run(new, weights="other") == 0
    path = tmp_path / "store"
    shutil.copytree(whole, path)
    moments = random.Random(7)
    for _ in range(6):
        process = forker.start(path, weights="other", replace=True, seconds=0.002)
        time.sleep(moments.uniform(0.1, 0.6))
        os.kill(process, signal.SIGKILL)
        forker.wait(process)
        assert_sound(path)
    assert forker.run(path, weights="other", replace=True) == 0
    assert fakes.unlike(new, path) == []


@pytest.mark.parametrize("workers", [2, 3])
def test_racing_for_the_same_cells_all_end_well(
    forker: Forker, whole: Path, tmp_path: Path, fakes: Any, workers: int
) -> None:
    path = tmp_path / "store"
    processes = [forker.start(path) for _ in range(workers)]
    assert [forker.wait(process) for process in processes] == [0] * workers
    assert fakes.unlike(whole, path) == []
    assert fakes.draft_folders(path) == []


def test_racing_to_replace_all_end_well(
    forker: Forker, whole: Path, tmp_path: Path, fakes: Any
) -> None:
    path = tmp_path / "store"
    shutil.copytree(whole, path)
    processes = [forker.start(path, weights="other", replace=True) for _ in range(3)]
    assert [forker.wait(process) for process in processes] == [0] * 3
    assert forker.run(tmp_path / "new", weights="other") == 0
    assert fakes.unlike(tmp_path / "new", path) == []


def test_shards_in_processes_make_the_same_bytes(
    forker: Forker, whole: Path, tmp_path: Path, fakes: Any
) -> None:
    path = tmp_path / "store"
    processes = [forker.start(path, shard=[worker, 3]) for worker in range(3)]
    assert [forker.wait(process) for process in processes] == [0] * 3
    assert fakes.unlike(whole, path) == []
    assert fakes.draft_folders(path) == []


# The real command line, with a tiny checkpoint of random weights


@pytest.fixture
def line(
    saved: Any, write_images: Callable[..., Path], request: pytest.FixtureRequest
) -> Callable[..., list[str]]:
    """Function (store, *options) -> arguments of `clipsyn` that extract 200 images, or param."""
    images = write_images(count=getattr(request, "param", 200) // 2)
    backbone = f"tiny={saved('clipsyn-vit').by_folder}"

    def line(store: Path, *options: str) -> list[str]:
        return ["extract", str(store), "-b", backbone, "-d", f"pets={images}", *options]

    return line


@pytest.fixture
def clipsyn() -> Iterator[Callable[..., Any]]:
    """Function (*arguments) -> result of that command, in this process: torch is loaded here."""
    before, logger = signal.getsignal(signal.SIGTERM), logging.getLogger("clipsyn")

    def run(*arguments: str | Path) -> Any:
        logger.handlers.clear()  # they hold the standard error of the command before
        return CliRunner().invoke(main, list(map(str, arguments)))

    yield run
    logger.handlers.clear()
    signal.signal(signal.SIGTERM, before)


def sentence(stderr: str) -> str:
    """The last line, having checked that it is an error of ours and no traceback."""
    assert "Traceback" not in stderr
    line = stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    return line


@pytest.fixture
def blocks_of_eight(tmp_path: Path) -> Path:
    """An empty store with small blocks."""
    return FeatureStore.create(tmp_path / "store", 8).path


@pytest.mark.parametrize("line", [800], indirect=True)  # seconds are left when the signal comes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_command_line_and_it_resumes(
    line: Callable[..., list[str]],
    clipsyn: Callable[..., Any],
    blocks_of_eight: Path,
    number: signal.Signals,
) -> None:
    options = ("--batch-size", "1", "--workers", "1", "-p", "jpeg:5")
    command = [sys.executable, "-m", "clipsyn", *line(blocks_of_eight, *options)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not any(draft.done for draft in feature_drafts(blocks_of_eight)):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert "run the same command again" in sentence(stderr)
    done = feature_drafts(blocks_of_eight)[0].done
    assert 0 < done < 100
    result = clipsyn(*line(blocks_of_eight, *options))
    assert result.exit_code == 0, result.stderr
    assert f"{800 - 8 * done} images" in result.stderr  # only the rest is planned
    assert not unfinished(blocks_of_eight)
    assert not leftovers(blocks_of_eight)
    assert_sound(blocks_of_eight)


def feature_drafts(path: Path) -> list[Any]:
    return [draft for draft in unfinished(path) if draft.target.startswith("features")]


# File systems that say no


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Function (options) -> a small file system in memory; skips where mounting is not allowed."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        path = tmp_path / f"mount{len(mounted)}"
        path.mkdir()
        if shutil.which("mount") is None:
            pytest.skip("there is no mount command")
        line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        result = subprocess.run(line, capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip(f"may not mount a file system: {result.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_one_sentence_and_no_loss(
    line: Callable[..., list[str]],
    clipsyn: Callable[..., Any],
    mount: Callable[..., Path],
    blocks_of_eight: Path,
    fakes: Any,
) -> None:
    disk = mount("size=900k")  # every small file takes a page of 4 kB
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(380_000))
    FeatureStore.create(disk / "store", 8)
    result = clipsyn(*line(disk / "store"))
    assert result.exit_code == 4, result.stderr
    assert "the disk is full" in sentence(result.stderr)
    done = sum(draft.done for draft in feature_drafts(disk / "store"))
    assert 0 < done < 25
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    result = clipsyn(*line(disk / "store"))
    assert result.exit_code == 0, result.stderr
    assert f"{200 - 8 * done} images" in result.stderr
    assert_sound(disk / "store")
    assert not leftovers(disk / "store")
    assert clipsyn(*line(blocks_of_eight)).exit_code == 0
    assert fakes.unlike(disk / "store", blocks_of_eight) == []


def test_a_disk_that_is_full_from_the_start(
    line: Callable[..., list[str]], clipsyn: Callable[..., Any], mount: Callable[..., Path]
) -> None:
    disk = mount("size=4k")
    (disk / "ballast").write_bytes(bytes(4096))
    result = clipsyn(*line(disk / "store"))
    assert result.exit_code == 4, result.stderr
    assert "the disk is full" in sentence(result.stderr)


def test_a_read_only_store_can_be_read_and_says_so_when_written(
    line: Callable[..., list[str]],
    clipsyn: Callable[..., Any],
    mount: Callable[..., Path],
    write_images: Callable[..., Path],
) -> None:
    disk = mount("size=8m")
    store = disk / "store"
    assert clipsyn(*line(store)).exit_code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert clipsyn(*line(store)).exit_code == 0  # nothing to do, nothing to write
    for refused in (
        line(store, "-p", "jpeg:1"),
        line(disk / "fresh"),
        ["rm", store, "-d", "pets", "-y"],
    ):
        result = clipsyn(*refused)
        assert result.exit_code == 4, result.stderr
        assert "read-only" in sentence(result.stderr)
    for command in ("ls", "info", "status", "verify", "zeroshot"):
        result = clipsyn(command, store)
        assert result.exit_code == 0, result.stderr

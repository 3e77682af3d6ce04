"""Extractions that are killed, raced, or run out of disk, in processes of their own."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import left_over
from tests.kills import assert_sound, killed_again_and_again, number_of_kills, unfinished

KILLS = number_of_kills(6)
BOTH = ["fake/one", "fake/two"]
SLOW = {"names": BOTH, "seconds": 0.002}


@pytest.fixture(scope="module")
def whole(forker, tmp_path_factory):
    """What an extraction makes that nothing interrupts."""
    path = tmp_path_factory.mktemp("whole") / "store"
    assert forker.run("extract", path=path, names=BOTH) == (0, "")
    return path


def test_killed_at_random_moments_it_ends_in_the_same_bytes(forker, whole, tmp_path, fakes):
    def strike(path, after):
        return forker.kill("extract", after, path=path, **SLOW)

    begin = time.monotonic()
    assert forker.run("extract", path=tmp_path / "timing", **SLOW) == (0, "")
    lasts = time.monotonic() - begin
    path = killed_again_and_again(strike, whole, tmp_path, fakes, kills=KILLS, lasts=lasts)
    assert forker.run("extract", path=path, **SLOW) == (0, "")
    assert fakes.unlike(whole, path) == []
    assert not unfinished(path)
    assert_sound(path)


def test_killed_while_replacing_it_keeps_the_old_or_has_the_new(forker, whole, tmp_path, fakes):
    new, path = tmp_path / "new", tmp_path / "store"
    assert forker.run("extract", path=new, names=BOTH, weights="other") == (0, "")
    shutil.copytree(whole, path)
    moments = random.Random(7)
    replacing = {"path": path, "weights": "other", "replace": True, **SLOW}
    for _ in range(4):
        forker.kill("extract", moments.uniform(0.1, 0.6), **replacing)
        assert_sound(path, replacing=True)
    assert forker.run("extract", **replacing) == (0, "")
    assert fakes.unlike(new, path) == []


def all_end_well(forker, each):
    """Whether extractions, side by side, do all that they should."""
    processes = [forker.start("extract", names=BOTH, **options) for options in each]
    return [(forker.wait(one), forker.said(one)) for one in processes] == [(0, "")] * len(each)


def test_racing_for_the_same_cells_all_end_well(forker, whole, tmp_path, fakes):
    path = tmp_path / "store"
    assert all_end_well(forker, [{"path": path}] * 3)
    assert fakes.unlike(whole, path) == []
    assert fakes.draft_folders(path) == []


# The real command line, with a tiny checkpoint of random weights


@pytest.fixture
def line(saved, write_images, request):
    """Function (store, *options) -> arguments of `clipsyn` that extract 200 images, or param."""
    images = write_images(count=getattr(request, "param", 200) // 2)
    backbone = f"tiny={saved('clipsyn-vit').by_folder}"

    def line(store, *options):
        return ["extract", str(store), "-b", backbone, "-d", f"pets={images}", *options]

    return line


def sentence(stderr):
    """The last line, having checked that it is an error of ours and no traceback."""
    assert "Traceback" not in stderr
    line = stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    return line


@pytest.fixture
def blocks_of_eight(tmp_path):
    """An empty store with small blocks."""
    return FeatureStore.create(tmp_path / "store", 8).path


@pytest.mark.parametrize("line", [400], indirect=True)  # seconds are left when the signal comes
def test_a_signal_stops_the_command_line_and_it_resumes(forker, line, clipsyn, blocks_of_eight):
    options = ("--batch-size", "1", "--workers", "1", "-p", "jpeg:5")
    process = forker.start("command", words=line(blocks_of_eight, *options))
    while not any(draft.done for draft in feature_drafts(blocks_of_eight)):
        assert Path(f"/proc/{process}/exe").exists(), forker.said(process)
        time.sleep(0.01)
    os.kill(process, signal.SIGTERM)
    assert forker.wait(process) == 130
    assert "run the same command again" in sentence(forker.said(process))
    done = feature_drafts(blocks_of_eight)[0].done
    assert 0 < done < 50
    result = clipsyn(*line(blocks_of_eight, *options))
    assert result.exit_code == 0, result.stderr
    assert f"{400 - 8 * done} images" in result.stderr  # only the rest is planned
    assert not unfinished(blocks_of_eight)
    assert not left_over(blocks_of_eight)
    assert_sound(blocks_of_eight)


def feature_drafts(path):
    return [draft for draft in unfinished(path) if draft.target.startswith("features")]


# File systems that say no


@pytest.fixture
def mount(tmp_path):
    """Function (options) -> a small file system in memory; skips where mounting is not allowed."""
    mounted: list[Path] = []

    def mount(options):
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


def test_a_full_disk_is_one_sentence_and_no_loss(line, clipsyn, mount, blocks_of_eight, fakes):
    disk = mount("size=900k")  # every small file takes a page of 4 kB
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(470_000))
    FeatureStore.create(disk / "store", 8)
    result = clipsyn(*line(disk / "store"))
    assert result.exit_code == 1, result.stderr
    assert "No space left on device; make room" in sentence(result.stderr)
    done = sum(draft.done for draft in feature_drafts(disk / "store"))
    assert 0 < done < 25
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    result = clipsyn(*line(disk / "store"))
    assert result.exit_code == 0, result.stderr
    assert f"{200 - 8 * done} images" in result.stderr
    assert_sound(disk / "store")
    assert not left_over(disk / "store")
    assert clipsyn(*line(blocks_of_eight)).exit_code == 0
    assert fakes.unlike(disk / "store", blocks_of_eight) == []


def test_a_read_only_store_can_be_read_and_says_so_when_written(line, clipsyn, mount, write_images):
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
        assert result.exit_code == 1, result.stderr
        assert "Read-only" in sentence(result.stderr)
    for command in ("ls", "info", "ls --status", "verify", "zeroshot"):
        result = clipsyn(*command.split(), store)
        assert result.exit_code == 0, result.stderr

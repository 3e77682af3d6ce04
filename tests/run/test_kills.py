"""`clipsyn extract --jobs`, of which a process, the launcher or all are killed, any time."""

import fcntl
import os
import random
import signal
import time
from contextlib import suppress

import pytest

from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import left_over
from tests.kills import assert_sound, killed_again_and_again, number_of_kills, unfinished

KILLS = number_of_kills(4)


class Jobs:
    """Two processes that share an extraction, and their launcher."""

    def __init__(self, forker, folder, asked):
        self._forker, self._folder, self._asked, self._started = forker, folder, asked, 0
        self._choices = random.Random(98)

    def start(self, store):
        self._started += 1
        self._pids.mkdir(parents=True)
        if not store.exists():
            FeatureStore.create(store, 8)  # many blocks
        words = ["extract", str(store), *self._asked, "--jobs", "2"]
        return self._forker.start("launch", words=words, pids=self._pids)

    def run(self, store):
        """Exit status, and what was said."""
        launcher = self.start(store)
        return self._forker.wait(launcher), self._forker.said(launcher)

    def strike(self, store, after):
        launcher = self.start(store)
        victim = self._choices.choice(["worker", "launcher", "all"])
        time.sleep(after)
        workers = running(self._pids)
        if victim == "worker" and workers:
            kill(self._choices.choice(workers))
            return self._one_was_lost(launcher)
        os.kill(launcher, signal.SIGKILL)  # nobody else has waited for it
        if victim == "all":
            self.kill_workers()
        return self._forker.wait(launcher) == -signal.SIGKILL

    def _one_was_lost(self, launcher):
        """Whether the launcher, which goes on, says that it was killed."""
        status, said = self._forker.wait(launcher), self._forker.said(launcher)
        lost = said.count("(killed by SIGKILL)")
        assert lost <= 1
        assert (status, "1 of 2 tasks failed" in said) == ((1, True) if lost else (0, False)), said
        return lost == 1

    def kill_workers(self):
        """Kill all that were ever started, and wait until none of them can write any more."""
        for pids in self._folder.glob("pids/*"):
            for worker in running(pids):
                kill(worker)

    @property
    def _pids(self):
        return self._folder / "pids" / str(self._started)


def running(pids):
    """The files of processes that hold the locks on them."""
    return sorted(file for file in pids.glob("[0-9]*") if not can_lock(file, fcntl.LOCK_NB))


def kill(worker):
    with suppress(ProcessLookupError):
        os.kill(int(worker.name), signal.SIGKILL)
    can_lock(worker)


def can_lock(file, more=0):
    with file.open() as opened, suppress(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | more)
        return True
    return False


@pytest.fixture
def asked(write_images):
    """48 images, so six blocks of each perturbation."""
    return ["-b", "tiny-ViT-16/zoo", "-d", f"pets={write_images(count=24)}", "-p", "clean,jpeg:3"]


@pytest.fixture
def jobs(forker, tmp_path, asked):
    jobs = Jobs(forker, tmp_path, asked)
    yield jobs
    jobs.kill_workers()


def test_killed_at_random_moments_they_end_in_the_bytes_of_one_process(
    forker, jobs, tmp_path, fakes, asked
):
    """Where the launcher is killed its processes go on, beside those of the same command."""
    whole = FeatureStore.create(tmp_path / "whole", 8).path
    assert forker.run("command", words=["-q", "extract", str(whole), *asked])[0] == 0
    begin = time.monotonic()
    assert jobs.run(tmp_path / "timing")[0] == 0
    lasts = time.monotonic() - begin
    path = killed_again_and_again(jobs.strike, whole, tmp_path, fakes, kills=KILLS, lasts=lasts)
    jobs.kill_workers()
    status, said = jobs.run(path)
    assert status == 0, said
    assert fakes.unlike(whole, path) == []
    assert not unfinished(path)
    # a kill may cut a file short, which `gc` removes
    assert {left.path.suffix for left in left_over(path)} <= {".partial"}
    assert_sound(path)

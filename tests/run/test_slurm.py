"""Jobs on a real SLURM: shared, queued again, cancelled, with a node that goes down."""

import os
import re
import signal

import pytest

from clipsyn.errors import ClusterError
from clipsyn.run.jobs import ExecutorSettings, shares, submit
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import left_over
from tests.daemons import until
from tests.kills import unfinished

pytest.importorskip("submitit", reason="no submitit: pip install 'clipsyn[slurm]'")

TWO = ["-b", "tiny-RN/zoo,tiny-ViT-16/zoo", "-d", "emoji-food"]
ASKED = [*TWO, "-s", "train,test", "-p", "clean,jpeg:3"]


class Launched:
    """`clipsyn extract … --slurm` or another command, which waits for its jobs."""

    def __init__(self, forker, slurm, words, logs):
        logs.mkdir()
        self._forker, self._slurm, self._logs = forker, slurm, logs / "clipsyn-logs"
        words = [*map(str, words), "--slurm", "cpus=1"]
        env = {"SLURM_CONF": os.environ["SLURM_CONF"]}
        self._pid = forker.start("command", words=words, cwd=logs, env=env)
        self._status: int | None = None

    def end(self):
        """Exit status, and what was said."""
        self._status = self._forker.wait(self._pid)
        return self._status, self._forker.said(self._pid)

    def has_begun(self, task):
        """Whether its command runs; long before its first block is finished, and its last."""
        return any("--shard" in log.read_text("utf-8") for log in self._logs_of(task))

    def _logs_of(self, task):
        return list(self._logs.glob(f"*/*_{task - 1}_0_log.out"))

    def log(self, task):
        (path,) = self._logs_of(task)
        return path.read_text("utf-8")

    def ask(self, command, task):
        """Something of SLURM, about the job of a task."""
        (log,) = self._logs_of(task)
        self._slurm(*command.split(), log.name.removesuffix("_0_log.out"))

    def kill(self):
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            self.end()


@pytest.fixture
def launch(slurm, forker, tmp_path):
    launched = []

    def start(store, asked, jobs=2):
        words = ["extract", store, *asked, "--jobs", jobs]
        started = Launched(forker, slurm, words, tmp_path / f"logs-{len(launched)}")
        launched.append(started)
        return started

    yield start
    for one in launched:
        one.kill()
    if left := slurm.jobs():
        slurm("scancel", *{job.partition("_")[0] for job in left})
    until(lambda: not slurm.jobs())  # or the next test takes them for its own


@pytest.fixture(scope="module")
def plain(forker, tmp_path_factory):
    """What one process makes."""
    store = tmp_path_factory.mktemp("plain") / "store"
    assert forker.run("command", words=["extract", str(store), *ASKED])[0] == 0
    return store


def test_an_array_makes_what_one_process_makes(launch, plain, tmp_path, fakes):
    launched = launch(tmp_path / "s", ASKED)
    status, said = launched.end()
    assert status == 0, said
    assert re.search(r"SLURM job \d+, 2 tasks; a log of each in ", said)
    assert all(f"task {number} of 2 is done" in said for number in (1, 2))
    assert fakes.unlike(plain, tmp_path / "s") == []
    assert not unfinished(tmp_path / "s")
    assert not left_over(tmp_path / "s")
    for number in (1, 2):
        assert f"--shard={number}/2" in launched.log(number)
    key = FeatureStore.open(tmp_path / "s").keys()[0]
    path = FeatureStore.open(tmp_path / "s").at("features", *key.names)
    assert FeatureStore.open(tmp_path / "s").group(path)["provenance"]["workers"]


def test_a_job_that_is_queued_again_goes_on(launch, plain, tmp_path, fakes):
    """By an administrator, and by the signal that comes before preemption and the time limit.

    The first goes on for seconds until SLURM kills it, so it is queued again at its start.
    """
    launched = launch(tmp_path / "s", ASKED)
    until(lambda: launched.has_begun(1))
    launched.ask("scontrol requeue", 1)
    until(lambda: launched.has_begun(2))
    launched.ask("scancel --signal=USR2", 2)
    status, said = launched.end()
    assert status == 0, said
    assert fakes.unlike(plain, tmp_path / "s") == []
    assert not unfinished(tmp_path / "s")
    for number in (1, 2):
        assert launched.log(number).count("Starting with JobEnvironment") == 2
    assert re.search(r"SLURM: \d of \d wait \(\w+\); queued again: [12]\n", said)


def test_a_cancelled_task_is_named_and_the_others_go_on(launch, forker, plain, tmp_path, fakes):
    launched = launch(tmp_path / "s", ASKED)
    until(lambda: launched.has_begun(2))
    launched.ask("scancel", 2)
    status, said = launched.end()
    assert status == 1
    assert "task 1 of 2 is done" in said
    assert "task 2 of 2 failed (cancelled, killed or out of memory: SLURM ended it)" in said
    assert said.rstrip().splitlines()[-1].startswith("Error: 1 of 2 tasks failed: 2 (see above")
    assert forker.run("command", words=["extract", str(tmp_path / "s"), *ASKED])[0] == 0
    assert fakes.unlike(plain, tmp_path / "s") == []
    assert not unfinished(tmp_path / "s")


def test_a_task_that_fails_says_why(launch, tmp_path):
    status, said = launch(tmp_path / "s", [*ASKED, "--device", "cuda:9"], 1).end()
    assert status == 2, said
    (line,) = (line for line in said.splitlines() if "failed (exit status 2)" in line)
    assert "_log.out: " in line
    assert "cuda:9" in line


def test_slurm_refuses_what_it_does_not_have(slurm, tmp_path):
    settings = ExecutorSettings(jobs=1, slurm={"partition": "nowhere"})
    with pytest.raises(ClusterError, match=r"SLURM did not take the jobs: .*partition"):
        submit(shares(["extract"], 1), lambda task: print, settings, tmp_path)

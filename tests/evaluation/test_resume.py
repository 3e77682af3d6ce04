"""What is left of a run that was killed, and what the same command then fits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clipsyn.evaluation import ProtocolSettings, predictions_of
from clipsyn.evaluation import fit as fitting
from clipsyn.evaluation.loop import count_left, evaluate
from clipsyn.evaluation.results.files import PREDICTIONS, RowsFile
from tests.results import untimed

SETTINGS = {
    "ensembles": ["super-learner", "greedy"],
    "heads": ["zero-shot", "lda"],
    "shots": (1, 2, "full"),
    "seeds": 2,
}
FITS = (2 * 2 + 1) * 2 * 3  # draws, heads, ensembles with best-single

# each fit says who makes it, and then takes a while; workers import this file too
SCRIPT = f"""
import os, sys, time
from pathlib import Path
from clipsyn.evaluation import fit as fitting
from clipsyn.evaluation.loop import evaluate
from clipsyn.store.features import FeatureStore

fit_ensemble = fitting.fit_ensemble

def slowly(combiner, name, seed):
    os.write(1, b"%d\\n" % os.getpid())  # at once: workers share the pipe
    time.sleep(0.4)
    return fit_ensemble(combiner, name, seed)

fitting.fit_ensemble = slowly
if __name__ == "__main__":
    store, output, workers = sys.argv[1:]
    evaluate(FeatureStore.open(store), output=output, workers=int(workers), **{SETTINGS!r})
"""


@pytest.fixture
def start(tiny_store, tmp_path):
    """Start `evaluate` in another process."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    started: list[subprocess.Popen[str]] = []

    def call(workers):
        process = subprocess.Popen(
            [sys.executable, script, tiny_store.path, tmp_path / "r.parquet", str(workers)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def kept(output):
    """Fits whose numbers and predictions are there: a kill may come between the two."""
    fitted = RowsFile(output).frame.filter(metric="fit_seconds")
    predicted = RowsFile(predictions_of(output), PREDICTIONS).known
    return len(fitted.filter(pl.col("fingerprint").is_in([*predicted])))


def check_the_rest(store, output, monkeypatch):
    """The same command fits what is left, and gives what a run that was never killed does."""
    left, fitted = FITS - kept(output), []
    fit = fitting.fit_ensemble
    with monkeypatch.context() as patch:
        patch.setattr(
            fitting, "fit_ensemble", lambda *arguments: fitted.append(1) or fit(*arguments)
        )
        resumed = evaluate(store, output=output, **SETTINGS)
    assert len(fitted) == left
    assert_frame_equal(untimed(resumed), untimed(evaluate(store, **SETTINGS)))


def test_a_kill_loses_the_fit_in_flight(start, tiny_store, tmp_path, monkeypatch):
    process = start(workers=1)
    for _ in range(8):
        process.stdout.readline()  # the eighth fit has begun
    process.kill()
    process.wait()
    assert kept(tmp_path / "r.parquet") == 7
    check_the_rest(tiny_store, tmp_path / "r.parquet", monkeypatch)


def test_a_kill_loses_the_fit_in_flight_of_each_worker(start, tiny_store, tmp_path, monkeypatch):
    process = start(workers=2)
    workers = {int(process.stdout.readline()) for _ in range(12)}
    process.kill()
    process.wait()
    assert kept(tmp_path / "r.parquet") >= 12 - 6  # two begun, four perhaps on their way
    check_the_rest(tiny_store, tmp_path / "r.parquet", monkeypatch)
    assert len(workers) == 2
    wait_for_the_end_of(workers)


def test_a_worker_that_is_killed_is_said_and_the_rest_is_kept(start, tiny_store, tmp_path):
    process = start(workers=2)
    workers = [int(process.stdout.readline()) for _ in range(12)]
    os.kill(workers[-1], signal.SIGKILL)
    _, message = process.communicate()
    assert process.returncode != 0
    assert "a worker was killed" in message
    assert "the same command goes on from there" in message
    assert kept(tmp_path / "r.parquet") >= 8
    assert [it.name for it in tmp_path.glob(".*")] == []
    wait_for_the_end_of(set(workers))


def test_ctrl_c_ends_all_and_keeps_what_is_finished(start, tiny_store, tmp_path):
    process = start(workers=2)
    workers = {int(process.stdout.readline()) for _ in range(12)}
    process.send_signal(signal.SIGINT)
    _, message = process.communicate()
    assert message.rstrip().endswith("KeyboardInterrupt")
    assert kept(tmp_path / "r.parquet") >= 8
    wait_for_the_end_of(workers)


def test_nothing_is_left_of_a_single_backbone(tiny_store, tmp_path):
    backbone = tiny_store.keys()[0].backbone
    settings = SETTINGS | {"backbones": backbone, "output": tmp_path / "r.parquet"}
    assert count_left(tiny_store, ProtocolSettings(**settings))
    evaluate(tiny_store, **settings)
    assert count_left(tiny_store, ProtocolSettings(**settings)) == 0


def wait_for_the_end_of(processes):
    end = time.monotonic() + 60
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < end, "a worker goes on"
        time.sleep(0.05)

"""Forks a process for every line of standard input; `forker.Forker` says what each has to do.

It imports all that it needs first: kills and races take milliseconds then, and a process of another
user, who may not be allowed to read the modules, imports nothing. Not polars: its threads do not
survive a fork.
"""

import faulthandler
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import safetensors.torch
import zarr
import zarr.codecs

from clipsyn.cli import main
from clipsyn.errors import ClipsynError, StaleCell
from clipsyn.extract import images, work
from clipsyn.run import jobs
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import Stale, damage
from clipsyn.store.merge import plan_merge
from clipsyn.store.samples import SampleTable

assert zarr.codecs
assert safetensors.torch
assert images
assert work
jobs._LONGEST = 1.0  # seconds between two looks at the queue: SLURM has nobody else to answer
CONFTEST = Path(__file__).with_name("conftest.py")


def _fakes() -> Any:
    spec = importlib.util.spec_from_file_location("fakes", CONFTEST)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fakes"] = module
    spec.loader.exec_module(module)
    return module


fakes = _fakes()


# What can be done


def extract(
    path: str,
    names: Sequence[str] = ("fake/one",),
    weights: str = "",
    seconds: float = 0.0,
    **options: Any,
) -> None:
    """Two splits, clean and jpeg-3, seen by some backbones; seconds: what a batch costs."""
    encoders = [_encoder(name, weights, seconds) for name in names]
    sources = [fakes.FakeSource(count=45, bad={7: "torn"}), fakes.FakeSource(split="train")]
    usual = {"perturbations": ["clean", "jpeg:3"], "batch_size": 4, "shard": (0, 1), "max_bad": 0.1}
    fakes.fill(Path(path), encoders, sources, **usual | options)


def _encoder(name: str, weights: str, seconds: float) -> Any:
    size = 6 if name == "fake/two" else 8
    encoder = fakes.FakeEncoder(name, size=size, weights=weights and name + weights)
    encoder.seconds = seconds
    return encoder


def merge(into: str, stores: Sequence[str], seconds: float = 0.0) -> None:
    """seconds: what a file costs."""
    copy = shutil.copyfile

    def slowly(*arguments: Any) -> None:
        time.sleep(seconds)
        copy(*arguments)

    shutil.copyfile = slowly
    plan_merge(Path(into), [Path(store) for store in stores]).carry_out(fakes.Quiet())


def correct(path: str, split: str, rounds: int) -> None:
    """Give all labels other values, again and again."""
    store = FeatureStore.open(path)
    table = store.samples("toy", split)
    known = {"ids": table.ids, "content": table.content, "class_names": table.class_names}
    for turn in range(rounds):
        labels = (table.labels + os.getpid() + turn) % len(table.class_names)
        store.annotate(SampleTable("toy", split, labels=labels.astype("int32"), **known))


def read(path: str, until: str, replacing: bool = False) -> None:
    """Read all numbers, and verify everything, again and again until there is a file.

    replacing: what others replace is stale for a while, until its other groups follow.
    """
    last = False
    while not last:
        last = Path(until).exists()  # then once more: this process may have started late
        if last or (Path(path) / "clipsyn.json").exists():
            _read_once(FeatureStore.open(path), replacing)


def _read_once(store: FeatureStore, replacing: bool) -> None:
    keys = store.keys()
    for key in keys:
        try:
            store.samples(key.dataset, key.split)
            store.cell(key).embeddings()
            for prompts in store.cell(key).prompt_sets():
                store.cell(key).logits(prompts)
                store.cell(key).predictions(prompts)
        except StaleCell:
            if not replacing:
                raise
    problems = [one for group in store.places() for one in damage(store, group)]
    assert [one for one in problems if not (replacing and isinstance(one, Stale))] == []


def launch(words: Sequence[str], pids: str) -> int:
    """`clipsyn WORDS`, with ``--jobs``; its jobs are forks, each with a file in `pids`."""
    jobs.subprocess = SimpleNamespace(Popen=partial(Fork, Path(pids)), DEVNULL=None)
    return command(words)


def command(words: Sequence[str], cwd: str = ".", env: Mapping[str, str] | None = None) -> int:
    """The exit status of `clipsyn WORDS`, in a folder, with more in its environment."""
    os.chdir(cwd)
    os.environ.update(env or {})
    try:
        main([*words], prog_name="clipsyn")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


class Fork:
    """What `clipsyn.run.jobs` uses of a `Popen`: what torch costs is paid already.

    It holds the lock on the file of its number as long as it runs.
    """

    def __init__(self, pids: Path, words: Sequence[str], *, env: Any, stdout: Any, **_: Any):
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                _hold(pids)
                os.dup2(stdout.fileno(), 1)
                os.dup2(stdout.fileno(), 2)
                os.environ.update(env)
                status = command(words[len(jobs.COMMAND) :])
                sys.stdout.flush()
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            os._exit(status)

    def poll(self, options: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self) -> int | None:
        return self.poll(0)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def _hold(pids: Path) -> None:
    new = pids / f"new-{os.getpid()}"
    fcntl.flock(os.open(new, os.O_WRONLY | os.O_CREAT), fcntl.LOCK_EX)
    new.rename(pids / str(os.getpid()))


# In which process


def _become(uid: int, gid: int, umask: int) -> None:
    os.umask(umask)
    if uid:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def _run(said: str, user: dict[str, int], do: str, arguments: dict[str, Any]) -> None:
    """Do it as that user; what it says goes to a file."""
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.chdir(Path(said).parent)  # where logs of jobs go
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.dump_traceback_later(600, exit=True, file=2)  # of one that hangs
    code = 1
    try:
        _become(**user)
        code = globals()[do](**arguments) or 0
    except (ClipsynError, PermissionError) as error:
        click.echo(error)
        code = getattr(error, "exit_code", 1)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def _warm_up(folder: Path) -> None:
    """Do everything once, so that it is imported."""
    store = str(folder / "store")
    extract(store)
    merge(str(folder / "merged"), [store])
    correct(store, "test", 1)


def _answer(command: dict[str, Any]) -> int:
    if process := command.get("wait"):
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if command["do"] in ("command", "launch"):  # before the fork, so once for all of them
        from clipsyn.extract import of_open_clip

        assert of_open_clip
    child = os.fork()
    if child == 0:
        _run(**command)
    return child


if __name__ == "__main__":
    out = sys.stdout
    sys.stdout = sys.stderr
    _warm_up(Path(sys.argv[1]))
    click.echo("ready", file=out)
    for line in sys.stdin:
        click.echo(_answer(json.loads(line)), file=out)

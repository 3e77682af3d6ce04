"""A real SLURM of one node. Where there is none its tests are skipped and say so.

Debian has it: ``apt-get install slurmctld slurmd slurm-client munge``. It is started as root in a
folder of its own. Where CLIPSYN_TEST_SERVERS is set it must work: then nothing is skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SERVERS = "CLIPSYN_TEST_SERVERS"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
# A job that is queued again starts when its old credential has expired: not before its processes
# have ended, which would drain the node.
CONFIG = """
ClusterName=clipsyn
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=15
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """SLURM's own commands, on the cluster of one node."""

    node: str
    folder: Path

    def __call__(self, *words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def jobs(self) -> set[str]:
        """Those that wait or run, such as ``12_0``."""
        return set(self("squeue", "--noheader", "--array", "--format", "%i").split())

    def until(self, there: Callable[[], bool], seconds: float = 120) -> None:
        """Wait; the limit is for what never comes, not a measure of speed."""
        end = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < end, "it never came"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    why = _lacking()
    if why:
        assert SERVERS not in os.environ, f"{SERVERS} is set, and {why}"
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "plugstack.conf").touch()
    config = folder / "slurm.conf"
    ports, cores = (_free_port(), _free_port()), os.cpu_count()
    config.write_text(CONFIG.format(host=host, ports=ports, folder=folder, cores=cores))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(config))
        started = Slurm(host, folder)
        try:
            _start(folder, config)
            started.until(lambda: "idle" in started("sinfo", "--noheader", "--format", "%T"))
            yield started
        finally:
            _stop(started)


def _lacking() -> str:
    if gone := [name for name in NEEDED if shutil.which(name) is None]:
        return f"no {', '.join(gone)}: install slurmctld, slurmd, slurm-client and munge"
    return "" if os.geteuid() == 0 else "SLURM's daemons must be started as root"


def _start(folder: Path, config: Path) -> None:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = {name: folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
    munge = [f"--{name}-file={files[name]}" for name in ("pid", "log", "seed")]
    for command in (
        ["munged", "--force", f"--socket={files['socket']}", f"--key-file={key}", *munge],
        ["slurmctld", "-c", "-f", config],
        ["slurmd", "-f", config],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _stop(started: Slurm) -> None:
    """End the daemons that were started, by their own numbers."""
    for name in ("slurmd", "slurmctld", "munge"):
        with suppress(OSError, ValueError):
            number = int((started.folder / f"{name}.pid").read_text())
            os.kill(number, signal.SIGTERM)
            gone = Path(f"/proc/{number}")
            started.until(lambda gone=gone: not gone.exists(), 20)  # type: ignore[misc]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

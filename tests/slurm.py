"""A real SLURM of one node. Where there is none its tests are skipped and say so.

Debian has it: ``apt-get install slurmctld slurmd slurm-client munge``. It is started as root in a
folder of its own. Where CLIPSYN_TEST_SERVERS is set it must work: then nothing is skipped.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemons import assert_on_loopback_only, free_port, running, until

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
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """SLURM's own commands, on the cluster of one node."""

    def __call__(self, *words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def jobs(self) -> set[str]:
        """Those that wait, run or have not quite ended, such as ``12_0``."""
        return set(self("squeue", "--noheader", "--array", "--format", "%i").split())


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
    ports, cores = (free_port(), free_port()), os.cpu_count()
    config.write_text(CONFIG.format(host=host, ports=ports, folder=folder, cores=cores))
    with pytest.MonkeyPatch.context() as patch, ExitStack() as daemons:
        patch.setenv("SLURM_CONF", str(config))
        for command in _commands(folder, config):
            daemons.enter_context(running(command))
        until(_is_idle)
        for port in ports:
            assert_on_loopback_only(port)
        yield Slurm()


def _lacking() -> str:
    if gone := [name for name in NEEDED if shutil.which(name) is None]:
        return f"no {', '.join(gone)}: install slurmctld, slurmd, slurm-client and munge"
    return "" if os.geteuid() == 0 else "SLURM's daemons must be started as root"


def _commands(folder: Path, config: Path) -> Iterator[list[str | Path]]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = [f"--{name}-file={folder / f'munge.{name}'}" for name in ("pid", "log", "seed")]
    socket_ = f"--socket={folder / 'munge.socket'}"
    yield ["munged", "--foreground", "--force", socket_, f"--key-file={key}", *files]
    until((folder / "munge.socket").exists)
    yield ["slurmctld", "-D", "-c", "-f", config]
    yield ["slurmd", "-D", "-f", config]


def _is_idle() -> bool:
    """Whether the node waits for jobs; there may be nobody yet who knows."""
    asked = ["sinfo", "--noheader", "--format", "%T"]
    return "idle" in subprocess.run(asked, capture_output=True, text=True, check=False).stdout

"""A Slurm of one node for the tests, from Debian's packages; started and stopped by a fixture."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")
CONF = """\
ClusterName=test
SlurmctldHost={host}
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmUser=root
SlurmdUser=root
MaxArraySize=1001
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmdParameters=config_overrides
NodeName={host} CPUs={cpus} RealMemory=100000 State=UNKNOWN
PartitionName=batch Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """One controller and one node as child processes; `environment` is what clients need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir(parents=True)
        (folder / "munge").chmod(0o700)
        folder.chmod(0o755)
        host = socket.gethostname().split(".")[0]
        ports = [_free_port() for _ in range(2)]
        self.conf = folder / "slurm.conf"
        self.conf.write_text(
            CONF.format(
                host=host, folder=folder, port=ports[0], node_port=ports[1], cpus=os.cpu_count()
            )
        )
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        self.running: list[subprocess.Popen] = []

    def start(self) -> None:
        """Start munged, slurmctld and slurmd; wait until the node is idle."""
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        socket_path = self.folder / "munge" / "socket"
        self.conf.write_text(self.conf.read_text() + f"AuthInfo=socket={socket_path}\n")
        files = {
            "key-file": key,
            "socket": socket_path,
            "pid-file": key.with_name("pid"),
            "log-file": key.with_name("log"),
            "seed-file": key.with_name("seed"),
        }
        self._spawn(
            "munged",
            "--foreground",
            "--force",
            *(f"--{name}={path}" for name, path in files.items()),
        )
        _wait(socket_path.exists, "munged")
        self._spawn("slurmctld", "-D", "-f", self.conf)
        self._spawn("slurmd", "-D", "-f", self.conf)
        _wait(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T").stdout, "the node")

    def stop(self) -> None:
        """End what was started, the last one first."""
        for process in reversed(self.running):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def run(self, *command: object, **keys: object) -> subprocess.CompletedProcess:
        """A client's command, its output as text."""
        return subprocess.run(
            [str(part) for part in command],
            env=self.environment,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
            **keys,
        )

    def wait_for_jobs(self, seconds: float) -> None:
        """Until the queue is empty."""
        _wait(lambda: not self.run("squeue", "-h").stdout.strip(), "the jobs", seconds)

    def _spawn(self, *command: object) -> None:
        log = open(self.folder / f"{command[0]}.out", "w")
        self.running.append(
            subprocess.Popen(
                [str(part) for part in command],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        )


def missing() -> list[str]:
    """Programs that are not installed."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _wait(ready: object, what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not ready after {seconds:.0f} s")
        time.sleep(0.3)

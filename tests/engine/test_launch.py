"""Parts of a fit as tasks: the same bits, a worker lost on the way, and who can reach them."""

import os
from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.compressors.decompositions import METHODS, Tall, decompose
from scaled_mpi.compressors.pod import Pod
from scaled_mpi.config import parse
from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.ordered import dealt, ordered_sum
from scaled_mpi.parallel.store import Trajectory, TrajectoryWriter
from scaled_mpi.surrogates.mvar import Mvar
from scaled_mpi.surrogates.selection import Selection

pytest.importorskip("distributed")


def listening():
    """(process, address) of all sockets on which this process and its children wait."""
    import psutil

    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        (process.pid, *connection.laddr)
        for process in family
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.fixture(scope="module")
def before():
    """What listened before the workers came: MPI may."""
    return listening()


@pytest.fixture(scope="module")
def crew(before, tmp_path_factory):
    """Two workers of Dask, as a communicator."""
    from scaled_mpi.engine.launch import workers

    folder = tmp_path_factory.mktemp("crew")
    with workers("dask", None, folder) as comm:
        yield comm
    assert not list(folder.iterdir())


def stored(folder, frames=12, runs=6, channels=1, cells=(8, 8)):
    draw = np.random.default_rng(0)
    grid, made = Grid(cells, 1.0), []
    modes = draw.normal(size=(5, channels, *cells)) * 0.6 ** np.arange(5).reshape(5, 1, 1, 1)
    for number in range(runs):
        name = f"train-{number:04d}"
        with TrajectoryWriter(
            folder,
            name,
            make_blocks(grid, cells, 1),
            SerialComm(),
            [f"c{i}" for i in range(channels)],
            dtype=np.float64,
            attributes={"jump": 1},
        ) as writer:
            for time in range(frames):
                weights = np.sin(0.4 * time * np.arange(1, 6) + number)
                noise = 0.01 * draw.normal(size=(channels, *cells))
                writer.append(time, np.tensordot(weights, modes, 1) + noise)
        made.append(Trajectory(folder, name))
    return made


@pytest.mark.parametrize("method", METHODS)
def test_decompositions_by_tasks_have_the_bits_of_one_process(crew, method):
    matrix = np.random.default_rng(1).normal(size=(70, 9)) * 3.0 ** -np.arange(9)

    def rows(part: int) -> np.ndarray:
        return matrix[10 * part : 10 * (part + 1)]

    for far, near in zip(
        decompose(Tall(crew, 7, 9, rows), method, 5, 3),
        decompose(Tall(SerialComm(), 7, 9, rows), method, 5, 3),
        strict=True,
    ):
        assert np.array_equal(far, near)


@pytest.mark.parametrize(
    "keys",
    [
        {"factor": [8, 8], "rank": 4},
        {"factor": [2, 2], "rank": 3, "normalise": True},
        {"factor": [8, 8], "rank": 2, "align": "periodic", "method": "tsqr"},
    ],
)
def test_a_pod_by_tasks_has_the_bytes_of_one_process(crew, tmp_path, keys):
    runs, spec = stored(tmp_path), parse(Pod, keys)
    found = []
    for name, comm in (("far", crew), ("near", SerialComm())):
        (tmp_path / name).mkdir()
        spec.fit(runs, comm, tmp_path / name, None, 0)
        found.append((tmp_path / name / "pod.h5").read_bytes())
    assert found[0] == found[1]


def test_an_autoregression_chosen_by_tasks_has_the_bytes_of_one_process(crew, tmp_path):
    runs, found = stored(tmp_path, channels=3, cells=(2, 2)), []
    spec = Mvar(memory=2, reach=1, selection=Selection(folds=2, ranks=(2, 3), alphas=(1e-3, 1.0)))
    for name, comm in (("far", crew), ("near", SerialComm())):
        (tmp_path / name).mkdir()
        spec.fit(runs, comm, tmp_path / name, None, 0)
        found.append((tmp_path / name / "mvar.h5").read_bytes())
    assert found[0] == found[1]


def test_a_worker_that_dies_costs_its_parts_another_start(crew, tmp_path):
    mark = tmp_path / "died"

    def make(part: int) -> np.ndarray:
        if part == 1 and not mark.exists():
            mark.write_text("once")
            os._exit(1)
        return np.array([10.0**part, 1.0])

    assert ordered_sum(crew, 4, make).tolist() == [1111.0, 4.0]
    assert mark.exists()
    assert dealt(crew, 3, lambda number: number + 1) == [1, 2, 3]


def test_nothing_listens_beyond_this_machine(before, crew):
    addresses = {address for _, address, _ in listening() - before}
    assert addresses and addresses <= {"127.0.0.1", "::1"}


def test_a_site_says_where_data_and_results_lie(monkeypatch, tmp_path):
    from scaled_mpi.engine.launch import Machine, at_site, output_root, read_machine
    from scaled_mpi.experiments import load

    monkeypatch.setenv("PLACE", "/scratch/me")
    machine = parse(Machine, {"data": "$PLACE/data", "outputs": "$PLACE/out"})
    config = Path(__file__).resolve().parents[2] / "configs" / "smoke" / "oscar.yaml"
    experiment = load(config, ["ensemble.source=trees/first"])
    assert at_site(experiment, machine).ensemble.source == "/scratch/me/data/trees/first"
    assert at_site(experiment, Machine()).ensemble.source == "trees/first"
    assert output_root(machine) == Path("/scratch/me/out")
    assert output_root(Machine()) == Path("outputs")
    monkeypatch.chdir(tmp_path)
    assert read_machine(None) == Machine()


def test_results_go_where_the_machine_file_says(monkeypatch, tmp_path, capsys):
    from scaled_mpi.run import main

    config = str(Path(__file__).resolve().parents[2] / "configs" / "smoke" / "oscar.yaml")
    (tmp_path / "configs" / "machines").mkdir(parents=True)
    (tmp_path / "configs" / "machines" / "site.yaml").write_text(f"outputs: {tmp_path}/far\n")
    monkeypatch.chdir(tmp_path)
    assert main([config, "machine=site", "--member", "train:0"]) == 0
    assert len(list((tmp_path / "far" / "artefacts").glob("*/train-0000.json"))) == 1
    monkeypatch.setenv("SCALED_MPI_MACHINE", "site")
    assert main([config, "--status"]) == 0
    assert "train: 1 done" in capsys.readouterr().out


@pytest.mark.parametrize(
    "kind,wanted",
    [
        (
            "slurm",
            [
                "#SBATCH -p batch",
                "#SBATCH -A physics",
                "#SBATCH -n 1",
                "#SBATCH -t 00:30:00",
                "#SBATCH --constraint=intel",
            ],
        ),
        (
            "pbs",
            [
                "#PBS -q batch",
                "#PBS -A physics",
                "#PBS -l walltime=00:30:00",
                "#PBS --constraint=intel",
            ],
        ),
        ("htcondor", ["--constraint = intel", "MY.DaskWorkerCores = 1", "Queue"]),
    ],
)
def test_the_job_that_a_site_is_sent(kind, wanted, tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    from scaled_mpi.engine.launch import Machine, make_cluster

    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "a folder; rm x"
    folder.mkdir()
    monkeypatch.chdir(folder)
    cluster = make_cluster(
        kind,
        Machine(
            account="physics",
            partition="batch",
            prologue=("module load hdf5",),
            minutes=30,
            directives=("--constraint=intel",),
            interface="lo",
        ),
    )
    try:
        script = cluster.job_script()
    finally:
        cluster.close()
    lines = script.splitlines()
    assert [line for line in wanted if line not in lines] == []
    worker = script[script.index("module load hdf5") :]
    assert "a folder; rm x'" in worker  # quoted: a name is never a command
    assert "tls://127.0.0.1:" in worker and "--lifetime 25m" in worker
    assert "--tls-key" in worker and "--death-timeout 300" in worker
    assert (folder / "logs").is_dir()
    assert (tmp_path / ".cache" / "scaled_mpi" / "keys").stat().st_mode & 0o777 == 0o700

"""./run with stand-ins for python, pip, mpirun and apt-get: what it calls, when, and how it ends.

The stand-ins write down their arguments, so a set-up takes a fraction of a second. PATH holds
nothing but them and the plain tools that a bare Debian has.
"""

import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLAIN = (
    "bash awk cat cmp cp dirname env flock grep ls mkdir mktemp mv nproc rm sed sleep sort "
    "tail touch tr"
).split()

PYTHON = """#!/bin/bash
echo "python $*" >> "$CALLS"
first() { [ -e "${0%/*}/$1" ] || { touch "${0%/*}/$1"; exit 1; }; }   # not there, then there
case "$*" in
    -V) echo Python 3.11.2 ;;
    "-m venv"*) target=${@: -1}; rm -rf "$target"; mkdir -p "$target/bin"
        cp "$0" "$target/bin/python"
        echo "export PATH=$target/bin:\\$PATH" > "$target/bin/activate" ;;
    *"index versions"*) echo "Available versions: 3.22.5, 3.18.5, 3.18.4, 3.18.2" ;;
    *--dry-run*) cat "$OFFERED" ;;
    *"install -c constraints.txt -r"*) [ ! -e slow ] || sleep 2; [ ! -e broken ] ;;
    "-c import h5py"*) first h5py ;;
    "-c from petsc4py"*) first petsc4py ;;
esac
"""
MPIRUN = """#!/bin/bash
trap 'echo "mpirun got USR2" >> "$CALLS"; exit 85' USR2
echo "mpirun $*" >> "$CALLS"
for _ in {1..300}; do [ -e running ] || exit "${ENDS:-0}"; sleep 0.1; done
"""
NOTE = '#!/bin/bash\necho "${0##*/} $*" >> "$CALLS"\n'


class Place:
    """A copy of the project in a folder whose PATH is under control."""

    def __init__(self, folder):
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        for name in ("run", "pyproject.toml", "constraints.txt", "configs"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        for name in PLAIN:
            if path := shutil.which(name):
                (self.bin / name).symlink_to(path)
        self.tool("python3", PYTHON)
        self.tool("id", "#!/bin/bash\necho 1000\n")
        for name in ("gcc", "g++"):
            self.tool(name, "#!/bin/bash\n")
        (folder / "offered").write_text('{"name": "torch"}')

    def tool(self, name, text):
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def with_mpi(self):
        self.tool("mpirun", MPIRUN)
        self.tool("mpicc", NOTE)
        return self

    def library(self, name, file, text):
        path = self.folder / name / "include" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(self.folder / name)

    def start(self, *arguments, **variables):
        environment = {
            "PATH": str(self.bin),
            "HOME": str(self.folder),
            "CALLS": str(self.folder / "calls"),
            "OFFERED": str(self.folder / "offered"),
        } | variables
        return subprocess.Popen(
            [str(self.folder / "run"), *arguments],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
        )

    def __call__(self, *arguments, **variables):
        """Exit code and output of ./run."""
        process = self.start(*arguments, **variables)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def calls(self, word=""):
        """Calls of the stand-ins since the last question that contain the word."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if word in line]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "project")


@pytest.fixture
def libraries(place):
    """Variables that point to a parallel HDF5 1.10.8 and a PETSc 3.18.3, and the PETSc header."""
    hdf5 = place.library("hdf5", "H5pubconf.h", "#define H5_HAVE_PARALLEL 1\n")
    place.library("hdf5", "H5public.h", '#define H5_VERS_INFO "HDF5 library version: 1.10.8"\n')
    petsc = place.library("petsc", "petscversion.h", petsc_header(3, 18, 3))
    return {"HDF5_DIR": hdf5, "PETSC_DIR": petsc}


def petsc_header(*version):
    names = ("MAJOR", "MINOR", "SUBMINOR")
    return "".join(
        f"#define PETSC_VERSION_{name} {number}\n"
        for name, number in zip(names, version, strict=True)
    )


@pytest.mark.parametrize(
    "arguments,code,words",
    [
        (["--help"], 0, "./run doctor"),
        (["tset"], 2, "run: tset: neither a config file nor one of test, doctor, setup"),
        (["-n"], 2, "run: -n wants a number of ranks"),
        (["-n", "0"], 2, "run: -n 0: a number of ranks, 1 or more"),
        (["configs/ddm.yaml", "-n", "two"], 2, "run: -n two: a number of ranks, 1 or more"),
    ],
)
def test_help_and_slips_set_nothing_up(place, arguments, code, words):
    found, output = place(*arguments)
    assert found == code and words in output
    assert not (place.folder / ".venv").exists()


@pytest.mark.parametrize(
    "given,passed",
    [
        ([], "-n 3 python -m scaled_mpi.run configs/ddm.yaml"),
        (
            ["-n", "64", "--redo", "couple"],
            "-n 64 python -m scaled_mpi.run configs/ddm.yaml --redo couple",
        ),
        (
            ["configs/smoke/ddm.yaml", "-n", "2", "a.b=1", "--dry-run"],
            "-n 2 python -m scaled_mpi.run configs/smoke/ddm.yaml a.b=1 --dry-run",
        ),
        (["seed=1"], "-n 3 python -m scaled_mpi.run configs/ddm.yaml seed=1"),
    ],
)
def test_what_is_passed_to_mpirun(place, given, passed):
    place.with_mpi().tool("nproc", "#!/bin/bash\necho 3\n")
    assert place(*given)[0] == 0
    assert place.calls("mpirun -n") == [f"mpirun {passed}"]


def test_threads_of_the_environment_are_not_the_cores(place):
    nproc = "#!/bin/bash\necho ${OMP_NUM_THREADS:-${OMP_THREAD_LIMIT:-5}}\n"
    place.with_mpi().tool("nproc", nproc)
    assert place(OMP_NUM_THREADS="1", OMP_THREAD_LIMIT="1")[0] == 0
    assert place.calls("mpirun -n") == ["mpirun -n 5 python -m scaled_mpi.run configs/ddm.yaml"]


def test_the_exit_code_and_signals_are_those_of_mpirun(place):
    place.with_mpi()
    assert place("-n", "2", ENDS="85")[0] == 85
    place.calls()
    (place.folder / "running").touch()
    process = place.start("-n", "2")
    while not (place.folder / "calls").exists() or not place.calls("mpirun -n"):
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 85 and place.calls() == ["mpirun got USR2"]
    process.stdout.close()


def test_a_second_start_sets_nothing_up_and_takes_no_time(place):
    place.with_mpi()
    assert "set-up: done" in place("-n", "1")[1]
    place.calls()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert place("-n", "1") == (0, "")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # of processors, since a wall clock also shows what else this machine does
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert place.calls("pip") == []


def test_without_the_right_to_install_one_line_says_what_is_missing(place):
    place.tool("apt-get", NOTE)
    code, output = place()
    assert code == 0
    assert "    sudo apt-get install --no-install-recommends libopenmpi-dev openmpi-bin" in output
    calls = place.calls()
    assert not [line for line in calls if line.startswith("apt-get")]
    assert calls[-1] == "python -m scaled_mpi.run configs/ddm.yaml"  # one process, no mpirun


@pytest.mark.parametrize("who", ["root", "sudo"])
def test_missing_packages_are_installed(place, who):
    for name in ("apt-get", "dpkg"):
        place.tool(name, NOTE)
    if who == "root":
        place.tool("id", "#!/bin/bash\necho 0\n")
    else:
        place.tool("sudo", '#!/bin/bash\nshift; "$@"\n')
    assert place("setup")[0] == 0
    assert [line.split()[0] for line in place.calls() if not line.startswith("python")] == [
        "dpkg",
        "apt-get",
        "apt-get",
    ]


def test_libraries_are_built_to_fit_and_again_when_they_change(place, libraries):
    place.with_mpi()
    _, output = place("setup", **libraries)
    assert "h5py on parallel HDF5 1.10.8" in output and "petsc4py 3.18.5" in output
    built = place.calls("--no-build-isolation")
    assert any("--no-binary=h5py h5py" in line for line in built)
    assert place("setup", **libraries) == (0, "")
    header = place.folder / "petsc" / "include" / "petscversion.h"
    header.write_text(petsc_header(3, 18, 4))
    assert "petsc4py 3.18.4" in place("setup", **libraries)[1]  # published, so exactly this one
    header.write_text(petsc_header(3, 99, 0))
    code, output = place("setup", **libraries)
    assert code == 0 and "no petsc4py for PETSc 3.99.0: going on without PETSc" in output


def test_a_failed_step_is_tried_again_in_place(place):
    (place.folder / "broken").touch()
    code, output = place("setup")
    assert code == 1 and "python packages failed; the whole log is" in output
    (place.folder / "broken").unlink()
    place.calls()
    assert place("setup")[0] == 0 and place.calls("-m venv") == []


def test_a_killed_set_up_is_started_afresh(place):
    (place.folder / "slow").touch()
    process = place.start("setup")
    while not place.calls("-r "):
        time.sleep(0.05)
    process.kill()
    process.communicate()
    (place.folder / "slow").unlink()
    code, output = place("setup")
    assert code == 0 and "interrupted; starting it afresh" in output
    assert len(place.calls("-m venv --clear")) == 1


def test_two_starts_at_once_set_up_once(place):
    (place.folder / "slow").touch()
    both = [place.start("setup"), place.start("setup")]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("waiting for it" in output for output in outputs) == 1
    assert len(place.calls("-m venv")) == 1


@pytest.mark.parametrize("offered,warned", [("torch", False), ("nvidia-cublas", True)])
def test_cuda_without_a_gpu_is_announced(place, offered, warned):
    (place.folder / "offered").write_text(f'{{"name": "{offered}"}}')
    code, output = place("setup")
    assert code == 0 and ("torch with CUDA only" in output) == warned


def test_the_index_of_the_cpu_build_is_used(place):
    place("setup", SCALED_MPI_TORCH_INDEX="file:///wheels")
    installs = [line for line in place.calls("torch") if "--dry-run" not in line]
    assert installs[0].endswith("--extra-index-url file:///wheels torch")


def test_the_activate_script_is_extended_once_and_keeps_what_is_set(place):
    place("setup")
    (place.folder / ".venv" / "set-up.stamp").unlink()
    place("setup")
    activate = place.folder / ".venv" / "bin" / "activate"
    assert activate.read_text().count("export OMPI_MCA_rmaps_base_oversubscribe") == 1
    shown = subprocess.run(
        ["bash", "-c", f". {activate}; echo $OMPI_ALLOW_RUN_AS_ROOT $OMP_NUM_THREADS"],
        env={"OMP_NUM_THREADS": "4", "PATH": str(place.bin)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "1 4\n"


def test_the_prologue_of_the_machine_file_comes_first(place):
    site = place.folder / "configs" / "machines" / "site.yaml"
    site.write_text(
        "account: a\nprologue:\n  - echo loading modules\n  - export MPIEXEC=srun\npartition: p\n"
    )
    place.tool("srun", NOTE)
    code, output = place("-n", "2", SCALED_MPI_MACHINE="site")
    assert code == 0 and output.startswith("loading modules\n")
    assert place.calls("srun -n") == ["srun -n 2 python -m scaled_mpi.run configs/ddm.yaml"]
    assert place("-n", "2", SCALED_MPI_MACHINE="nowhere")[0] == 2

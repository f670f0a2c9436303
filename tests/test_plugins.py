"""Members from installed packages: named in YAML, and left out with one line when broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scaled_mpi import plugins

ROOT = Path(__file__).resolve().parent.parent
MODULE = '''
"""A surrogate that shifts the field, in a package of its own."""
from pathlib import Path
from typing import Literal

from scaled_mpi.surrogates.operators import Operator, Surrogate


class Shift(Operator):
    reach, memory = (1, 1), 1

    def advance(self, window, mask, condition, future=None, noise=None):
        return window[-1][:, 1:-1, :-2].copy()


class Shifting(Surrogate):
    kind: Literal["shifting"] = "shifting"
    jump: int = 20
    reach: int = 1

    def fit(self, trajectories, comm, folder, events, seed):
        Path(folder).mkdir(exist_ok=True)

    def load(self, folder):
        return Shift()


class Empty(Surrogate):
    kind: Literal["empty"] = "empty"
'''
SMOKE = ("coupling.halo=1", "coupling.jumps=2", "data.runs=2", "test.burn_in=40")


def installed(folder, points, module=MODULE):
    """Put a package of one module and its entry points into a folder, as pip would."""
    (folder / "shifting_package.py").write_text(module)
    info = folder / "shifting_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shifting_package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def python(environment, *arguments, timeout=250):
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_a_surrogate_of_another_package_runs_in_the_smoke_job(tmp_path):
    points = "[scaled_mpi.surrogates]\nshifting = shifting_package:Shifting\n"
    points += "broken = shifting_package:Nothing\n"
    found = python(
        installed(tmp_path, points),
        *(
            "-m",
            "scaled_mpi.run",
            "configs/smoke/ddm.yaml",
            "surrogate={kind: shifting, jump: 20}",
        ),
        *SMOKE,
        *("--outputs", str(tmp_path / "out")),
    )
    assert found.returncode == 0, found.stderr
    warnings = [line for line in found.stderr.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 1
    assert "scaled_mpi.surrogates: broken (shifting_package:Nothing) is left out" in warnings[0]
    assert len(list((tmp_path / "out").glob("*/report.html"))) == 1


@pytest.mark.parametrize(
    ("points", "module", "words"),
    [
        ("absent = nowhere_at_all:Member", MODULE, "ModuleNotFoundError"),
        ("empty = shifting_package:Empty", MODULE, "Empty: fit is missing; Empty: load is"),
        ("stepper = shifting_package:Shifting", MODULE, "the name is in use"),
        ("number = shifting_package:number", "number = 3", "int: a class that inherits from"),
        ("loud = shifting_package:Loud", "raise SystemError('a\\nb')", "SystemError: a b"),
    ],
)
def test_a_broken_one_is_one_line_and_is_left_out(tmp_path, points, module, words):
    environment = installed(tmp_path, f"[scaled_mpi.surrogates]\n{points}\n", module)
    code = "from scaled_mpi.surrogates import MEMBERS; print(*MEMBERS)"
    found = python(environment, "-c", code)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["stepper", "probabilistic", "diffusion", "mvar"]
    assert len(found.stderr.splitlines()) == 1 and words in found.stderr
    second = python({**environment, "OMPI_COMM_WORLD_RANK": "1"}, "-c", code)
    assert second.stderr == ""


def test_a_package_may_be_imported_before_the_family(tmp_path):
    points = "[scaled_mpi.surrogates]\nshifting = shifting_package:Shifting\n"
    code = "import shifting_package; from scaled_mpi.surrogates import MEMBERS; print(*MEMBERS)"
    found = python(installed(tmp_path, points), "-c", code)
    assert found.stdout.split()[-1] == "shifting" and found.stderr == ""


@pytest.mark.parametrize("family", ["simulators", "surrogates", "compressors", "local_solvers"])
def test_every_built_in_member_keeps_the_contract_of_plugins(family):
    from importlib import import_module

    module = import_module(f"scaled_mpi.{family}")
    assert f"scaled_mpi.{family}" in plugins.GROUPS
    for name, member in module.BUILT_IN.items():
        if name != "vicsek":  # particles, another contract
            assert module.member_violations(member) == []
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018


def test_names_are_listed_without_an_import():
    assert plugins.names("scaled_mpi.losses", ("a", "b")) == ("a", "b")


PARTS = '''
"""A bottleneck, a loss term and a network size, in a package of their own."""
from typing import Literal

from scaled_mpi.config import Spec
from scaled_mpi.learning.networks.bottlenecks import PlainBottleneck as Identity


class Halved(Identity):
    def code(self, z):
        return z / 2


def absolute(made, truth, system):
    return (made - truth).abs().mean()


class Single(Spec):
    kind: Literal["single_layer"] = "single_layer"
    multiple: int = 1
    padding: str = "replicate"

    def build(self, axes, channels, fields, scalars):
        raise AssertionError
'''
CODE = """
from scaled_mpi.compressors import MEMBERS
from scaled_mpi.config import InputError, parse
from scaled_mpi.learning.networks.coding import CodingNetwork
from scaled_mpi.learning.reconstruction import terms
from scaled_mpi.surrogates import MEMBERS as SURROGATES

keys = {"bottleneck": {"kind": "halved"}, "terms": {"absolute": 0.5}}
spec = parse(MEMBERS["autoencoder"], keys)
network = CodingNetwork(2, 4, (4, 4), 8, 1, "halved")
print(type(network.bottleneck).__name__, terms()["absolute"].__name__)
print(SURROGATES["diffusion"](network={"kind": "single_layer"}, reach=8).network.kind)
for wrong in ({"bottleneck": {"kind": "thirds"}}, {"terms": {"relative": 1.0}}):
    try:
        parse(MEMBERS["autoencoder"], wrong)
    except InputError as error:
        print(error)
"""


def test_bottlenecks_losses_and_networks_of_another_package_are_named_in_yaml(tmp_path):
    points = "[scaled_mpi.bottlenecks]\nhalved = shifting_package:Halved\n"
    points += "[scaled_mpi.losses]\nabsolute = shifting_package:absolute\n"
    points += "[scaled_mpi.networks]\nsingle_layer = shifting_package:Single\n"
    found = python(installed(tmp_path, points, PARTS), "-c", CODE)
    assert found.returncode == 0 and found.stderr == "", found.stderr
    lines = found.stdout.splitlines()
    assert lines[:2] == ["Halved absolute", "single_layer"]
    assert "thirds is not allowed: unknown. Allowed: identity, linear, kl, vq, halved" in lines[2]
    assert "relative is not allowed: unknown. Allowed: gradient, spectrum, residual" in lines[3]

"""An outputs folder opens as lazy xarray, also as a copy and with nothing parallel installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.engine.artefacts import Artefact, building, publish
from scaled_mpi.facts import EventLog, FactLog
from scaled_mpi.opening import open_outputs
from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import Storage, Trajectory, TrajectoryWriter

xarray = pytest.importorskip("xarray")

GRID = Grid((6, 8), (0.5, 0.25), (Boundary(), Boundary("neumann")))


@pytest.fixture
def outputs(tmp_path):
    """A published experiment of two stages, and the fields that it holds."""
    fields = {}
    artefacts = []
    for number, (stage, names) in enumerate(
        {"simulate": ["train-0000", "test-0000"], "couple": ["surrogate"]}.items()
    ):
        artefact = Artefact(tmp_path / "artefacts", stage, "0123456789")
        with building(artefact, SerialComm()) as folder:
            for name in names:
                values = np.random.default_rng(number).random((5, 2, *GRID.shape))
                fields[f"{stage}/{name}"] = values
                blocks = make_blocks(GRID, (3, 4), 1)
                with TrajectoryWriter(
                    folder,
                    name,
                    blocks,
                    SerialComm(),
                    ["u", "v"],
                    dtype=np.float64,
                    attributes={"condition": {"F": 0.04}},
                    storage=Storage(group=2),
                ) as writer:
                    for frame, value in enumerate(values):
                        writer.append(3.0 * frame, value)
        artefacts.append(artefact)
    folder = tmp_path / "outputs" / "ddm"
    publish(artefacts, folder)
    log = FactLog(folder / "facts" / "facts.jsonl", "couple")
    log.record("sweeps.mean", 2.0)
    log.record("sweeps.mean", 3.0)
    EventLog(folder / "facts", "run", seed=1).start()
    return folder, fields


def test_fields_facts_and_events(outputs):
    folder, fields = outputs
    opened = open_outputs(folder)
    assert sorted(opened) == sorted(fields)
    for name, values in fields.items():
        data = opened[name]
        assert data["u"].dims == ("time", "y", "x") and data["u"].dtype == np.float64
        np.testing.assert_array_equal(data["u"].values, values[:, 0])
        np.testing.assert_array_equal(data["v"].values, values[:, 1])
        np.testing.assert_array_equal(data["time"].values, 3.0 * np.arange(5))
        np.testing.assert_allclose(data["x"].values, 0.25 * (np.arange(8) + 0.5))
        assert json.loads(data.attrs["condition"]) == {"F": 0.04}
        assert data.attrs["boundary"] == ["periodic", "neumann"]
    assert [fact["value"] for fact in opened.facts] == [2.0, 3.0]
    assert opened.latest == {"sweeps.mean": 3.0}
    assert opened.events[0]["meta"]["run_id"] == "run"
    assert opened.fields["simulate/train-0000"]["u"].shape == (5, 6, 8)
    with pytest.raises(KeyError, match="surrogates: not in .*couple/surrogate"):
        opened["couple/surrogates"]
    opened.verify()


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), slice(None), slice(None)),
        (2, slice(1, 5), 3),
        (-1, -1, slice(None)),
        (slice(None, None, 2), slice(5, 0, -2), slice(1, 8, 3)),
        (slice(4, None, -1), 0, slice(None, None, -1)),
        (slice(3, 3), slice(None), 0),
        ([0, 4, 3], slice(None), slice(None)),
        (slice(None), [1, 5], [0, 7, 2]),
    ],
)
def test_any_part_is_read_as_numpy_would(outputs, key):
    folder, fields = outputs
    data = open_outputs(folder)["couple/surrogate"]["v"]
    expected = fields["couple/surrogate"][:, 1]
    for axis in reversed(range(3)):
        expected = expected[(slice(None),) * axis + (key[axis],)]
    np.testing.assert_array_equal(data[key].values, expected)


def test_only_what_is_asked_for_is_read(outputs, monkeypatch):
    folder, _ = outputs
    read, cells = Trajectory.read, []

    def counted(self, *args, **kwargs):
        values = read(self, *args, **kwargs)
        cells.append(values.size)
        return values

    monkeypatch.setattr(Trajectory, "read", counted)
    data = open_outputs(folder)
    assert cells == []
    float(data["couple/surrogate"]["u"].isel(time=2, y=slice(0, 2))[0, 0])
    assert cells == [1]


def test_a_copy_opens_with_nothing_parallel(outputs, tmp_path):
    folder, fields = outputs
    copy = tmp_path / "laptop"
    shutil.copytree(folder, copy)
    shutil.rmtree(folder.parent)
    shutil.rmtree(tmp_path / "artefacts")
    code = f"""
import sys
for name in ("mpi4py", "petsc4py", "torch", "numba", "dask", "matplotlib"):
    sys.modules[name] = None
from scaled_mpi.opening import open_outputs
opened = open_outputs({str(copy)!r})
opened.verify()
print(repr(float(opened["couple/surrogate"]["u"].sum())), len(opened.facts))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    total, facts = answer.stdout.split()
    assert float(total) == pytest.approx(fields["couple/surrogate"][:, 0].sum()) and facts == "2"


def test_what_is_missing_or_damaged_is_named(outputs, tmp_path):
    folder, _ = outputs
    with pytest.raises(InputError, match="no such folder"):
        open_outputs(tmp_path / "none")
    file = folder / "couple" / "surrogate.00000.h5"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    opened = open_outputs(folder)
    with pytest.raises(InputError, match=r"surrogate\.00000\.h5: damaged"):
        opened.verify()
    file.unlink()
    with pytest.raises(InputError, match=r"surrogate\.00000\.h5: missing"):
        open_outputs(folder)


def test_unfinished_folders_are_left_out(outputs):
    folder, fields = outputs
    shutil.copytree(folder / "couple", folder / "couple-1.partial")
    shutil.copytree(folder / "couple", folder / ".couple.new")
    assert sorted(open_outputs(folder)) == sorted(fields)

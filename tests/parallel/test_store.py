"""The store against numpy arrays: values, bytes, every boundary, damage and kills."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.parallel import hdf5
from scaled_mpi.parallel.blocks import Boundary, Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.halo import Halo
from scaled_mpi.parallel.store import (
    Storage,
    Trajectory,
    TrajectoryWriter,
    link_trajectory,
    stored_frames,
    trajectory_names,
)

KINDS = (Boundary(), Boundary("dirichlet", 0.3), Boundary("neumann"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """One empty folder for all ranks."""
    comm = world()
    path = comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None)
    yield Path(path)
    comm.Barrier()
    if comm.rank == 0:
        shutil.rmtree(path)
    comm.Barrier()


def fields(grid: Grid, frames: int = 5, channels: int = 2, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(7).random((frames, channels, *grid.shape)).astype(dtype)


def write(folder, values, grid, tile, comm, name="run", ranks=None, attributes=None, **keys):
    blocks = make_blocks(grid, tile, ranks or comm.size)
    channels = [f"c{i}" for i in range(values.shape[1])]
    how = (values.dtype, attributes, Storage(**keys))
    with TrajectoryWriter(folder, name, blocks, comm, channels, *how) as writer:
        for frame, value in enumerate(values):
            owner = comm.rank < blocks.ranks
            block = blocks.block(comm.rank).slices if owner else ()
            writer.append(0.5 * frame, value[(..., *block)] if owner else None)


def reference(values: np.ndarray, grid: Grid, width: tuple[int, ...]) -> np.ndarray:
    """Pad (C, ...) with the boundary of each axis, one axis after the other."""
    for axis, (boundary, w) in enumerate(zip(grid.boundary, width, strict=True), 1):
        pad = [(0, 0)] * values.ndim
        pad[axis] = (w, w)
        mode = "wrap" if boundary.periodic else "symmetric"
        values = np.pad(values, pad, mode=mode)
        if boundary.kind == "dirichlet" and w:
            for ring in (slice(0, w), slice(-w, None)):
                cut = (slice(None),) * axis + (ring,)
                values[cut] = np.float32(2 * boundary.value) - values[cut]
    return values


@pytest.mark.mpi
@pytest.mark.parametrize("way", ["mpio", "gather"])
@pytest.mark.parametrize(
    ("shape", "tile", "dtype"),
    [
        ((24,), (4,), np.float64),
        ((12, 20), (4, 5), np.float32),
        ((4, 6, 8), (2, 3, 4), np.float32),
    ],
)
def test_any_rank_count_writes_the_same_bytes(folder, monkeypatch, way, shape, tile, dtype):
    if way == "gather":
        monkeypatch.setattr(hdf5, "has_mpi", lambda: False)
    comm, grid = world(), Grid(shape)
    values = fields(grid, dtype=dtype)
    write(folder / "many", values, grid, tile, comm, group=2, attributes={"F": 0.04})
    if comm.rank == 0:
        write(folder / "one", values, grid, tile, SerialComm(), group=2, attributes={"F": 0.04})
        names = sorted(path.name for path in (folder / "one").iterdir())
        assert names == sorted(path.name for path in (folder / "many").iterdir())
        assert len([name for name in names if name.endswith(".h5")]) == 3
        for name in names:
            assert (folder / "one" / name).read_bytes() == (folder / "many" / name).read_bytes()
    run = Trajectory(folder / "many", "run")
    assert run.shape == values.shape and run.dtype == dtype and run.grid == grid
    assert run.attributes == {"F": 0.04} and list(run.times) == [0, 0.5, 1, 1.5, 2]
    np.testing.assert_array_equal(run.read(slice(None)), values)
    np.testing.assert_array_equal(run.read(-1), values[-1])
    run.verify()
    run.close()


@pytest.mark.mpi
def test_ranks_without_a_block_take_part(folder):
    comm, grid = world(), Grid((8, 8))
    values = fields(grid)
    write(folder, values, grid, (4, 8), comm, ranks=max(1, comm.size - 1))
    np.testing.assert_array_equal(Trajectory(folder, "run").read(slice(None)), values)


@pytest.mark.mpi
@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, KINDS)))
def test_reading_beyond_the_domain_is_what_the_halo_exchange_gives(folder, kinds):
    comm, width = world(), (3, 2)
    grid = Grid((8, 12), 1.0, kinds)
    values = fields(grid, frames=1)
    write(folder, values, grid, (4, 3), comm)
    run = Trajectory(folder, "run")
    np.testing.assert_array_equal(run.read(0, None, width), reference(values[0], grid, width))
    blocks = make_blocks(grid, (4, 3), comm.size)
    part = comm.Split(0 if comm.rank < blocks.ranks else 1)
    if comm.rank < blocks.ranks:
        block = blocks.block(comm.rank)
        exchanged = Halo(blocks, part, width)(values[0][(..., *block.slices)])
        np.testing.assert_array_equal(run.read_block(0, block, width), exchanged)


def test_every_tile_with_halo_in_three_axes(tmp_path):
    grid = Grid((4, 6, 4), 1.0, (Boundary("neumann"), Boundary(), Boundary("dirichlet", -1.5)))
    values = fields(grid, frames=2)
    write(tmp_path, values, grid, (2, 3, 2), SerialComm(), group=1)
    run, blocks, width = Trajectory(tmp_path, "run"), make_blocks(grid, (2, 3, 2), 12), (2, 3, 1)
    whole = np.stack([reference(frame, grid, width) for frame in values])
    for rank in range(blocks.ranks):
        block = blocks.block(rank)
        cut = tuple(
            slice(a, a + n + 2 * w) for a, n, w in zip(block.start, block.size, width, strict=True)
        )
        got = run.read(slice(0, 2), block.slices, width)
        np.testing.assert_array_equal(got, whole[(..., *cut)])


def test_periodic_halo_may_be_wider_than_the_domain(tmp_path):
    grid = Grid((4,))
    values = fields(grid, frames=1)
    write(tmp_path, values, grid, (2,), SerialComm())
    got = Trajectory(tmp_path, "run").read(0, (slice(1, 2),), 9)
    np.testing.assert_array_equal(got, values[0][:, np.arange(-8, 11) % 4])


def test_halo_wider_than_a_wall_to_wall_axis_is_refused(tmp_path):
    grid = Grid((4,), 1.0, Boundary("neumann"))
    write(tmp_path, fields(grid), grid, (2,), SerialComm())
    with pytest.raises(InputError, match="halo: 5"):
        Trajectory(tmp_path, "run").read(0, None, 5)


@pytest.mark.mpi
def test_an_interrupted_writing_goes_on_anywhere(folder):
    comm, grid = world(), Grid((8, 12))
    values, blocks = fields(grid, frames=7), make_blocks(Grid((8, 12)), (4, 3), comm.size)
    owner = comm.rank < blocks.ranks
    mine = values[(..., *blocks.block(comm.rank).slices)] if owner else [None] * 7

    def writer(keep):
        storage = Storage(group=3, keep=keep)
        return TrajectoryWriter(folder, "run", blocks, comm, ["c0", "c1"], storage=storage)

    first = writer(0)
    for frame in range(5):
        first.append(frame, mine[frame])
    first.flush()
    assert stored_frames(folder, "run") == 5 and trajectory_names(folder) == []
    with pytest.raises(InputError):
        Trajectory(folder, "run")
    with pytest.raises(InputError, match="has 5 frames. Needed: 6"):
        writer(6)
    writer(4)  # the second file is kept in part; then this one is killed too
    assert stored_frames(folder, "run") == 4
    with writer(4) as second:
        assert second.frames == 4
        for frame in range(4, 7):
            second.append(frame, mine[frame])
    writer(7).close()  # finished, but whoever asked for it was killed before he noted it
    assert stored_frames(folder, "run") == 7 and trajectory_names(folder) == ["run"]
    run = Trajectory(folder, "run")
    run.verify()
    np.testing.assert_array_equal(run.read(slice(None)), values)


def test_a_new_writer_hides_the_old_trajectory_and_spares_the_neighbours(tmp_path):
    grid = Grid((4, 4))
    values = fields(grid)
    for name in ("run", "run.1"):
        write(tmp_path, values, grid, (2, 2), SerialComm(), name=name, group=2)
    blocks = make_blocks(grid, (2, 2), 1)
    writer = TrajectoryWriter(tmp_path, "run", blocks, SerialComm(), ["a"])
    assert trajectory_names(tmp_path) == ["run.1"] and stored_frames(tmp_path, "run") == 0
    np.testing.assert_array_equal(Trajectory(tmp_path, "run.1").read(slice(None)), values)
    writer.append(0, values[0, :1])
    with pytest.raises(ValueError, match="times of trajectory run grow"):
        writer.append(0, values[0, :1])
    with pytest.raises(ValueError, match="field: shape .* is not allowed"):
        writer.append(1, values[0])


def test_planned_times_are_kept(tmp_path):
    blocks = make_blocks(Grid((4,)), (2,), 1)
    planned = Storage(times=[0, 1])
    writer = TrajectoryWriter(tmp_path, "run", blocks, SerialComm(), ["a"], storage=planned)
    with pytest.raises(ValueError, match="planned"):
        writer.append(0.5, np.zeros((1, 4)))
    writer.append(0, np.zeros((1, 4)))
    with pytest.raises(ValueError, match="1 planned frames are missing"):
        writer.close()
    assert trajectory_names(tmp_path) == []


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_xarray_and_paraview_see_the_values(tmp_path, axes):
    xarray = pytest.importorskip("xarray")
    grid = Grid((4, 6, 8)[:axes], (0.5, 0.25, 2.0)[:axes])
    values = fields(grid, frames=3)
    units = {"c0": "kg m-3", "time": "s", "length": "m"}
    write(tmp_path, values, grid, (2, 3, 4)[:axes], SerialComm(), group=2, units=units)
    with xarray.open_dataset(tmp_path / "run.00001.h5", engine="h5netcdf") as data:
        assert data["c0"].dims == ("time", *("z", "y", "x")[3 - axes :])
        assert data["c0"].attrs["units"] == "kg m-3" and data["x"].attrs["units"] == "m"
        np.testing.assert_array_equal(data["c1"].values, values[2:, 1])
        np.testing.assert_array_equal(data["time"].values, [1.0])
        step = grid.spacing[-1]
        np.testing.assert_allclose(data["x"].values, (np.arange(grid.shape[-1]) + 0.5) * step)
    frames = list(ElementTree.parse(tmp_path / "run.xdmf").getroot().iter("Grid"))[1:]
    assert [float(f.find("Time").get("Value")) for f in frames] == [0.0, 0.5, 1.0]
    for frame, value in zip(frames, values, strict=True):
        for attribute, channel in zip(frame.iter("Attribute"), value, strict=True):
            np.testing.assert_array_equal(slab_values(tmp_path, attribute), channel)
        corners = [int(n) for n in frame.find("Topology").get("Dimensions").split()]
        assert corners == [n + 1 for n in (grid.shape if axes > 1 else (1, *grid.shape))]


def slab_values(folder: Path, attribute: ElementTree.Element) -> np.ndarray:
    """What a reader of XDMF takes from the HDF5 file for one attribute."""
    slab, source = attribute.find("DataItem").findall("DataItem")
    start, stride, count = np.array(slab.text.split(), int).reshape(3, -1)
    file, _, name = source.text.partition(":")
    with h5py.File(folder / file) as data:
        dataset = data[name]
        assert list(dataset.shape) == [int(n) for n in source.get("Dimensions").split()]
        assert dataset.dtype.itemsize == int(source.get("Precision"))
        return dataset[tuple(slice(a, a + n, s) for a, s, n in zip(start, stride, count))][0]  # noqa: B905


def test_chunks_are_tiles_but_never_tiny(tmp_path):
    assert hdf5.chunk_of(40, (512, 512), (64, 64), 4) == (1, 64, 64)
    assert hdf5.chunk_of(40, (512, 512), (32, 32), 4) == (4, 32, 32)
    assert hdf5.chunk_of(40, (64, 64), (1, 1), 4) == (40, 2, 64)
    assert hdf5.chunk_of(1, (8, 8), (1, 1), 8) == (1, 8, 8)


def test_every_damage_is_noticed(tmp_path):
    grid, values = Grid((6, 6)), fields(Grid((6, 6)))
    write(tmp_path, values, grid, (3, 3), SerialComm(), group=3)
    generator = np.random.default_rng(3)
    for name in ("run.00000.h5", "run.00001.h5", "run.json"):
        path = tmp_path / name
        good = path.read_bytes()
        for _ in range(60):
            bad = bytearray(good)
            bad[generator.integers(len(bad))] ^= 1 << int(generator.integers(8))
            path.write_bytes(bad)
            with pytest.raises(InputError, match="run"):
                Trajectory(tmp_path, "run").verify()
        path.write_bytes(good[:-7])
        with pytest.raises(InputError):
            Trajectory(tmp_path, "run")
        path.unlink()
        with pytest.raises(InputError):
            Trajectory(tmp_path, "run")
        path.write_bytes(good)
    Trajectory(tmp_path, "run").verify()


def test_names_stay_in_their_folder(tmp_path):
    blocks = make_blocks(Grid((4,)), (2,), 1)
    for name in ("../run", "a/b", "", "..", "a b"):
        with pytest.raises(InputError, match="allowed"):
            TrajectoryWriter(tmp_path, name, blocks, SerialComm(), ["a"])
        with pytest.raises(InputError, match="allowed"):
            Trajectory(tmp_path, name)


def test_a_linked_trajectory_outlives_its_source(tmp_path):
    grid, values = Grid((4, 4)), fields(Grid((4, 4)))
    write(tmp_path / "a", values, grid, (2, 2), SerialComm(), group=2)
    link_trajectory(tmp_path / "a", tmp_path / "b", "run")
    link_trajectory(tmp_path / "a", tmp_path / "b", "run")
    assert (tmp_path / "a/run.00000.h5").samefile(tmp_path / "b/run.00000.h5")
    shutil.rmtree(tmp_path / "a")
    run = Trajectory(tmp_path / "b", "run")
    run.verify()
    np.testing.assert_array_equal(run.read(slice(None)), values)


def test_a_store_file_that_points_elsewhere_is_refused(tmp_path):
    grid, values = Grid((4, 4)), fields(Grid((4, 4)), frames=1)
    write(tmp_path, values, grid, (2, 2), SerialComm())
    with h5py.File(tmp_path / "run.00000.h5", "r+") as file:
        del file["c1"]
        file["c1"] = h5py.ExternalLink("/etc/passwd", "/c1")
    from scaled_mpi.files import seal, sha256

    index = json.loads((tmp_path / "run.json").read_text())
    path = tmp_path / "run.00000.h5"
    index["files"][0] |= {"size": path.stat().st_size, "sha256": sha256(path)}
    (tmp_path / "run.json").write_text(seal(index))
    with pytest.raises(InputError, match="a link"):
        Trajectory(tmp_path, "run").read(0)


WRITER = """
import sys, numpy as np
from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm
from scaled_mpi.parallel.store import Storage, TrajectoryWriter
blocks = make_blocks(Grid((16, 16)), (8, 8), 1)
for run in range(100000):
    if run == 2:  # however slow the disk, there is something to open
        print("ready", flush=True)
    with TrajectoryWriter(sys.argv[1], f"run-{run % 3}", blocks, SerialComm(), ["a"],
                          storage=Storage(group=2)) as writer:
        for frame in range(5):
            writer.append(frame, np.full((1, 16, 16), run * 10 + frame))
"""


def test_a_killed_writer_leaves_nothing_wrong_that_opens(tmp_path):
    generator = np.random.default_rng(11)
    opened = 0
    for kill in range(8):
        folder = tmp_path / str(kill)
        command = [sys.executable, "-c", WRITER, str(folder)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        time.sleep(float(generator.uniform(0.0, 0.4)))
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        for name in trajectory_names(folder) if folder.exists() else []:
            run = Trajectory(folder, name)
            run.verify()
            values = run.read(slice(None))
            expected = values[0, 0, 0, 0] + np.arange(5)
            np.testing.assert_array_equal(
                values, np.broadcast_to(expected[:, None, None, None], (5, 1, 16, 16))
            )
            opened += 1
    assert opened > 0

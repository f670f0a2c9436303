"""Files of others: every format gives the same numbers, and what does not fit gets one line."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from scaled_mpi.config import InputError, parse, plain
from scaled_mpi.datasets import MEMBERS
from scaled_mpi.parallel.blocks import Boundary
from scaled_mpi.parallel.comm import SerialComm, world
from scaled_mpi.parallel.store import Trajectory, trajectory_names

FORMATS = ("hdf5", "netcdf", "npz")
SUFFIX = {"hdf5": "h5", "netcdf": "nc", "npz": "npz"}


def save(path: Path, kind: str, arrays: dict[str, np.ndarray], packed: bool = False) -> None:
    """Write arrays as a user of the format would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "npz":
        (np.savez_compressed if packed else np.savez)(path, **arrays)
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values)
    else:
        import xarray

        data = {
            name: ([f"{name}{axis}" for axis in range(values.ndim)], values)
            for name, values in arrays.items()
        }
        xarray.Dataset(data).to_netcdf(path, engine="h5netcdf")


def dataset(kind: str, **keys: Any) -> Any:
    """A member from plain data, as the configuration gives it."""
    return parse(MEMBERS[kind], {"kind": kind, **keys})


def imported(member: Any, folder: Path) -> dict[str, Trajectory]:
    names = member.import_into(folder, SerialComm())
    assert sorted(names) == trajectory_names(folder)
    return {name: Trajectory(folder, name) for name in names}


def values_of(run: Trajectory) -> np.ndarray:
    return run.read(slice(None))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_array_a_channel(tmp_path, kind):
    u, v = np.random.default_rng(0).random((2, 7, 12, 20))
    for name, shift in (("a", 0), ("b", 1), ("c", 2)):
        save(tmp_path / f"{name}.{SUFFIX[kind]}", kind, {"density": u + shift, "v": v + shift})
    member = dataset(
        kind,
        train=[str(tmp_path / f"*.{SUFFIX[kind]}")],
        axes="tyx",
        time_step=0.5,
        channels={"u": "density", "v": "v"},
        spacing=[0.25, 2.0],
        boundary=["periodic", "dirichlet"],
        boundary_value=[0, 1.5],
        condition={"F": 0.04},
    )
    assert parse(MEMBERS[kind], plain(member)) == member
    runs = imported(member, tmp_path / "store")
    assert sorted(runs) == ["test-0000", "train-0000", "train-0001"]
    for name, shift in (("train-0000", 0), ("train-0001", 1), ("test-0000", 2)):
        run = runs[name]
        expected = np.stack([u + shift, v + shift], axis=1).astype(np.float32)
        np.testing.assert_array_equal(values_of(run), expected)
        np.testing.assert_allclose(run.times, 0.5 * np.arange(7))
        assert run.channels == ("u", "v") and run.grid.spacing == (0.25, 2.0)
        assert run.grid.boundary == (Boundary(), Boundary("dirichlet", 1.5))
        assert run.attributes["condition"] == {"F": 0.04} and run.attributes["jump"] == 1


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("axes", ["ntcyx", "xyctn", "tncxy"])
def test_any_order_of_axes_with_crop_and_stride(tmp_path, kind, axes):
    whole = np.random.default_rng(1).random((3, 9, 2, 10, 12))  # n t c y x
    stored = np.transpose(whole, ["ntcyx".index(axis) for axis in axes])
    path = tmp_path / f"a.{SUFFIX[kind]}"
    save(path, kind, {"fields": stored, "feed": np.array([0.1, 0.2, 0.3]), "rate": np.array(7.0)})
    member = dataset(
        kind,
        train=[str(path)],
        axes=axes,
        array="fields",
        channels=["p", "q"],
        dtype="float64",
        crop={"t": [1, 8], "x": [2, 10]},
        stride={"t": 3, "y": 2},
        time_step=2.0,
        held_out=2,
        spacing=0.5,
        condition={"F": "feed", "k": "rate"},
    )
    runs = imported(member, tmp_path / "store")
    assert sorted(runs) == ["test-0000", "test-0001", "train-0000"]
    for number, name in enumerate(("train-0000", "test-0000", "test-0001")):
        run = runs[name]
        np.testing.assert_array_equal(values_of(run), whole[number, 1:8:3, :, ::2, 2:10])
        assert run.dtype == np.float64 and run.grid.spacing == (1.0, 0.5)
        np.testing.assert_allclose(run.times, [0, 6, 12])
        condition = run.attributes["condition"]
        assert condition["F"] == pytest.approx(0.1 * (number + 1)) and condition["k"] == 7
        assert run.attributes["jump"] == 3


@pytest.mark.parametrize("engine", ["scipy", "h5netcdf"])
def test_packed_netcdf_of_either_generation(tmp_path, engine):
    import xarray

    stored = np.arange(4 * 3 * 5).reshape(4, 3, 5).astype("i2")
    packing = {"scale_factor": 0.5, "add_offset": -3.0, "_FillValue": np.int16(-1)}
    data = xarray.Dataset({"u": (("time", "lat", "lon"), stored, packing)})
    path = str(tmp_path / "a.nc")
    data.to_netcdf(path, engine=engine)
    member = dataset("netcdf", train=[path], test=[path], channels=["u"])
    run = imported(member, tmp_path / "store")["train-0000"]
    np.testing.assert_array_equal(values_of(run)[:, 0], stored * np.float32(0.5) - 3)
    data["u"].values[1, 2, 4] = -1
    data.to_netcdf(path, engine=engine)
    with pytest.raises(InputError, match=r"frame 1, cell \(2, 4\) is not finite"):
        member.import_into(tmp_path / "again", SerialComm())


@pytest.mark.parametrize("space", ["x", "zyx"])
def test_one_and_three_axes(tmp_path, space):
    values = np.random.default_rng(2).random((5, 4, 6, 8)[: 1 + len(space)])
    save(tmp_path / "a.npz", "npz", {"u": values}, packed=True)
    member = dataset("npz", train=[str(tmp_path / "a.npz")], axes="t" + space, channels=["u"])
    run = imported(member, tmp_path / "store")["train-0000"]
    np.testing.assert_array_equal(values_of(run)[:, 0], values[:4].astype(np.float32))


def test_of_a_single_run_the_last_quarter_is_the_test(tmp_path):
    values = np.random.default_rng(3).random((16, 8, 8))
    path = str(tmp_path / "a.npz")
    save(Path(path), "npz", {"u": values})
    runs = imported(dataset("npz", train=[path], channels=["u"]), tmp_path / "quarter")
    np.testing.assert_array_equal(values_of(runs["train-0000"])[:, 0], values[:12].astype("f4"))
    np.testing.assert_array_equal(values_of(runs["test-0000"])[:, 0], values[12:].astype("f4"))
    more = dataset("npz", train=[path], channels=["u"], test_frames=10)
    assert imported(more, tmp_path / "more")["test-0000"].shape[0] == 10
    both = dataset("npz", train=[path], test=[path], channels=["u"])
    assert {run.shape[0] for run in imported(both, tmp_path / "both").values()} == {16}


def well(path: Path, values: np.ndarray, vectors: np.ndarray, kind: str = "PERIODIC") -> None:
    """A file of The Well: values (n, T, X, Y), vectors (n, T, X, Y, 2)."""
    runs, frames, *cells = values.shape
    with h5py.File(path, "w") as file:
        file.attrs.update({"n_trajectories": runs, "n_spatial_dims": 2, "dataset_name": "gs"})
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        dimensions["time"] = (10.0 * np.arange(frames)).astype("f4")
        for name, count, step in zip("xy", cells, (0.5, 0.25), strict=True):
            dimensions[name] = (-1 + step * np.arange(count)).astype("f4")
            edge = file.create_group(f"boundary_conditions/{name}_edge")
            edge.attrs.update({"bc_type": kind, "associated_dims": [name]})
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["F", "k", "forcing"]
        for name, given, varying in (("F", 0.014, False), ("k", [0.05, 0.06], False)):
            scalars[name] = np.float32(given)
            scalars[name].attrs.update({"time_varying": varying, "sample_varying": name == "k"})
        scalars["forcing"] = np.zeros(frames, "f4")
        scalars["forcing"].attrs["time_varying"] = True
        for name in ("B", "A"):
            field = file.create_dataset(f"t0_fields/{name}", data=values + (name == "B"))
            field.attrs.update({"time_varying": True, "sample_varying": True})
        file["t0_fields/mask"] = values[:, 0]
        file["t0_fields/mask"].attrs.update({"time_varying": False, "sample_varying": True})
        file["t1_fields/velocity"] = vectors


def test_the_well(tmp_path):
    generator = np.random.default_rng(4)
    values = generator.random((2, 6, 8, 12)).astype("f4")
    vectors = generator.random((2, 6, 8, 12, 2)).astype("f4")
    well(tmp_path / "a.hdf5", values, vectors)
    runs = imported(dataset("well", train=[str(tmp_path / "a.hdf5")]), tmp_path / "store")
    for number, name in enumerate(("train-0000", "test-0000")):
        run = runs[name]
        assert run.channels == ("A", "B", "velocity_x", "velocity_y")
        assert run.shape == (6, 4, 12, 8) and run.grid.spacing == pytest.approx((0.25, 0.5))
        assert run.grid.boundary == (Boundary(), Boundary())
        got = values_of(run)
        np.testing.assert_array_equal(got[:, 0], values[number].transpose(0, 2, 1))
        np.testing.assert_array_equal(got[:, 1], values[number].transpose(0, 2, 1) + 1)
        np.testing.assert_array_equal(got[:, 3], vectors[number, ..., 1].transpose(0, 2, 1))
        np.testing.assert_allclose(run.times, 10.0 * np.arange(6))
        expected = {"F": np.float32(0.014), "k": np.float32([0.05, 0.06][number])}
        assert run.attributes["condition"] == expected


def test_the_well_with_chosen_channels_and_walls(tmp_path):
    values = np.random.default_rng(5).random((2, 6, 8, 12)).astype("f4")
    well(tmp_path / "a.hdf5", values, values[..., None].repeat(2, -1), kind="WALL")
    keys = {"train": [str(tmp_path / "a.hdf5")], "channels": ["velocity_y", "B"]}
    run = imported(dataset("well", **keys), tmp_path / "store")["train-0000"]
    assert run.channels == ("velocity_y", "B")
    assert run.grid.boundary == (Boundary("neumann"),) * 2
    with pytest.raises(InputError, match="mask.*Needed: A, B, velocity_x, velocity_y"):
        dataset("well", **{**keys, "channels": ["mask"]}).plan()
    well(tmp_path / "a.hdf5", values, values[..., None].repeat(2, -1), kind="mystery")
    with pytest.raises(InputError, match="'mystery' of y"):
        dataset("well", **keys).plan()
    assert dataset("well", **keys, boundary="periodic").plan()[0][0].boundary == (Boundary(),) * 2


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


@pytest.mark.mpi
@pytest.mark.parametrize("kind", FORMATS)
def test_ranks_import_together(folder, kind):
    comm, path = world(), folder / f"a.{SUFFIX[kind]}"
    values = np.random.default_rng(6).random((5, 2, 16, 24)).astype("f4")
    if comm.rank == 0:
        save(path, kind, {"fields": values})
    comm.Barrier()
    member = dataset(
        kind, train=[str(path)], axes="tcyx", array="fields", channels=["p", "q"], test_frames=2
    )
    names = member.import_into(folder / "store", comm)
    assert names == ["train-0000", "test-0000"]
    run = Trajectory(folder / "store", "train-0000")
    np.testing.assert_array_equal(values_of(run), values[:3])
    index = folder / "store" / "train-0000.json"
    before = index.stat().st_mtime_ns
    comm.Barrier()
    assert member.import_into(folder / "store", comm) == names
    assert index.stat().st_mtime_ns == before  # complete ones stay


@pytest.mark.mpi
def test_a_value_that_is_not_finite_is_named_on_all_ranks(folder):
    comm, path = world(), folder / "a.npz"
    values = np.zeros((4, 32, 24))
    values[2, 31, 5] = np.nan
    if comm.rank == 0:
        save(path, "npz", {"u": values})
    comm.Barrier()
    member = dataset("npz", train=[str(path)], test=[str(path)], channels=["u"])
    with pytest.raises(InputError, match=r"a\.npz:u: frame 2, cell \(31, 5\) is not finite"):
        member.import_into(folder / "store", comm)
    assert trajectory_names(folder / "store") == []


def test_a_value_too_large_for_the_type_is_refused(tmp_path):
    save(tmp_path / "a.npz", "npz", {"u": np.full((4, 8), 1e300)})
    keys = {"train": [str(tmp_path / "a.npz")], "channels": ["u"], "axes": "tx"}
    with pytest.raises(InputError, match="not finite in float32"):
        dataset("npz", **keys).import_into(tmp_path / "a", SerialComm())
    dataset("npz", **keys, dtype="float64").import_into(tmp_path / "b", SerialComm())


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a file was run')",))


@pytest.mark.parametrize("kind", FORMATS)
def test_broken_and_hostile_files_get_one_line(tmp_path, kind):
    path = tmp_path / f"a.{SUFFIX[kind]}"
    keys = {"train": [str(path)], "channels": ["u"]}

    def refused(match, **more):
        with pytest.raises(InputError, match=match) as caught:
            dataset(kind, **{**keys, **more}).plan()
        assert "\n" not in str(caught.value)

    refused("no such file")
    refused("no such file", train=[str(tmp_path / "*.none")])
    path.write_bytes(b"nothing of the kind")
    refused("readable")
    save(path, kind, {"u": np.zeros((4, 6, 8))})
    refused("v: not there. Needed: .*u", channels=["v"])
    refused("shape", axes="tx")
    refused("shape", axes="ntyx")
    refused("held_out: 1", held_out=1)
    refused("test_frames: 4", test_frames=4)
    refused("crop.t", crop={"t": [0, 5]})
    refused("crop", crop={"z": [0, 1]})
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    refused("readable")


def test_pickles_are_refused_and_never_run(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, u=np.array([Hostile()], dtype=object))
    with pytest.raises(InputError, match="pickled"):
        dataset("npz", train=[str(path)], channels=["u"]).plan()
    np.savez_compressed(path, u=np.array(["text"]))
    with pytest.raises(InputError, match="Needed: (plain )?numbers"):
        dataset("npz", train=[str(path)], channels=["u"]).plan()


@pytest.mark.parametrize("kind", ["hdf5", "netcdf"])
def test_files_that_point_to_others_are_refused(tmp_path, kind):
    secret = tmp_path / "secret.h5"
    values = np.zeros((4, 6, 8))
    save(secret, "hdf5", {"u": values})
    (tmp_path / "raw").write_bytes(values.tobytes())
    layout = h5py.VirtualLayout(values.shape, "f8")
    layout[:] = h5py.VirtualSource(secret, "u", values.shape)
    made = {
        "external": lambda f: f.__setitem__("u", h5py.ExternalLink(str(secret), "/u")),
        "soft": lambda f: (
            f.create_dataset("w", data=values),
            f.__setitem__("u", h5py.SoftLink("/w")),
        ),
        "virtual": lambda f: f.create_virtual_dataset("u", layout),
        "raw": lambda f: f.create_dataset(
            "u", values.shape, "f8", external=[(str(tmp_path / "raw"), 0, values.nbytes)]
        ),
    }
    for name, make in made.items():
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(InputError, match="allowed|readable|not there|Needed"):
            dataset(kind, train=[str(path)], channels=["u"]).plan()


def test_a_mapping_that_cannot_be_is_refused_before_any_file(tmp_path):
    keys = {"train": ["a.npz"], "channels": ["u"]}
    for change, match in (
        ({"axes": "yx"}, "axes"),
        ({"axes": "tyz"}, "axes"),
        ({"axes": "ttx"}, "axes"),
        ({"axes": "tcx"}, "array"),
        ({"array": "all"}, "array"),
        ({"axes": "tcx", "array": "all", "channels": {"u": "v"}}, "list of names"),
        ({"channels": []}, "channels"),
        ({"channels": ["../u"]}, "channels"),
        ({"spacing": [1.0, 1.0, 1.0]}, "spacing"),
        ({"spacing": -1.0}, "spacing"),
        ({"boundary": "robin"}, "boundary"),
        ({"train": []}, "train"),
        ({"paths": "a"}, "unknown key"),
    ):
        with pytest.raises(InputError, match=match):
            dataset("npz", **{**keys, **change})


def test_the_fingerprint_follows_the_files(tmp_path):
    path = tmp_path / "a.npz"
    save(path, "npz", {"u": np.zeros((4, 8))})
    member = dataset("npz", train=[str(path)], channels=["u"], axes="tx")
    before = member.fingerprint()
    assert member.fingerprint() == before
    save(path, "npz", {"u": np.ones((4, 8))})
    assert member.fingerprint() != before

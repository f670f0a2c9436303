"""The Python interface gives the bits of the stages, on one process and on several ranks."""

from pathlib import Path

import numpy as np
import pytest

import scaled_mpi as sm
from scaled_mpi.config import InputError
from scaled_mpi.experiments import load as load_experiment
from scaled_mpi.parallel.comm import world

xarray = pytest.importorskip("xarray")
pytest.importorskip("torch")

SMOKE = Path(__file__).resolve().parents[1] / "configs" / "smoke" / "ddm.yaml"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Results of the smoke experiment by its YAML file."""
    return sm.run(SMOKE, outputs=tmp_path_factory.mktemp("yaml"))


def notebook(folder):
    """The main job of `configs/smoke/ddm.yaml` in ten lines; everything that they leave."""
    system = sm.GrayScott(pattern="waves")
    frames = {"frames": 12, "every": 20}
    runs = sm.simulate(system, (32, 32), runs=4, burn_in=200, seed=1, folder=folder, **frames)
    truth = sm.simulate(system, (64, 64), frames=7, every=20, burn_in=400, seed=1, first=sm.TEST)
    training = {"steps": 40, "batch": 8, "micro_batches": 4, "validate_every": 20}
    net = sm.Stepper(jump=20, reach=8, width=16, patch=16, held_out=1, training=training)
    model = sm.fit(net, runs, seed=1)
    forecast = sm.couple(model, truth, tile=(16, 16), halo=4, sweeps=4)
    return runs, truth, model, forecast, sm.score(forecast, truth)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    return notebook(tmp_path_factory.mktemp("runs"))


def test_the_notebook_gives_the_bits_of_the_stages(outputs, book):
    runs, truth, _, forecast, scores = book
    for number in range(4):
        one = outputs[f"simulate/train-{number:04d}"]
        np.testing.assert_array_equal(runs["u"].isel(run=number), one["u"])
    stored = outputs["simulate/test-0000"]
    np.testing.assert_array_equal(truth["v"], stored["v"])
    np.testing.assert_array_equal(truth["time"], stored["time"])
    for channel in ("u", "v"):
        np.testing.assert_array_equal(forecast[channel], outputs["couple/surrogate"][channel])
    np.testing.assert_array_equal(forecast["time"], outputs["couple/surrogate"]["time"])
    for method, name in (("forecast", "surrogate"), ("persistence",) * 2, ("quadratic",) * 2):
        mine = float(scores["vrmse"].sel(predictor=method, lead=1).mean())
        assert mine == pytest.approx(outputs.latest[f"vrmse.jump1.{name}"], rel=1e-12)


def test_a_loaded_model_advances_as_the_stage_couples(outputs):
    model = sm.load(outputs.path)
    known = outputs["simulate/test-0000"].isel(time=slice(0, 3))
    forecast = model.advance(known, jumps=4)
    for channel in ("u", "v"):
        np.testing.assert_array_equal(forecast[channel], outputs["couple/surrogate"][channel])
    # The same from an array without labels, and on a domain of another shape.
    array = np.stack([known[channel].isel(time=-1).values for channel in ("u", "v")])
    again = model.advance(array, jumps=4)
    np.testing.assert_array_equal(again["u"], forecast["u"])
    np.testing.assert_allclose(again["time"].diff("time"), 20.0)
    wide = model.advance(np.tile(array, (1, 1, 2)), jumps=1, halo=8)
    narrow = model.advance(array, jumps=1, halo=8)
    np.testing.assert_array_equal(wide["u"], np.tile(narrow["u"].values, (1, 1, 2)))


def test_everything_that_is_returned_goes_to_netcdf_and_back(book, tmp_path):
    runs, truth, model, forecast, scores = book
    for name, fields in (("runs", runs), ("forecast", forecast), ("scores", scores)):
        fields.to_netcdf(tmp_path / f"{name}.nc")
        xarray.testing.assert_equal(xarray.open_dataset(tmp_path / f"{name}.nc"), fields)
    truth.to_netcdf(tmp_path / "truth.nc")
    copied = xarray.open_dataset(tmp_path / "truth.nc")
    again = sm.couple(model, copied, tile=(16, 16), halo=4, sweeps=4)
    xarray.testing.assert_equal(again, forecast)


def test_a_part_of_a_stored_run_is_that_part(book):
    _, truth, model, _, _ = book
    late = sm.couple(model, truth.isel(time=slice(2, None)), 1, start=0, tile=(16, 16), halo=8)
    same = sm.couple(model, truth, 1, start=2, tile=(16, 16), halo=8)
    xarray.testing.assert_equal(late, same)
    changed = sm.couple(model, 1.01 * truth, 1, start=2, tile=(16, 16), halo=8)
    assert not np.array_equal(changed["u"], same["u"])


def test_a_shipped_name_is_a_model():
    model = sm.load("ddm")
    state = sm.simulate(sm.GrayScott(pattern="waves"), (128, 128), frames=2, every=50, burn_in=500)
    forecast = model.advance(state.isel(time=[0]), jumps=1)
    scores = sm.score(forecast, state)["vrmse"].mean("channel").sel(lead=1)
    assert list(scores["predictor"].values) == ["forecast"]
    assert float(scores.sel(predictor="forecast")) < 0.05


def test_an_experiment_runs_from_a_tree_of_keys(tmp_path):
    tree = {
        "kind": "gaussian",
        "name": "small",
        "generation": {
            "domains": [{"shape": [64], "tile": [16], "halo": 4, "overlap": 8, "lengths": [4]}],
            "steps": 4,
        },
    }
    left = sm.run(tree, {"generation.kernels": ["exponential"]}, outputs=tmp_path)
    assert left.report.is_file() and 0 < left.latest["cov.error.tiled"] < 1


def test_epochs_stand_in_place_of_steps(book, tmp_path):
    training = {"epochs": 1, "batch": 32, "micro_batches": 1, "validate_every": 5, "warmup": 1}
    net = sm.Stepper(jump=20, reach=8, width=16, patch=16, held_out=1, training=training)
    sm.fit(net, book[0].isel(time=slice(0, 6)), folder=tmp_path)
    events = (tmp_path / "fit" / "events.jsonl").read_text().splitlines()
    assert '"steps": 2' in events[-1]  # 3 runs, 5 jumps, 4 patches: 60 samples


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, t: sm.simulate(sm.GrayScott(), (32, 32)), "frames is missing"),
        (lambda m, t: sm.simulate(sm.GrayScott(), (32, 32), frames=0), "frames: 0 is not allowed"),
        (
            lambda m, t: sm.simulate(sm.GrayScott(), (32, 32), steps=1),
            "recording: steps is not allowed: steps is unknown",
        ),
        (lambda m, t: sm.simulate(object(), (32, 32), frames=1), "advance"),
        (lambda m, t: m.advance(t, jumps=0), "jumps: 0 is not allowed"),
        (lambda m, t: m.advance(t, tile=(60, 64)), "tile: [60, 64] is not allowed"),
        (lambda m, t: m.advance(t, tile=(16, 16), halo=17), "halo: [17, 17]"),
        (lambda m, t: m.advance(np.zeros((3, 64, 64))), "3 channels are not allowed"),
        (lambda m, t: m.advance(np.full((2, 64, 64), np.nan)), "not finite"),
        (lambda m, t: sm.couple(m, t, start=6), "jumps: None is not allowed"),
        (lambda m, t: sm.score(t.assign_coords(time=t["time"] + 1e4), t), "forecast: its times"),
        (lambda m, t: sm.load("nothing"), "nothing"),
        (lambda m, t: sm.load("ddm", rival="x"), "rival: x is not allowed"),
        (lambda m, t: sm.GrayScott(dt=9), "dt: 9"),
        (lambda m, t: sm.run({"name": "x", "kind": "y"}), "kind: y is not allowed"),
    ],
)
def test_bad_arguments_are_one_line(book, call, words):
    with pytest.raises(InputError) as caught:
        call(book[2], book[1])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_in_use_is_refused_and_nothing_is_lost(book, tmp_path):
    system, frames = sm.GrayScott(), {"frames": 2, "every": 5}
    kept = sm.simulate(system, (32, 32), folder=tmp_path, **frames)
    before = kept["u"].isel(time=1).values.copy()
    with pytest.raises(InputError, match="is not allowed: it holds run-0000"):
        sm.simulate(system, (32, 32), seed=5, folder=tmp_path, **frames)
    np.testing.assert_array_equal(kept["u"].isel(time=1), before)
    sm.couple(book[2], book[1], 1, folder=tmp_path)
    with pytest.raises(InputError, match="it holds forecast"):
        sm.couple(book[2], book[1], 1, folder=tmp_path)
    sm.couple(book[2], book[1], 1, member=1, folder=tmp_path)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="GreyScott"):
        sm.GreyScott  # noqa: B018


@pytest.mark.mpi
def test_ranks_give_the_bits_of_one_process(mpi_tmp_path):
    """The whole notebook on all ranks, and the settings of the YAML file beside it."""
    experiment = load_experiment(SMOKE)
    assert experiment.surrogate.width == 16
    _, _, model, forecast, scores = notebook(mpi_tmp_path)
    values = np.stack([forecast["u"].values, forecast["v"].values])
    parts = world().allgather((values.tobytes(), scores["vrmse"].values.tobytes()))
    assert len(set(parts)) == 1
    alone = sm.couple(model, forecast, 1, start=0, tile=(64, 64), halo=8)
    tiled = sm.couple(model, forecast, 1, start=0, tile=(16, 16), halo=8)
    np.testing.assert_allclose(alone["u"], tiled["u"], atol=1e-5)

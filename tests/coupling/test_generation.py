"""Fused tile denoisers against Gaussian fields whose covariance is known."""

from pathlib import Path

import numpy as np
import pytest

from scaled_mpi.config import InputError
from scaled_mpi.coupling.generation import (
    FUSIONS,
    CoarseCorrection,
    TiledDenoiser,
    block_means,
    check_fusion,
)
from scaled_mpi.coupling.responses import Impulses, compare, symmetry
from scaled_mpi.experiments import load
from scaled_mpi.facts import read_facts
from scaled_mpi.learning.gaussian import (
    StationaryDenoiser,
    WindowDenoiser,
    block_covariance,
    field_covariance,
)
from scaled_mpi.learning.samplers import CellNoise, sample
from scaled_mpi.learning.schedules import VariancePreserving
from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.comm import SerialComm, first_ranks, world
from scaled_mpi.parallel.halo import gather_field
from scaled_mpi.parallel.streams import cell_indices
from scaled_mpi.run import main

SCHEDULE = VariancePreserving(zero_terminal_snr=True, sigma_min=0.01)
SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke" / "gaussian_fields.yaml"


def fused(fusion, kernel, length, blocks, comm, *, halo, overlap, block=0):
    """The denoiser of a field from tiles; with `block`, corrected."""
    covariance = field_covariance(kernel, length, blocks.grid.shape)
    local = TiledDenoiser(
        blocks,
        comm,
        fusion,
        lambda extent: WindowDenoiser(covariance, extent, SCHEDULE),
        halo=halo,
        overlap=overlap,
    )
    if not block:
        return local
    noise = block ** (-len(blocks.tile) / 2)
    small = block_covariance(covariance, block)
    return CoarseCorrection(local, StationaryDenoiser(small, SCHEDULE, noise), block)


def judged(fusion, kernel, length, shape, tile, steps=40, **windows):
    """What the sampler makes of it, against the field that was asked for."""
    blocks, comm = make_blocks(Grid(shape), tile, 1), SerialComm()
    denoise = fused(fusion, kernel, length, blocks, comm, **windows)
    which = symmetry(shape, tile)
    made = sample(denoise, Impulses(which, blocks.block(0)), SCHEDULE, steps)
    return compare(made, field_covariance(kernel, length, shape), which)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_weights_of_a_cell_sum_to_one(fusion):
    total = np.zeros(48)
    for start in range(0, 48, 16):
        for piece in FUSIONS[fusion](16, 4, 8):
            np.add.at(total, (start + piece.offset + np.arange(piece.extent)) % 48, piece.weight)
    np.testing.assert_allclose(total, 1.0, atol=1e-14)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(("shape", "tile"), [((24,), (8,)), ((8, 8), (4, 4)), ((8, 12), (4, 4))])
def test_covariance_from_one_tile_is_that_of_all_cells(fusion, shape, tile):
    blocks, comm = make_blocks(Grid(shape), tile, 1), SerialComm()
    denoise = fused(fusion, "exponential", 3.0, blocks, comm, halo=2, overlap=tile[0] // 2)
    cells = int(np.prod(shape))
    every = np.eye(cells).reshape(cells, *shape)
    answers = sample(denoise, lambda k: every, SCHEDULE, 6).reshape(cells, cells)
    truth = field_covariance("exponential", 3.0, shape)
    index = np.indices(shape).reshape(len(shape), -1)
    wanted = truth[tuple((i[:, None] - i[None]) % n for i, n in zip(index, shape, strict=True))]
    made = answers.T @ answers
    which = symmetry(shape, tile)
    responses = sample(denoise, Impulses(which, blocks.block(0)), SCHEDULE, 6)
    found = compare(responses, truth, which)
    assert found.error == pytest.approx(
        np.linalg.norm(made - wanted) / np.linalg.norm(wanted), rel=1e-8
    )
    assert found.ratio == pytest.approx(np.trace(made) / np.trace(wanted), rel=1e-8)
    assert found.curve[0] == pytest.approx(np.trace(made) / cells, rel=1e-8)


@pytest.mark.parametrize("length", [4, 8, 16, 32])
@pytest.mark.parametrize("kernel", ["squared_exponential", "exponential"])
def test_the_coarse_correction_keeps_the_covariance(kernel, length):
    """Tile / 8 to tile, blocks of a quarter of the length: error <= .03, variance within 2 %."""
    found = judged(
        "crop", kernel, float(length), (256,), (32,), halo=8, overlap=16, block=length // 4
    )
    assert found.error <= 0.03
    assert 0.98 <= found.ratio <= 1.02


def test_what_one_level_loses():
    """At a correlation length of a tile nothing local does; nor do blocks wider than a quarter."""
    common = {
        "kernel": "exponential",
        "length": 32.0,
        "shape": (256,),
        "tile": (32,),
        "halo": 8,
        "overlap": 16,
    }
    errors = {fusion: judged(fusion, **common).error for fusion in FUSIONS}
    assert errors["average"] > errors["window"] > errors["crop"] > errors["collage"] > 0.25
    assert judged("crop", **common, block=8).error < 0.1 * errors["collage"]
    common["length"] = 8.0
    fine, wide = (judged("crop", **common, block=block).error for block in (2, 8))
    assert wide > 2 * fine


def test_two_axes():
    common = {
        "kernel": "exponential",
        "length": 8.0,
        "shape": (32, 32),
        "tile": (8, 8),
        "halo": 2,
        "overlap": 4,
    }
    found = judged("crop", **common, block=2)
    assert found.error <= 0.03
    assert 0.98 <= found.ratio <= 1.02
    assert judged("crop", **common).error > 0.3


def test_the_correction_gives_what_the_coarse_denoiser_says():
    blocks = make_blocks(Grid((16, 16)), (8, 8), 1)
    denoise = fused("crop", "exponential", 6.0, blocks, SerialComm(), halo=2, overlap=4, block=4)
    x = np.random.default_rng(0).standard_normal((3, 16, 16))
    np.testing.assert_allclose(
        block_means(denoise(x, 0.5), 2, 4), denoise.coarse(block_means(x, 2, 4), 0.5), atol=1e-12
    )


@pytest.mark.mpi
@pytest.mark.parametrize("fusion", FUSIONS)
def test_any_number_of_ranks_makes_the_same_sample(fusion):
    grid, tile = Grid((24, 32)), (8, 8)

    def made(comm):
        blocks = make_blocks(grid, tile, comm.size)
        comm = first_ranks(comm, blocks.ranks)
        if comm is None:
            return None
        denoise = fused(fusion, "exponential", 8.0, blocks, comm, halo=4, overlap=4, block=2)
        noise = CellNoise(3, cell_indices(blocks.block(comm.rank), grid.shape), channels=2)
        field = sample(denoise, noise, SCHEDULE, 6, "sde")
        return gather_field(blocks, comm, np.ascontiguousarray(field))

    together = made(world())
    if together is not None:
        alone = made(SerialComm())
        np.testing.assert_allclose(together, alone, atol=1e-6 if fusion != "crop" else 0)
        assert alone.std() > 0.3


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("halo", {"halo": 9}),
        ("overlap", {"overlap": 5}),
        ("overlap", {"overlap": 3}),
        ("fusion", {"name": "mean"}),
    ],
)
def test_windows_that_do_not_fit_are_refused(key, change):
    with pytest.raises(InputError, match=f"generation.{key}: "):
        check_fusion(**{"name": "crop", "tile": (8, 8), "halo": 2, "overlap": 4, **change})


def test_blocks_that_do_not_fill_a_tile_are_refused():
    with pytest.raises(InputError, match="block: 3 is not allowed: .* divisors of the tile"):
        fused(
            "crop",
            "exponential",
            8.0,
            make_blocks(Grid((24,)), (8,), 1),
            SerialComm(),
            halo=2,
            overlap=4,
            block=3,
        )


def refused(*overrides):
    with pytest.raises(InputError) as told:
        load(SMOKE, overrides)
    return str(told.value)


def test_bad_input_is_one_line():
    domain = '[{"shape": [64], "tile": [16], "halo": 17, "overlap": 8, "lengths": [8]}]'
    assert "halo: 17 is not allowed: wider than a tile. Allowed: 0 to 16" in refused(
        f"generation.domains={domain}"
    )
    assert "tile: [15]" in refused(f"generation.domains={domain.replace('[16]', '[15]')}")
    assert "zero_terminal_snr" in refused("schedule=ve", "schedule.zero_terminal_snr=true")
    assert "\n" not in refused("generation.sampler=sde")


def test_the_experiment_from_end_to_end(tmp_path):
    assert main([str(SMOKE), "--outputs", str(tmp_path)]) == 0
    folder = tmp_path / "smoke-gaussian_fields"
    facts = {
        (f["name"], f.get("method")): f["value"]
        for f in read_facts(folder / "facts" / "facts.jsonl")
    }
    assert facts["cov.error.tiled", None] < 0.05
    assert 0.95 < facts["variance.ratio", None] < 1.05
    assert facts["cov.error.tiled.1d.exponential.l16", "average"] > 0.3
    assert facts["coarse.block.1d.l16", None] == 4
    page = (folder / "report.html").read_text()
    assert "coarse score correction" in page
    assert page.count("<svg") >= 3

"""Random streams: Random123's known answers, independence of the split, moments."""

import numpy as np
import pytest

from scaled_mpi.parallel.blocks import Grid, make_blocks
from scaled_mpi.parallel.streams import (
    cell_indices,
    integers,
    normal,
    philox,
    uniform,
)

# The kat_vectors file of Random123 1.14 (D. E. Shaw Research), rows "philox4x32 10".
KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text):
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize("counter,key,answer", KNOWN)
def test_known_answers(counter, key, answer):
    state = [np.full(3, word, np.uint64) for word in words(counter)]
    result = philox(state, words(key))
    assert np.array_equal(np.stack(result), np.repeat(np.array(words(answer))[:, None], 3, axis=1))


def test_the_layout_of_the_counter():
    cell, seed, step, stream = (7 << 32) + 5, (9 << 32) + 4, 3, 2
    low = philox([np.uint64(w) for w in (5, 7, step, (stream << 16) + 1)], (4, 9))
    bits = [int(low[1]) << 32 | int(low[0]), int(low[3]) << 32 | int(low[2])]
    expected = [((b >> 12) + 0.5) / 2**52 for b in bits]
    assert np.array_equal(uniform(seed, step, np.array(cell), 4, stream)[2:], expected)


@pytest.mark.parametrize("draw", [uniform, normal, lambda *a: integers(*a[:3], 1000, *a[3:])])
def test_values_do_not_depend_on_the_split(draw):
    shape = (36, 60)
    whole = draw(5, 11, np.arange(36 * 60).reshape(shape), 3)
    for ranks in (2, 3, 7, 64):
        blocks = make_blocks(Grid(shape), (3, 5), ranks)
        for rank in range(blocks.ranks):
            block = blocks.block(rank)
            mine = draw(5, 11, cell_indices(block, shape), 3)
            assert np.array_equal(mine, whole[(slice(None), *block.slices)])


def test_values_do_not_depend_on_neighbours_in_the_array():
    """Vector units must not give the last elements of an array other bits."""
    cells = np.arange(20011)
    whole = normal(1, 2, cells)
    for start, stop in [(0, 1), (3, 10), (8191, 8193), (17, 20011), (19999, 20011)]:
        assert np.array_equal(normal(1, 2, cells[start:stop]), whole[start:stop])
    assert np.array_equal(normal(1, 2, cells[::-7]), whole[::-7])


def test_draws_extend_and_keys_differ():
    cells = np.arange(1000)
    assert np.array_equal(normal(1, 2, cells, 5)[:3], normal(1, 2, cells, 3))
    assert np.array_equal(normal(1, 2, cells, 1)[0], normal(1, 2, cells))
    base = uniform(1, 2, cells)
    for other in (
        uniform(2, 2, cells),
        uniform(1, 3, cells),
        uniform(1, 2, cells + 1000),
        uniform(1, 2, cells, stream=1),
        uniform(1, 2, cells, 2)[1],
        uniform(1, 2, cells, 3)[2],
        uniform(1 << 32 | 1, 2, cells),
        uniform(1, 2, cells + (1 << 32)),
    ):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.13


def test_moments_and_range():
    cells = np.arange(400_000)
    u, z = uniform(3, 0, cells), normal(3, 0, cells, 2)
    assert 0 < u.min() and u.max() < 1
    counts = np.histogram(u, 100, (0, 1))[0]
    assert np.sum((counts - 4000) ** 2 / 4000) < 160  # chi^2 of 99 degrees, p = 1e-4
    root = np.sqrt(cells.size)
    for values in z:
        assert abs(values.mean()) < 4 / root
        assert abs(values.var() - 1) < 4 * np.sqrt(2) / root
        assert abs(np.mean(values**3)) < 4 * np.sqrt(15) / root
        assert abs(np.mean(values**4) - 3) < 4 * np.sqrt(96) / root
    assert abs(np.mean(z[0] * z[1])) < 4 / root


def test_integers_are_the_floor_of_the_exact_product():
    cells = np.arange(2000)
    for high in (1, 6, 1000, (1 << 32) - 1, 1 << 32):
        assert integers(8, 1, cells, high).max() < high
    word = philox([np.uint64(w) for w in (5, 0, 1, 0)], (8, 0))
    bits = int(word[1]) << 32 | int(word[0])
    for high in (6, 1 << 32):
        assert integers(8, 1, np.array(5), high) == bits * high >> 64
    assert np.ptp(np.bincount(integers(8, 1, np.arange(60_000), 6))) < 600


@pytest.mark.parametrize(
    "arguments",
    [
        dict(seed=-1),
        dict(step=1 << 32),
        dict(cells=np.array([-1])),
        dict(cells=np.array([0.5])),
        dict(draws=0),
        dict(stream=65536),
    ],
)
def test_keys_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError):
        uniform(**{"seed": 0, "step": 0, "cells": np.arange(3), **arguments})


def test_cell_indices_number_the_global_array():
    shape = (4, 6, 10)
    blocks = make_blocks(Grid(shape), (2, 3, 5), 8)
    whole = np.arange(240).reshape(shape)
    for rank in range(8):
        block = blocks.block(rank)
        assert np.array_equal(cell_indices(block, shape), whole[block.slices])

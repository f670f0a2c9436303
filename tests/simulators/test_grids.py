"""Half grids: means are kept, straight lines are interpolated exactly, the order is two."""

import numpy as np
import pytest

from scaled_mpi.simulators.grids import prolong, restrict


@pytest.mark.parametrize("shape", [(10,), (8, 12), (4, 6, 8)])
def test_restrict_takes_the_mean_of_the_cells_inside(shape):
    field = np.random.default_rng(0).random((2, *shape))
    coarse = restrict(field)
    assert coarse.shape == (2, *(n // 2 for n in shape))
    split = field.reshape(2, *(m for n in shape for m in (n // 2, 2)))
    expected = split.mean(tuple(range(2, 2 + 2 * len(shape), 2)))
    np.testing.assert_allclose(coarse, expected, rtol=1e-14)
    assert restrict(field.astype(np.float32)).dtype == np.float32


def test_restrict_needs_even_axes():
    with pytest.raises(ValueError, match="even number"):
        restrict(np.zeros((1, 4, 5)))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_prolong_is_exact_for_straight_lines(axes):
    coarse = np.meshgrid(*[np.arange(-1, 6) + 0.5] * axes, indexing="ij")
    fine = np.meshgrid(*[(np.arange(10) + 0.5) / 2] * axes, indexing="ij")
    slopes = (2.0, -3.0, 0.5)[:axes]
    padded = sum(a * x for a, x in zip(slopes, coarse, strict=True))[None]
    expected = sum(a * x for a, x in zip(slopes, fine, strict=True))[None]
    np.testing.assert_allclose(prolong(padded), expected, atol=1e-12)
    assert prolong(padded.astype(np.float32)).dtype == np.float32


def test_there_and_back_is_of_second_order():
    errors = []
    for n in (32, 64):
        x = 2 * np.pi * (np.arange(n) + 0.5) / n
        field = (np.sin(x)[:, None] * np.cos(2 * x))[None]
        padded = np.pad(restrict(field), [(0, 0), (1, 1), (1, 1)], "wrap")
        errors.append(np.abs(prolong(padded) - field).max())
    assert 1.9 < np.log2(errors[0] / errors[1]) < 2.1

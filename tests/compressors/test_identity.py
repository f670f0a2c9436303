"""No compression: nothing changes, on one to three axes."""

import numpy as np
import pytest

from scaled_mpi.compressors import MEMBERS
from scaled_mpi.config import InputError
from scaled_mpi.parallel.comm import SerialComm
from tests.compressors.waves import runs


@pytest.mark.parametrize("shape", [(8,), (8, 6), (4, 6, 8)])
def test_what_goes_in_comes_out(tmp_path, shape):
    identity = MEMBERS["identity"]()
    made = runs(tmp_path, shape, count=1, frames=1)
    identity.fit(made, SerialComm(), tmp_path, None, 0)
    coder = identity.load(tmp_path)
    assert coder.factor == (1,) * len(shape)
    assert coder.encode_reach == coder.decode_reach == (0,) * len(shape)
    assert coder.channels(2) == 2
    field = made[0].read(0)
    np.testing.assert_array_equal(coder.decode(coder.encode(field)), field)


def test_an_unfitted_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="identity.json"):
        MEMBERS["identity"]().load(tmp_path)

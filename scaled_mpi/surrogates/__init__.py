"""Surrogates: local operators that take a field one jump further. One file a member."""

from scaled_mpi.surrogates.diffusion import Diffusion
from scaled_mpi.surrogates.mvar import Mvar
from scaled_mpi.surrogates.probabilistic import Probabilistic
from scaled_mpi.surrogates.stepper import Stepper

MEMBERS = {
    "stepper": Stepper,
    "probabilistic": Probabilistic,
    "diffusion": Diffusion,
    "mvar": Mvar,
}

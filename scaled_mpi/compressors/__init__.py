"""Compressors: a field to a coarser latent field and back. One file a member, one line here."""

from scaled_mpi.compressors.adversarial import Adversarial
from scaled_mpi.compressors.autoencoder import Autoencoder
from scaled_mpi.compressors.diffusion import DiffusionAutoencoder
from scaled_mpi.compressors.identity import Identity
from scaled_mpi.compressors.pod import Pod

MEMBERS = {
    "identity": Identity,
    "autoencoder": Autoencoder,
    "adversarial": Adversarial,
    "diffusion": DiffusionAutoencoder,
    "pod": Pod,
}

"""Compressors: a field to a coarser latent field and back. One file a member, one line here."""

from __future__ import annotations

from typing import Any

from scaled_mpi.compressors.adversarial import Adversarial
from scaled_mpi.compressors.autoencoder import Autoencoder
from scaled_mpi.compressors.coders import member_violations
from scaled_mpi.compressors.diffusion_autoencoder import DiffusionAutoencoder
from scaled_mpi.compressors.identity import Identity
from scaled_mpi.compressors.pod import Pod
from scaled_mpi.plugins import joined

BUILT_IN: dict[str, Any] = {
    "identity": Identity,
    "autoencoder": Autoencoder,
    "adversarial": Adversarial,
    "diffusion": DiffusionAutoencoder,
    "pod": Pod,
}

MEMBERS: dict[str, Any]  # served by `__getattr__`


def __getattr__(name: str) -> dict[str, Any]:
    """Serve `MEMBERS`: the built-in members, and those that installed packages add."""
    return joined(globals(), name, "scaled_mpi.compressors", member_violations)

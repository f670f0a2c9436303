"""A trained autoencoder as it is applied: its file, and a tile to a latent tile and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from scaled_mpi.compressors.coders import Coder
from scaled_mpi.config import InputError
from scaled_mpi.learning.schedules import SCHEDULES
from scaled_mpi.parallel.blocks import whole_per_axis

if TYPE_CHECKING:
    import torch

    from scaled_mpi.learning.networks.coding import CodingNetwork
    from scaled_mpi.learning.networks.drawing import DrawingNetwork

Network = TypeVar("Network")
FILE = "coder.safetensors"


def seeded(seed: int, build: Callable[[], Network]) -> Network:
    """Return `build()` with torch's random numbers from `seed` on; they are then put back."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def network_of(meta: Mapping[str, Any], seed: int) -> Any:
    """The network of the metadata `meta`, its first weights decided by `seed`."""
    return seeded(seed, lambda: NETWORKS[meta["kind"]](meta))


def coding_network(meta: Mapping[str, Any]) -> CodingNetwork:
    """Encoder, bottleneck and decoder."""
    from scaled_mpi.learning.networks.coding import CodingNetwork

    spec = meta["autoencoder"]
    factor = whole_per_axis("compressor.factor", spec["factor"], meta["axes"], 1)
    keys = dict(spec["bottleneck"])
    return CodingNetwork(
        meta["channels"],
        spec["latent_channels"],
        factor,
        spec["width"],
        spec["depth"],
        keys.pop("kind"),
        spec["conserve"],
        **keys,
    )


def _drawing_network(meta: Mapping[str, Any]) -> DrawingNetwork:
    from scaled_mpi.learning.networks.drawing import DrawingNetwork, DrawingSize

    keys = dict(meta["autoencoder"]["decoder"])
    del keys["temperature"]  # of the noise, which comes from outside
    schedule = keys.pop("schedule")
    return DrawingNetwork(
        coding_network(meta),
        meta["channels"],
        meta["autoencoder"]["latent_channels"],
        DrawingSize(**keys),
        SCHEDULES[schedule["kind"]](**schedule),
    )


NETWORKS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "autoencoder": coding_network,
    "adversarial": coding_network,
    "diffusion": _drawing_network,
}


class NetworkCoder(Coder):
    """A trained autoencoder, applied one tile a call: one shape, one thread, always the same bits.

    `factor`, `encode_reach` and `decode_reach` are tuples, one entry an axis. `factor` and
    `encode_reach` count cells of the field, `decode_reach` cells of the latent field. `noises`
    channels of white noise, which `seed` decides, enter a decoded field; 0 for coders that draw
    nothing.
    """

    def __init__(self, path: Path, device: str) -> None:
        import torch

        from scaled_mpi.learning.distributed import use_one_thread
        from scaled_mpi.learning.weights import load_into, load_weights

        use_one_thread()
        tensors, meta = load_weights(path)
        if meta.get("kind") not in list(NETWORKS):
            known = ", ".join(NETWORKS)
            raise InputError(f"{path}: weights of a {meta.get('kind')}. Needed: {known}")
        try:
            self.network = network_of(meta, 0)
            self._tell(meta)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"{path}: its metadata do not describe a coder ({type(error).__name__}). "
                "Needed: weights of a compressor"
            ) from error
        load_into(self.network, tensors, str(path))
        self.device = torch.device(device)
        self.network.to(self.device).eval()

    def _tell(self, meta: Mapping[str, Any]) -> None:
        network, spec = self.network, meta["autoencoder"]
        self.factor: tuple[int, ...] = network.factor
        self.encode_reach: tuple[int, ...] = network.encode_reach
        self.decode_reach: tuple[int, ...] = network.decode_reach
        self.fields: int = meta["channels"]
        self.latents: int = spec["latent_channels"]
        self.bits: float = network.bits  # of one latent cell
        self.temperature: float = spec.get("decoder", {}).get("temperature", 0.0)
        self.noises: int = self.fields if self.temperature else 0
        self.seed: int = meta.get("seed", 0)
        self.scores: dict[str, float] = meta["scores"]
        self._mean, self._spread, self._latent_mean, self._latent_spread = (
            np.array(meta[key], np.float32).reshape(-1, *[1] * len(self.factor))
            for key in ("mean", "spread", "latent_mean", "latent_spread")
        )

    def channels(self, fields: int) -> int:
        """Latent channels for `fields` channels, as many as in the training."""
        if fields != self.fields:
            raise InputError(
                f"compressor: {fields} channels are not allowed: it was trained on others. "
                f"Allowed: {self.fields}"
            )
        return self.latents

    def encode(self, field: np.ndarray) -> np.ndarray:
        """(C, *(tile + 2 encode_reach)) to (latents, *(tile / factor)), in the type of `field`."""
        tile = [n - 2 * r for n, r in zip(field.shape[1:], self.encode_reach, strict=True)]
        if any(n <= 0 or n % f for n, f in zip(tile, self.factor, strict=True)):
            raise InputError(
                f"domain.tile: {tile} cells are not allowed: the compressor's factor does not "
                f"divide them. Allowed: multiples of {list(self.factor)}"
            )
        made = self._apply(self.network.encode, (field - self._mean) / self._spread)
        return ((made - self._latent_mean) / self._latent_spread).astype(field.dtype)

    def decode(self, latent: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """(latents, *(tile / factor + 2 decode_reach)) to (C, *tile), in the type of `latent`.

        A coder of `noises` > 0 decodes from standard normals (noises, *cells). These cells are
        those of the latent times factor. Without normals it starts from their middle, 0.
        """
        values = [latent * self._latent_spread + self._latent_mean]
        if noise is not None:
            values.append(self.temperature * noise)
        made = self._apply(self.network.decode, *values)
        return (made * self._spread + self._mean).astype(latent.dtype)

    def _apply(self, operation: Callable[..., torch.Tensor], *values: np.ndarray) -> np.ndarray:
        import torch

        batch = [
            torch.from_numpy(np.ascontiguousarray(one[None], np.float32)).to(self.device)
            for one in values
        ]
        with torch.inference_mode():
            return operation(*batch)[0].cpu().numpy()

"""How large a network is: the block of a configuration that it is built from.

Kept apart from the network so that reading a configuration does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from scaled_mpi.config import InputError, Spec, choice, parse
from scaled_mpi.plugins import block_violations, members, missing


class UNetSize(Spec):
    """Channels of each level, fine to coarse; see `learning/networks/unet.py`.

    `norm`: `group` uses the mean over all cells, `cell` each cell alone, so that a cut window
    gives the cut answer. `padding` fills the cells beyond the ends; `valid` adds none, and the
    reach of the network is spent.
    """

    widths: tuple[PositiveInt, ...] = (32, 64)
    blocks: PositiveInt = 1
    groups: PositiveInt = 8
    norm: Literal["group", "cell"] = "group"
    padding: Literal["circular", "replicate", "valid"] = "circular"
    attention: bool = False

    @model_validator(mode="after")
    def _fits(self) -> UNetSize:
        if any(width % self.groups for width in self.widths) or not self.widths:
            raise InputError(
                f"network.widths: {list(self.widths)} is not allowed: groups does not divide "
                f"them. Allowed: multiples of {self.groups}"
            )
        if self.padding == "valid" and (self.norm == "group" or self.attention):
            raise InputError(
                "network.padding: valid is not allowed: norm group and attention see all cells "
                "of a tile. Allowed: circular, replicate; or norm cell without attention"
            )
        return self

    @property
    def multiple(self) -> int:
        """Cells that an axis of a field, or of a tile, is a multiple of."""
        return 2 ** (len(self.widths) - 1)

    @property
    def reach(self) -> int:
        """Cells that an output cell sees in each direction, and that `valid` spends."""
        return _reach(len(self.widths), 2 * self.blocks)


class NetworkLevels(UNetSize):
    """A U-Net where another network could stand."""

    kind: Literal["unet"] = "unet"


class NetworkBlocks(Spec):
    """Residual blocks of one resolution; see `learning/networks/building_blocks.py`."""

    kind: Literal["local"] = "local"
    width: PositiveInt = 64
    depth: PositiveInt = Field(default=4, description="blocks; each sees a cell further")

    @property
    def multiple(self) -> int:
        """Cells that an axis of a field is a multiple of: any number will do."""
        return 1

    @property
    def padding(self) -> str:
        """Padding beyond the ends of the cells."""
        return "replicate"


def _violations(member: object) -> list[str]:
    found = block_violations(member, Spec, ())
    return found or missing(member, ("multiple", "padding", "build"))


SIZES = members(
    "scaled_mpi.networks", {"unet": NetworkLevels, "local": NetworkBlocks}, _violations
)
AnySize = choice(SIZES)


def size_of(tree: Mapping[str, Any]) -> Any:
    """The size of a network, from a plain tree. Errors: `InputError`."""
    kind = tree.get("kind", "unet")
    if kind not in SIZES:
        raise InputError(
            f"network.kind: {kind} is not allowed: unknown. Allowed: {', '.join(SIZES)}"
        )
    return parse(SIZES[kind], tree)


def _reach(levels: int, spent: int) -> int:
    """From the output back to the input; each level spends `spent` cells down and up again."""
    margin = 0
    for _ in range(levels - 1):
        margin = -(-(margin + spent) // 2)
    margin += 2 * spent
    for _ in range(levels - 1):
        margin = 2 * margin + spent
    return margin + 1

"""A patch critic, and an autoencoder that is trained against it in one backward pass.

The critic is a stack of valid strided convolutions. Each of its numbers judges one patch of the
field: near 1 for true fields and -1 for decoded ones (PatchGAN: Isola et al. 2017, arXiv
1611.07004; hinge loss: Lim and Ye 2017, arXiv 1705.02894):

    critic   (mean relu(1 - K(x)) + mean relu(1 + K(y))) / 2     gradients to the critic alone
    coder    - mean K(y)                                         gradients to the coder alone

Both are parts of one loss with one optimiser: the critic reads a detached y, and a critic of
detached weights judges the coder. Nothing is padded or normalised. So the critic knows no place
and keeps no running numbers. Its weights have the same bits on any number of ranks.

The coder's part is weighed as in Esser, Rombach and Ommer 2021 (arXiv 2012.09841). Its factor is
`weight` times |gradient of the reconstruction| over |gradient of the critic's verdict|, here with
respect to the decoded field. So `weight` is the critic's share of the gradient of that field.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from scaled_mpi.learning.networks.coding import CodingNetwork
from scaled_mpi.learning.networks.convolution import CONVOLUTIONS, POOLS, crop
from scaled_mpi.parallel.comm import Comm

KERNEL, STRIDE = 4, 2
MAGNIFIED = 8.0  # about what brings the small scales of fields with fronts to spread 1
SLOPE = 0.2  # of the activation below 0
MOST = 1e4  # that the coder's part is scaled by, where the critic's verdict hardly moves


class PatchCritic(nn.Module):
    """(N, channels, *cells) -> (N, 1, *patches); a patch has 3 * 2^depth cells an axis.

    It reads the field and, magnified, its difference from the mean of 3 cells an axis. Coding
    loses these small scales, which are hard to see beside the large ones.
    """

    def __init__(self, axes: int, channels: int, width: int, depth: int) -> None:
        super().__init__()
        convolution, layers = CONVOLUTIONS[axes], []
        widths = [2 * channels, *(width * 2**level for level in range(depth))]
        for fine, coarse in zip(widths[:-1], widths[1:], strict=True):
            layers += [convolution(fine, coarse, KERNEL, STRIDE), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, convolution(widths[-1], 1, 1))

    def forward(self, field: Tensor) -> Tensor:
        """Return verdicts (N, 1, *patches), high where the field looks true."""
        inner = crop(field, (1,) * (field.ndim - 2))
        detail = inner - POOLS[field.ndim - 2](field, 3, 1)
        return self.layers(torch.cat((inner, MAGNIFIED * detail), 1))

    def frozen(self, field: Tensor) -> Tensor:
        """Return the verdicts (N, 1, *patches), without gradients to the critic's weights."""
        weights = {name: value.detach() for name, value in self.named_parameters()}
        return torch.func.functional_call(self, weights, (field,))


def hinge(critic: PatchCritic, truth: Tensor, made: Tensor) -> Tensor:
    """The critic's loss of fields (N, C, *cells), a scalar.

    It is 0 where the critic separates all patches by a margin, 1 where it is blind.
    """
    wrong = nn.functional.relu(1.0 - critic(truth)).mean()
    return 0.5 * (wrong + nn.functional.relu(1.0 + critic(made.detach())).mean())


class Judged(nn.Module):
    """A coding network and its critic; every other attribute is the network's."""

    def __init__(self, coder: CodingNetwork, critic: PatchCritic, weight: float) -> None:
        super().__init__()
        self.coder, self.critic, self.weight = coder, critic, weight

    def forward(self, field: Tensor) -> Tensor:
        """Return (B, C, *cells) as `CodingNetwork.forward` does."""
        return self.coder(field)

    def reconstruct(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, C, *cells) and the penalty, as `CodingNetwork.reconstruct` does."""
        return self.coder.reconstruct(field)

    def after_step(self, comm: Comm) -> None:
        """As `CodingNetwork.after_step`. Collective."""
        self.coder.after_step(comm)

    @property
    def bottleneck(self) -> nn.Module:
        """The bottleneck of the network."""
        return self.coder.bottleneck

    def contest(self, made: Tensor, truth: Tensor, error: Tensor) -> Tensor:
        """The coder's part of the loss and the critic's; scalar.

        made, truth: (B, C, *cells). `error` is the other loss of `made`, a scalar.
        """
        verdict = -self.critic.frozen(made).mean()
        pulls = [torch.autograd.grad(one, made, retain_graph=True)[0] for one in (error, verdict)]
        ratio = pulls[0].norm() / pulls[1].norm().clamp_min(1e-12)
        return self.weight * ratio.clamp_max(MOST) * verdict + hinge(self.critic, truth, made)

    def truce(self) -> Tensor:
        """Return the scalar 0, in which every weight of the critic has a part.

        A training of replicas asks for a gradient of every weight.
        """
        return 0.0 * reduce(add, (weight.sum() for weight in self.critic.parameters()))

"""Losses of a jump network: of jumps with the whole halo known, and of jumps in Schwarz sweeps.

The first kind runs over patches, or over a whole periodic domain for many jumps, with the gradient
through all of them. The second trains on the iteration that the coupling runs. A patch is cut into
2^axes pieces that are coupled as tiles are. The first pass reads a halo of some width and nothing
of the future. Each later pass reads the future of the halo. On the part that pieces share it is
the result of the pass before, with its errors; outside the patch it is the truth. Gradients do not
flow from pass to pass, as in the pushforward of Brandstetter et al. 2022 (arXiv 2202.03376).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from scaled_mpi.learning.networks.convolution import crop
from scaled_mpi.learning.networks.jump import JumpNetwork
from scaled_mpi.parallel.blocks import behind

PIECES = 2  # an axis


def box_mask(shape: Sequence[int], border: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Return a mask (1, 1, Y, X), shape = cells: 0 on `border` cells at both ends, else 1."""
    mask = like.new_zeros((1, 1, *shape))
    inside = tuple(slice(b, n - b) for n, b in zip(shape, border, strict=True))
    mask[behind(inside)] = 1.0
    return mask


def cut(field: torch.Tensor, reach: Sequence[int]) -> torch.Tensor:
    """Cut fields (B, K, *cells) into overlapping pieces, cells = patch + 2 reach.

    A piece has patch / 2 + 2 reach cells an axis; the pieces lie along the first axis.
    """
    axes = len(reach)
    for axis, r in enumerate(reach, 2):
        piece = (field.shape[axis] - 2 * r) // PIECES
        field = field.unfold(axis, piece + 2 * r, piece)
    places = range(2, 2 + axes)
    field = field.permute(0, *places, 1, *range(2 + axes, 2 + 2 * axes))
    return field.flatten(0, axes)


def join(pieces: torch.Tensor, axes: int) -> torch.Tensor:
    """Join pieces (B * pieces, C, *cells) to (B, C, *(2 cells)); inverse of `cut` for cores."""
    cells = pieces.shape[2:]
    field = pieces.view(-1, *(PIECES,) * axes, *pieces.shape[1:])
    order = [0, axes + 1]
    for axis in range(axes):
        order += [1 + axis, axes + 2 + axis]
    return field.permute(order).reshape(-1, pieces.shape[1], *(PIECES * n for n in cells))


def square_error(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the mean square error of fields (B, C, Y, X) in float32, whatever the precision."""
    return (prediction.float() - truth.float()).square().mean()


def jump_errors(
    model: JumpNetwork, frames: torch.Tensor, memory: int, condition: torch.Tensor | None
) -> list[torch.Tensor]:
    """Errors of one jump with the whole reach known, from the model's own states; one scalar.

    frames: (B, M + J, C, *(core + 2 J reach)); condition (B, n). The first J - 1 jumps run without
    gradient, each spending its reach. The last starts from a state of the forecast; its error is
    returned.
    """
    window = frames[:, :memory]
    jumps = frames.shape[1] - memory
    with torch.no_grad():
        for _ in range(jumps - 1):
            newest = model(window, condition)
            window = torch.cat((crop(window[:, 1:], model.reach), newest[:, None]), 1)
    truth = crop(frames[:, -1], [jumps * r for r in model.reach])
    return [square_error(model(window, condition), truth)]


def rolled_errors(
    model: JumpNetwork, frames: torch.Tensor, memory: int, condition: torch.Tensor | None
) -> list[torch.Tensor]:
    """Errors of successive jumps over a whole periodic domain, the gradient through all of them.

    frames: (B, M + J, C, *domain); condition (B, n). Returns a scalar a jump; that of jump j has
    the weight 1 / j, since the error grows about as j.
    """
    window, errors = frames[:, :memory], []
    for jump in range(1, frames.shape[1] - memory + 1):
        newest = model(wrapped(window, model.reach), condition)
        errors.append(square_error(newest, frames[:, memory + jump - 1]) / jump)
        window = torch.cat((window[:, 1:], newest[:, None]), 1)
    return errors


def wrapped(window: torch.Tensor, reach: Sequence[int]) -> torch.Tensor:
    """Return (B, M, C, *cells) with `reach` cells of the periodic domain around it."""
    around = [width for r in reversed(reach) for width in (r, r)]
    field = nn.functional.pad(window.flatten(1, 2), around, mode="circular")
    return field.unflatten(1, window.shape[1:3])


def sweep_errors(
    model: JumpNetwork,
    frames: torch.Tensor,
    memory: int,
    condition: torch.Tensor | None,
    halo: Sequence[int],
    passes: int,
) -> list[torch.Tensor]:
    """Errors of `passes` Schwarz passes over the coupled pieces of each patch, a scalar a pass.

    frames: (B, M + 1, C, *(patch + 2 reach)), patch even; condition (B, n). `halo` <= reach, in
    cells, per axis.
    """
    batch, _, channels, *shape = frames.shape
    reach, axes = model.reach, len(model.reach)
    window = cut(frames[:, :memory].flatten(1, 2), reach).unflatten(1, (memory, channels))
    truth = crop(cut(frames[:, memory], reach), reach)
    if condition is not None:
        condition = condition.repeat_interleave(PIECES**axes, 0)
    size = window.shape[3:]
    beyond = [r - h for r, h in zip(reach, halo, strict=True)]
    mask = box_mask(size, beyond, window).expand(len(window), -1, *size)
    ring = mask - box_mask(size, reach, window)
    core = tuple(slice(r, n - r) for n, r in zip(shape, reach, strict=True))
    own = made = model.alone(window, condition, mask)
    errors = [square_error(own, truth)]
    own = own.detach()
    for _ in range(passes - 1):
        whole = frames[:, memory].clone()
        whole[behind(core)] = join(made.detach().to(frames.dtype), axes)
        made = model.agreed(own, window, condition, mask, cut(whole, reach), ring)
        errors.append(square_error(made, truth))
    return errors

"""How far a coding network reaches: arithmetic that needs no network, and no torch.

A stage of the encoder halves every axis whose factor is large enough; the decoder doubles it
again. Each block of a stage spends a cell of the stage's own grid.
"""

from __future__ import annotations

from collections.abc import Sequence


def strides(factor: Sequence[int]) -> list[tuple[int, ...]]:
    """Stride of each stage, fine to coarse, for factors that are powers of two."""
    stages = max(factor).bit_length() - 1
    return [tuple(2 if f >> (s + 1) else 1 for f in factor) for s in range(stages)]


def encode_reach(factor: Sequence[int], depth: int) -> tuple[int, ...]:
    """Cells of the field that the encoder spends at both ends of each axis."""
    stages = len(strides(factor))
    return tuple(sum(depth * min(f, 2 ** (s + 1)) for s in range(stages)) for f in factor)


def decode_margins(factor: Sequence[int], depth: int) -> list[tuple[int, ...]]:
    """Cells beyond the core that are needed before each stage of the decoder, coarse to fine.

    The first entry is the decoder's reach, in latent cells; the last is the cell that the last
    convolution, on the field's own grid, spends.
    """
    margins = [(1,) * len(factor)]
    for stride in strides(factor):
        before = tuple(-(-m // s) + depth for m, s in zip(margins[0], stride, strict=True))
        margins.insert(0, before)
    return margins


def latents_spent(cells: int, factor: Sequence[int]) -> tuple[int, ...]:
    """Latent cells an axis that hold `cells` of the field."""
    return tuple(-(-cells // f) for f in factor)

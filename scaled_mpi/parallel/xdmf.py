"""The text beside a trajectory that lets ParaView and VisIt open its HDF5 files.

XDMF 2 (https://www.xdmf.org/index.php/XDMF_Model_and_Format): a temporal collection of uniform
grids whose cell values are hyperslabs, one frame each, of the datasets. Names of files are
relative, so that the folder may be moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from scaled_mpi.parallel.blocks import Grid

_PRECISION = {"f": "Float", "i": "Int", "u": "UInt"}


def xdmf_text(
    name: str,
    grid: Grid,
    channels: Sequence[str],
    dtype: np.dtype,
    times: Sequence[float],
    frames: Sequence[tuple[str, int, int]],
) -> str:
    """The sidecar of a trajectory.

    `frames` tells for each time (file name, frame inside the file, frames of the file). A grid of
    one axis is shown as a strip one cell high.
    """
    lines = [
        '<?xml version="1.0" ?>',
        '<Xdmf Version="2.0">',
        " <Domain>",
        f'  <Grid Name={quoteattr(name)} GridType="Collection" CollectionType="Temporal">',
    ]
    for time, place in zip(times, frames, strict=True):
        lines += _frame(grid, channels, np.dtype(dtype), time, place)
    return "\n".join([*lines, "  </Grid>", " </Domain>", "</Xdmf>", ""])


def _frame(
    grid: Grid, channels: Sequence[str], dtype: np.dtype, time: float, place: tuple[str, int, int]
) -> list[str]:
    shape = grid.shape if grid.axes > 1 else (1, *grid.shape)
    spacing = grid.spacing if grid.axes > 1 else (grid.spacing[0], *grid.spacing)
    corners = _words(n + 1 for n in shape)
    flat = len(shape) == 2
    lines = [
        '   <Grid Name="frame" GridType="Uniform">',
        f'    <Time Value="{float(time)!r}"/>',
        f'    <Topology TopologyType="{2 if flat else 3}DCoRectMesh" Dimensions="{corners}"/>',
        f'    <Geometry GeometryType="{"ORIGIN_DXDY" if flat else "ORIGIN_DXDYDZ"}">',
        f"     {_numbers(_words(0.0 for _ in shape), len(shape))}",
        f"     {_numbers(_words(spacing), len(shape))}",
        "    </Geometry>",
    ]
    for channel in channels:
        lines += _values(channel, grid.shape, shape, dtype, place)
    return [*lines, "   </Grid>"]


def _values(
    channel: str,
    stored: tuple[int, ...],
    shown: tuple[int, ...],
    dtype: np.dtype,
    place: tuple[str, int, int],
) -> list[str]:
    file, frame, frames = place
    axes = len(stored)
    kind = f'NumberType="{_PRECISION[dtype.kind]}" Precision="{dtype.itemsize}"'
    whole = _words((frames, *stored))
    slab = [_words((frame, *[0] * axes)), _words([1] * (axes + 1)), _words((1, *stored))]
    return [
        f'    <Attribute Name={quoteattr(channel)} AttributeType="Scalar" Center="Cell">',
        f'     <DataItem ItemType="HyperSlab" Dimensions="{_words(shown)}">',
        f'      <DataItem Dimensions="3 {axes + 1}" Format="XML">{" ".join(slab)}</DataItem>',
        f'      <DataItem Dimensions="{whole}" {kind} Format="HDF">'
        f"{escape(file)}:/{escape(channel)}</DataItem>",
        "     </DataItem>",
        "    </Attribute>",
    ]


def _numbers(text: str, count: int) -> str:
    return (
        f'<DataItem Dimensions="{count}" NumberType="Float" Precision="8" Format="XML">'
        f"{text}</DataItem>"
    )


def _words(values: Iterable[object]) -> str:
    return " ".join(str(value) for value in values)

"""Files that hold arrays by name, and the small mapping from arrays to channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from scaled_mpi.config import InputError
from scaled_mpi.datasets.runs import Place, Run, Source, TrajectoryFiles
from scaled_mpi.files import plain_name
from scaled_mpi.parallel.blocks import Boundary, per_axis

_SPACES = ("x", "yx", "zyx")
Kind = Literal["periodic", "dirichlet", "neumann"]


class ArrayFiles(TrajectoryFiles):
    """The mapping from arrays to channels, axes and units of a trajectory.

    `axes` are the axes of every array in its order: n runs, t time, c channels, z y x space, for
    example tyx or ntcyx. With c, `array` holds all channels, and the list `channels` names them.
    Without c, each channel is an array, and `channels` is a list of them or a mapping
    channel: array. `time_step` is between two stored frames, `spacing` between cells. `boundary`
    is one for all axes or a list in the order z, y, x; `boundary_value` is the value on a
    dirichlet face. `condition` distinguishes runs: numbers, or names of arrays with one number or
    one a run.
    """

    channels: tuple[str, ...] | dict[str, str] = Field(min_length=1)
    axes: str = "tyx"
    array: str | None = None
    time_step: PositiveFloat = 1.0
    spacing: PositiveFloat | tuple[PositiveFloat, ...] = 1.0
    boundary: Kind | tuple[Kind, ...] = "periodic"
    boundary_value: float | tuple[float, ...] = 0.0
    condition: dict[str, float | str] = {}

    @model_validator(mode="after")
    def _mapping_is_whole(self) -> ArrayFiles:
        space = "".join(sorted(set(self.axes) - set("ntc"), reverse=True))
        if "t" not in self.axes or len(set(self.axes)) < len(self.axes) or space not in _SPACES:
            raise InputError(
                f"dataset.axes: {self.axes!r} is not allowed: unknown, missing or repeated "
                "letters. Allowed: t and x, yx or zyx, and where they exist n and c"
            )
        if ("c" in self.axes) != (self.array is not None):
            raise InputError(
                f"dataset.array: {self.array!r} is not allowed: the axes are {self.axes!r}. "
                "Allowed: the name of an array with axis c, none without"
            )
        if self.array is not None and isinstance(self.channels, dict):
            raise InputError(
                "dataset.channels: a mapping is not allowed: with axis c one array holds "
                "all. Allowed: a list of names"
            )
        for channel in self.channels:
            plain_name(channel, "dataset.channels")
        for key in ("spacing", "boundary", "boundary_value"):
            per_axis(f"dataset.{key}", getattr(self, key), len(space))
        return self

    def runs(self, path: str, source: Source) -> list[Run]:
        """The runs of a file, whose arrays must all have the shape that `axes` promises."""
        places = self._places()
        shapes = {place.array: source.shape(place.array) for place in places}
        for array, shape in shapes.items():
            if len(shape) != len(self.axes) or shape != shapes[places[0].array] or 0 in shape:
                raise InputError(
                    f"{path}:{array}: has shape {list(shape)}. Needed: {len(self.axes)} axes "
                    f"{self.axes}, the same and not empty for all arrays"
                )
        sizes = dict(zip(self.axes, shapes[places[0].array], strict=True))
        if sizes.get("c", len(places)) != len(places):
            raise InputError(
                f"{path}:{self.array}: has {sizes['c']} channels, of which {len(places)} "
                "have names. Needed: a name for each"
            )
        space = "zyx"[-len(set(self.axes) & set("zyx")) :]
        whole = Run(
            path,
            self.axes,
            places,
            range(sizes["t"]),
            tuple(range(sizes[axis]) for axis in space),
            per_axis("spacing", self.spacing, len(space)),
            self._boundary(len(space)),
            self.time_step,
        )
        count = sizes.get("n", 1)
        conditions = self._conditions(path, source, count)
        return [replace(whole, number=i, condition=conditions[i]) for i in range(count)]

    def _places(self) -> tuple[Place, ...]:
        if self.array is not None:
            return tuple(Place(name, self.array, c) for c, name in enumerate(self.channels))
        if isinstance(self.channels, dict):
            return tuple(Place(name, array) for name, array in self.channels.items())
        return tuple(Place(name, name) for name in self.channels)

    def _boundary(self, axes: int) -> tuple[Boundary, ...]:
        kinds = per_axis("boundary", self.boundary, axes)
        values = per_axis("boundary_value", self.boundary_value, axes)
        return tuple(Boundary(kind, float(v)) for kind, v in zip(kinds, values, strict=True))

    def _conditions(self, path: str, source: Source, count: int) -> list[dict[str, float]]:
        found: list[dict[str, float]] = [{} for _ in range(count)]
        for name, given in self.condition.items():
            values = [given] * count
            if isinstance(given, str):
                shape = source.shape(given)
                if shape not in ((), (1,), (count,)):
                    raise InputError(
                        f"{path}:{given}: has shape {list(shape)}. Needed: one number, or one for "
                        f"each of {count} runs"
                    )
                read = source.read(given, (slice(None),) * len(shape)).reshape(-1)
                values = list(read) if len(read) == count else [read[0]] * count
            for run, value in zip(found, values, strict=True):
                run[name] = float(value)
        return found

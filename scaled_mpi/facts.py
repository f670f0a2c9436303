"""Measured numbers and the course of a training, one JSON line each; writers and readers.

    facts.jsonl     {"name", "value", "unit", "stage", "ranks", and the place: tiles, jump, ...};
                    a line with the key "renamed" repeats a fact under its name of version 0.1
    events.jsonl    {"schema_version": 2, "moment", "epoch", "step", "train_loss", ..., "meta"};
                    the moments are on_start, on_epoch_end, on_train_end, on_exception, and no
                    line repeats the content of an earlier one
    scalars.csv     epoch,split,train_loss,val_loss,epoch_time_s,throughput,max_memory_mib, then
                    metric_<name> in sorted order, then rank,world_size; a row "train" and a row
                    "val" an epoch, numbers as %.8g, nothing for None

A line is appended and flushed at once. A kill may cut the last one short: readers leave it out and
the next writer removes it. Reports read these files and nothing else. JSON has no nan and no
infinity; they are kept as text and read back as numbers.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from scaled_mpi.config import InputError
from scaled_mpi.fact_names import RENAMED, old_forms
from scaled_mpi.files import write_text

SCHEMA_VERSION = 2
_FIRST_COLUMNS = (
    "epoch",
    "split",
    "train_loss",
    "val_loss",
    "epoch_time_s",
    "throughput",
    "max_memory_mib",
)
_LAST_COLUMNS = ("rank", "world_size")
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class FactLog:
    """Appends facts of one stage to a JSON-lines file; `path` None: keeps quiet (other ranks)."""

    def __init__(
        self, path: str | Path | None, stage: str, ranks: int = 1, **place: object
    ) -> None:
        self.path = None if path is None else Path(path)
        self._common = {"stage": stage, "ranks": ranks, **place}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_cut_line(self.path)

    def record(self, name: str, value: object, unit: str = "", **place: object) -> None:
        """Add a number (or a word such as "never"); `place` says where or when it was measured.

        For one release the old names of the fact follow, each on a line of its own.
        """
        if self.path is None:
            return
        fact = {"name": name, "value": value, "unit": unit, **self._common, **place}
        lines = [fact, *({**old, RENAMED: name} for old in old_forms(fact))]
        _append(self.path, "".join(_json(line) + "\n" for line in lines))


def read_facts(path: str | Path) -> list[dict[str, Any]]:
    """All facts of a file in the order of writing; a last line that was cut short is left out.

    An absent file has none. InputError for a broken line in the middle.
    """
    return _read_lines(Path(path))


def latest(facts: Iterable[Mapping[str, Any]], **place: object) -> dict[str, Any]:
    """name -> value of the last fact of each name among those that agree with `place`."""
    return {
        fact["name"]: fact["value"]
        for fact in facts
        if all(fact.get(key) == value for key, value in place.items())
    }


class EventLog:
    """The course of one training in events.jsonl and scalars.csv; ranks other than 0 keep quiet.

    `run_id` is the same in every event and after a resume. Opening a folder that has events goes
    on in them; call `truncate` with the last epoch of the checkpoint before training resumes.
    """

    def __init__(
        self, folder: str | Path, run_id: str, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.folder = Path(folder)
        self.rank, self.world_size = rank, world_size
        self._quiet = rank != 0
        self._meta = {"run_id": run_id, "seed": seed, "rank": rank, "world_size": world_size}
        self._began = time.monotonic()
        if not self._quiet:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (self._events, self._scalars):
                _drop_cut_line(path)

    @property
    def _events(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def _scalars(self) -> Path:
        return self.folder / "scalars.csv"

    def start(self, **extra: Any) -> None:
        """Training begins, or goes on after a resume; with what is known of machine and code."""
        meta = {"git_commit": git_commit(), "hostname": platform.node()}
        self._event("on_start", meta=meta, **extra)

    def epoch(
        self,
        epoch: int | None,
        step: int,
        train_loss: float | None,
        val_loss: float | None,
        metrics: Mapping[str, float] | None = None,
        epoch_time_s: float | None = None,
        throughput: float | None = None,
        max_memory_mib: float | None = None,
        **extra: Any,
    ) -> None:
        """One validation interval: losses, metrics of the validation, seconds, samples a s."""
        if self._quiet:
            return
        metrics = dict(metrics or {})
        common = {
            "epoch": -1 if epoch is None else epoch,
            "epoch_time_s": epoch_time_s,
            "throughput": throughput,
            "max_memory_mib": max_memory_mib,
            "rank": self.rank,
            "world_size": self.world_size,
        }
        scores = {f"metric_{name}": value for name, value in metrics.items()}
        self._rows(
            [
                {**common, "split": "train", "train_loss": train_loss},
                {**common, "split": "val", "val_loss": val_loss, **scores},
            ]
        )
        self._event(
            "on_epoch_end",
            epoch=epoch,
            step=step,
            train_loss=train_loss,
            val_loss=val_loss,
            metrics=metrics,
            epoch_time_s=epoch_time_s,
            throughput=throughput,
            max_memory_mib=max_memory_mib,
            **extra,
        )

    def end(self, **extra: Any) -> None:
        """Training is complete."""
        self._event("on_train_end", **extra)

    def exception(self, error: BaseException, **extra: Any) -> None:
        """Training ended by an error."""
        words = f"{type(error).__name__}: {error}".rstrip(": ")
        self._event("on_exception", error=words, **extra)

    def truncate(self, epoch: int) -> None:
        """Forget what was told of epochs after `epoch`, and any end: training resumes there."""
        if self._quiet:
            return
        events = [event for event in _read_lines(self._events) if _is_kept(event, epoch)]
        write_text(self._events, "".join(_json(event) + "\n" for event in events))
        header, rows = _read_csv(self._scalars)
        kept = [row for row in rows if int(row["epoch"]) <= epoch]
        if header:
            write_text(self._scalars, _csv(header, kept, with_header=True))

    def _event(self, moment: str, meta: Mapping[str, Any] | None = None, **values: Any) -> None:
        if self._quiet:
            return
        event = {
            "schema_version": SCHEMA_VERSION,
            "moment": moment,
            **values,
            "total_time_s": time.monotonic() - self._began,
            "meta": {"timestamp": datetime.now(UTC).isoformat(), **self._meta, **(meta or {})},
        }
        _append(self._events, _json(event) + "\n")

    def _rows(self, rows: list[dict[str, Any]]) -> None:
        """Append rows; new metrics widen the whole file, so that no column ever shifts."""
        header = _header(self._scalars)
        names = {key for row in rows for key in row} | set(header)
        scores = sorted(name for name in names if name.startswith("metric_"))
        wanted = [*_FIRST_COLUMNS, *scores, *_LAST_COLUMNS]
        if header == wanted:
            _append(self._scalars, _csv(wanted, rows))
        else:
            _, old = _read_csv(self._scalars)
            write_text(self._scalars, _csv(wanted, [*old, *rows], with_header=True))


def read_events(folder: str | Path) -> list[dict[str, Any]]:
    """Events of a training's folder; none if it has no file. A cut last line is left out."""
    return _read_lines(Path(folder) / "events.jsonl")


def read_scalars(folder: str | Path) -> list[dict[str, Any]]:
    """Rows of scalars.csv with numbers as floats, epochs as ints and None for empty cells."""
    _, rows = _read_csv(Path(folder) / "scalars.csv")
    words = ("split", "epoch", "rank", "world_size")
    return [
        {
            key: (value if key == "split" else int(value))
            if key in words
            else float(value)
            if value
            else None
            for key, value in row.items()
        }
        for row in rows
    ]


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """Short hash of the commit that this package is checked out at; None where there is no git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # installed without git, or not from a checkout
        return None
    return answer.stdout.strip()


def _is_kept(event: Mapping[str, Any], epoch: int) -> bool:
    if event["moment"] == "on_start":
        return True
    return event["moment"] == "on_epoch_end" and (event.get("epoch") or 0) <= epoch


def _append(path: Path, text: str) -> None:
    # One write call, so that lines of several processes do not mix; then no buffer of ours holds
    # it.
    with open(path, "ab", buffering=0) as file:
        file.write(text.encode())


def _drop_cut_line(path: Path) -> None:
    """Remove what follows the last line end: the rest of a line whose writer was killed."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())


def _json(value: object) -> str:
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: object) -> object:
    """`value` with numpy numbers as Python's and numbers that JSON lacks as words."""
    if hasattr(value, "tolist"):  # numpy scalars and arrays, torch tensors
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    objects = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: not JSON. Needed: a JSON object a line"
            ) from error
        objects.append(_with_numbers(entry))
    return objects


def _with_numbers(entry: object) -> Any:
    if isinstance(entry, dict):
        return {key: _with_numbers(value) for key, value in entry.items()}
    if isinstance(entry, list):
        return [_with_numbers(value) for value in entry]
    return _NOT_FINITE.get(entry, entry) if isinstance(entry, str) else entry


def _header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        return next(csv.reader(file), [])


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    if not path.exists():
        return [], []
    text = path.read_text(encoding="utf-8")
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    rows = list(reader)
    return list(reader.fieldnames or []), rows


def _csv(
    header: Iterable[str], rows: Iterable[Mapping[str, Any]], with_header: bool = False
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = list(header)
    if with_header:
        writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in header])
    return text.getvalue()


def _cell(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return str(value) if isinstance(value, int) else f"{float(value):.8g}"

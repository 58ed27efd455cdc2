"""Rows of a sensor's values as a source: CSV and JSON lines from files, JSON lines on standard input.

A row is a frame whose ``image`` is a float32 array: (values,) of CSV, of JSON the shape of its nested lists. A row that
cannot be read ends the source with an error that names its line: a network remembers what it was given.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import select
import stat
import sys
import time
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from edgeco.errors import SourceError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.base import Recording, Source, check_fps
from edgeco.runtime.sources.producer import Array

DEFAULT_FPS = 30.0
LATEST = 1e12
"""Seconds: greatest stamp of a row, far beyond any calendar; floating point still tells milliseconds apart there."""
STAMPS = ("stamp", "time", "timestamp", "t")
"""Names of the column or member that holds a row's time in seconds."""
LONGEST_LINE = 1 << 24
"""Bytes of a line beyond which a source is taken for something else."""

_LOOK = 0.1
"""Seconds between two looks at whether standard input was closed by another thread."""

Row = tuple[Array, float | None, str | None]
"""Values, time in seconds and label."""


class RowSource(Recording):
    """Rows in order, none dropped.

    A row's stamp is its own where it has one, which must rise; otherwise its number divided by the rate.
    """

    _live = False

    def __init__(self, uri: str, fps: float | None, backend: str) -> None:
        super().__init__(uri, fps or DEFAULT_FPS, backend)
        self._override = fps
        self._line = 0
        self._shape: tuple[int, ...] | None = None

    def assume(self, fps: float) -> None:
        """Stamp rows by this rate if they have no stamps of their own and nobody gave one; before the first is read.

        Raises:
            SpecError: it is no usable rate.
        """
        if self._override is None:
            self.fps = check_fps(fps)

    @abstractmethod
    def _rows(self) -> Iterator[Row]:
        """Yield every row: its values, its own stamp and its label, None where it has none."""

    def _read(self) -> Iterator[Frame]:
        last = -math.inf
        for index, (values, own, label) in enumerate(self._rows()):
            if own is not None and not abs(own) <= LATEST:
                raise self._wrong(f"its time {own!s:.40} is none: seconds, at most {LATEST:.0e}")
            if self._shape not in (None, values.shape):
                raise self._wrong(f"{_shape(values.shape)}, where the rows before have {_shape(self._shape)}")
            self._shape = values.shape
            taken = time.monotonic_ns() if self._live else None
            if own is not None and self._override is None:
                stamp, clock = own, "file"
            elif taken is not None and self._override is None:
                stamp, clock = taken * 1e-9, "monotonic"
            else:
                stamp, clock = index / (self.fps or DEFAULT_FPS), "rate"
            if not stamp > last:
                raise self._wrong(f"its time {stamp:.9g} is not after {last:.9g}, that of the row before")
            last = stamp
            yield Frame(values, stamp, clock, index, label=label, taken=taken)
        if self._shape is None:
            raise SourceError(f"{self.uri}: there is no row of values in it")

    def _wrong(self, what: str) -> SourceError:
        return SourceError(f"{self.uri} line {self._line}: {what}")

    def _json_row(self, line: bytes) -> Row:
        """A list of values, nested as the network's input is, or an object with ``values`` and other members."""
        try:
            told = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"no JSON ({str(error)[:80]})") from None
        members = told if isinstance(told, dict) else {"values": told}
        if "values" not in members:
            raise self._wrong("an object without the member values")
        try:
            values = np.array(members["values"])
        except (TypeError, ValueError):
            values = np.array("ragged")
        if values.dtype.kind not in "iuf":
            raise self._wrong("values must be numbers, in lists of equal length and without null")
        stamp = next((members[name] for name in STAMPS if name in members), None)
        if isinstance(stamp, bool) or not (stamp is None or isinstance(stamp, (int, float))):
            raise self._wrong(f"its time {str(stamp)[:40]!r} is no number")
        label = members.get("label")
        if isinstance(stamp, int) and abs(stamp) > LATEST:
            raise self._wrong(f"its time {str(stamp)[:40]} is none: seconds, at most {LATEST:.0e}")
        return self._checked(values), None if stamp is None else float(stamp), None if label is None else str(label)

    def _checked(self, values: Array) -> Array:
        with np.errstate(over="ignore"):
            row = np.asarray(values, dtype=np.float32)
        if row.size == 0:
            raise self._wrong("no values")
        if not np.isfinite(row).all():
            raise self._wrong("a value is not finite; leave out what was not measured, or fill it in before")
        return row


class CsvSource(RowSource):
    """A file of comma, semicolon or tab separated numbers; a first line that is no numbers names the columns."""

    def __init__(self, path: Path, fps: float | None = None) -> None:
        super().__init__(str(path), check_fps(fps), "csv")
        self._path = path
        self.files = (path,)
        self.columns: tuple[str, ...] = ()
        """Names of the values, where the file has them."""

    def _rows(self) -> Iterator[Row]:
        with _open_text(self._path) as file:
            try:
                mark = _separator(file)
                file.seek(0)
                yield from self._table(csv.reader(file, delimiter=mark, skipinitialspace=True))
            except (csv.Error, UnicodeDecodeError) as error:
                raise self._wrong(f"no text of separated values ({error})") from None

    def _table(self, lines: Any) -> Iterator[Row]:
        stamps = labels = None
        for cells in lines:
            self._line = lines.line_num
            if not cells or cells[0].startswith("#"):
                continue
            if self._shape is not None or self.columns or any(map(_is_number, cells)):
                yield self._cells(cells, stamps, labels)
                continue
            names = [cell.strip().lower() for cell in cells]
            stamps = next((names.index(name) for name in STAMPS if name in names), None)
            labels = names.index("label") if "label" in names else None
            self.columns = tuple(cell.strip() for place, cell in enumerate(cells) if place not in (stamps, labels))

    def _cells(self, cells: list[str], stamps: int | None, labels: int | None) -> Row:
        values: list[float] = []
        for place, cell in enumerate(cells):
            if place in (stamps, labels):
                continue
            if not _is_number(cell):
                name = f" ({self.columns[len(values)]})" if len(values) < len(self.columns) else ""
                raise self._wrong(f"column {place + 1}{name} holds {cell[:40]!r}, which is no number")
            values.append(float(cell))
        if max(stamps or 0, labels or 0) >= len(cells):
            raise self._wrong(f"{len(cells)} columns are too few")
        stamp = None if stamps is None else self._number(cells[stamps])
        return self._checked(np.array(values)), stamp, None if labels is None else cells[labels]

    def _number(self, cell: str) -> float:
        if not _is_number(cell):
            raise self._wrong(f"its time {cell[:40]!r} is no number")
        return float(cell)


class JsonSource(RowSource):
    """A file of JSON lines."""

    def __init__(self, path: Path, fps: float | None = None) -> None:
        super().__init__(str(path), check_fps(fps), "json")
        self._path = path
        self.files = (path,)

    def _rows(self) -> Iterator[Row]:
        with _open_bytes(self._path) as file:
            while line := file.readline(LONGEST_LINE):
                self._line += 1
                if len(line) == LONGEST_LINE:
                    raise self._wrong(f"longer than {LONGEST_LINE} bytes")
                if line.strip():
                    yield self._json_row(line)


class StdinSource(RowSource):
    """JSON lines of a descriptor, as they come. None is dropped: who writes faster than they are taken has to wait.

    Without stamps of their own and without a rate, rows have the time at which they were read.
    """

    _live = True

    def __init__(self, descriptor: int, fps: float | None = None) -> None:
        super().__init__("-", check_fps(fps), "stdin")
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._over = False
        self._trouble = ""

    def __next__(self) -> Frame:
        while not self.state.final and not self._ready(_LOOK):
            pass  # so that another thread can close it
        return super().__next__()

    def wait(self, seconds: float | None = None) -> Frame | None:
        if not self.state.final and not self._ready(seconds):
            return None
        return super().wait(seconds)

    def _ready(self, seconds: float | None) -> bool:
        """Whether a whole line, or the end, is there in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not (self._over or self.state.final or b"\n" in self._buffer):
            left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
            if select.select([self._descriptor], [], [], max(0.0, left))[0]:
                self._fill()
            elif deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def _fill(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except OSError as error:
            data, self._trouble = b"", f"standard input cannot be read ({error.strerror or error})"
        self._over = not data
        self._buffer += data
        if len(self._buffer) > LONGEST_LINE and b"\n" not in self._buffer:
            self._over, self._trouble = True, f"a line on standard input is longer than {LONGEST_LINE} bytes"

    def _rows(self) -> Iterator[Row]:
        while self._ready(None):
            if self._trouble:
                raise SourceError(f"{self.uri}: {self._trouble}")
            line, mark, rest = self._buffer.partition(b"\n")
            self._buffer = rest
            self._line += 1
            if line.strip():
                yield self._json_row(bytes(line))
            elif not mark:
                return


def _separator(file: TextIO) -> str:
    """What separates the values of the first line that has any."""
    for _ in range(1000):
        line = file.readline(LONGEST_LINE)
        if not line or not (line.startswith("#") or line.isspace()):
            return "\t" if "\t" in line else ";" if ";" in line else ","
    return ","


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?\s*", cell) is not None


def _shape(shape: tuple[int, ...] | None) -> str:
    return f"{shape[0]} values" if shape is not None and len(shape) == 1 else f"values of shape {shape}"


def _open_text(path: Path) -> TextIO:
    try:
        return open(path, encoding="utf-8-sig", newline="")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from None


def _open_bytes(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from None


def open_form(path: Path, fps: float | None = None) -> Source:
    """Open a file of rows, by its suffix. Raises SourceError if it is no file."""
    if not path.is_file():
        raise SourceError(f"{path}: not a regular file; give a .csv or .jsonl file")
    return (JsonSource if path.suffix.lower() in (".jsonl", ".ndjson") else CsvSource)(path, fps)


def open_stdin(address: Address, fps: float | None = None) -> Source:
    """Open standard input. Raises SourceError if there is none, or if it is a terminal."""
    try:
        descriptor = sys.__stdin__.fileno() if sys.__stdin__ is not None else -1
        kind = os.fstat(descriptor).st_mode
    except (OSError, ValueError):
        raise SourceError("-: there is no standard input") from None
    if stat.S_ISCHR(kind) and os.isatty(descriptor):
        raise SourceError("-: standard input is a terminal; give JSON lines of values by a pipe")
    return StdinSource(descriptor, fps)

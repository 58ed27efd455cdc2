"""Files that hold many cases of a sensor's values: lines of a CSV, the UEA archive's ``.ts``, NumPy's ``.npz``."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgeco.errors import DataError
from edgeco.runtime.sources import open_source
from edgeco.train.data.case import Array


class Entry(NamedTuple):
    """One case: what it is called within the file, its class and group where told, its frames (frames, *frame)."""

    name: str
    label: str | None
    group: str | None
    frames: Array


class Labelled(NamedTuple):
    """The cases of a file, its classes in their order where the file gives one, and its rate where it says it."""

    cases: list[Entry]
    labels: tuple[str, ...] | None = None
    fps: float | None = None


def read_rows(path: Path, shape: tuple[int, ...]) -> Labelled:
    """A file of separated values with a case in each line: its class, then its frames one after the other.

    The class is in the column that a header calls ``label``, else in the first; there it must be a whole number.

    Raises:
        DataError: a line has another number of values.
        SourceError: the file cannot be read, or a value is no number.
    """
    size = math.prod(shape)
    cases = []
    with open_source(path) as source:
        for frame in source:
            row = np.asarray(frame.image)
            told = frame.label is not None
            label, values = (str(frame.label), row) if told else (_whole(path, frame.index, row), row[1:])
            if values.size != size:
                raise DataError(
                    f"{path}, row {frame.index + 1}: {values.size} values beside the class, where frames of the shape "
                    f"{shape} make {size}."
                )
            cases.append(Entry(f"row {frame.index + 1}", label.strip(), None, values.reshape(shape)))
    return Labelled(cases)


def _whole(path: Path, index: int, row: Array) -> str:
    if row[0] != round(float(row[0])):
        raise DataError(
            f"{path}, row {index + 1}: it begins with {row[0]:g}, which is no class; "
            "a line is its class and then its values, or a header names the column label."
        )
    return str(int(row[0]))


def read_npz(path: Path) -> Labelled:
    """Arrays ``x`` (cases, frames, *frame), and where there are any ``y``, ``groups``, ``labels`` and ``fps``.

    ``y`` are whole numbers, places in ``labels`` where there are any, or names.

    Raises:
        DataError: the file is no such archive, lacks ``x``, holds objects, or its arrays do not fit together.
    """
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: it cannot be read as arrays of numbers (no .npz, or cut off); use numpy.savez.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y", "groups", "labels", "fps") if name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path}: it cannot be read as arrays of numbers ({str(error).splitlines()[0]}).") from None
    x = arrays.get("x")
    if x is not None and x.ndim >= 3 and x.size == 0:
        raise DataError(f"{path}: the array x is empty, {x.shape}; it must hold cases of at least one frame.")
    if x is None or x.ndim < 3 or x.dtype.kind not in "iuf":
        told = "missing" if x is None else f"{x.dtype}{x.shape}"
        raise DataError(f"{path}: the array x is {told}; it must be numbers (cases, frames, *frame).")
    for name in ("y", "groups"):
        if name in arrays and arrays[name].shape != x.shape[:1]:
            raise DataError(f"{path}: the array {name} has the shape {arrays[name].shape} for {len(x)} cases.")
    labels = tuple(map(str, arrays["labels"].ravel())) if "labels" in arrays else None
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what FP32 cannot hold becomes infinite, and is refused as that
            x = x.astype(np.float32)
    groups = map(str, arrays["groups"]) if "groups" in arrays else [None] * len(x)
    cases = [
        Entry(f"case {i + 1}", _name_of(path, arrays.get("y"), labels, i), group, x[i])
        for i, group in enumerate(groups)
    ]
    return Labelled(cases, labels, float(arrays["fps"]) if "fps" in arrays else None)


def _name_of(path: Path, y: Array | None, labels: tuple[str, ...] | None, place: int) -> str | None:
    if y is None:
        return None
    if labels is None or y.dtype.kind not in "iu":
        return str(y[place])
    if not 0 <= y[place] < len(labels):
        raise DataError(f"{path}: case {place + 1} is of class {y[place]}, but there are {len(labels)} labels.")
    return labels[int(y[place])]


def read_ts(path: Path) -> Labelled:
    """The UEA archive's text format: dimensions divided by colons, values by commas, the class last.

    Raises:
        DataError: a line is no such case, has a missing value (``?``), or dimensions of unequal length.
    """
    classes: tuple[str, ...] | None = None
    labelled = True
    cases: list[Entry] = []
    for number, line in _lines(path):
        key, _, rest = line.partition(" ")
        if key.lower() == "@classlabel":
            labelled = rest.split()[:1] == ["true"]
            classes = tuple(rest.split()[1:]) if labelled else None
        elif key.lower() == "@timestamps" and rest.strip().lower() == "true":
            raise DataError(f"{path}: its values have time stamps, which are not read; resample them to one rate.")
        elif not line.startswith("@"):
            *dimensions, last = line.split(":")
            if not labelled:
                dimensions, last = [*dimensions, last], ""
            frames = _frames(dimensions, f"{path} line {number}")
            cases.append(Entry(f"case {len(cases) + 1}", last.strip() or None, None, frames))
    if not cases:
        raise DataError(f"{path}: there is no case in it; those of a .ts file come after the line @data.")
    return Labelled(cases, classes)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not line.startswith("#"):
                    yield number, line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it cannot be read as text ({error}).") from None


def _frames(dimensions: list[str], where: str) -> Array:
    """Values of each dimension over time as (frames, dimensions)."""
    try:
        columns = [np.array([float(value) for value in text.split(",")], np.float32) for text in dimensions]
    except ValueError as error:
        raise DataError(f"{where}: {error}; a missing value has to be filled in first.") from None
    if not columns or len({len(column) for column in columns}) != 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise DataError(f"{where}: its dimensions have {lengths} values, where all must have as many.")
    return np.stack(columns, 1)

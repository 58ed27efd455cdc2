"""``read_data``: what lies at a path, as data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeco.errors import DataError
from edgeco.runtime.sources import IMAGE_SUFFIXES, SENSOR_SUFFIXES
from edgeco.runtime.sources.base import check_fps
from edgeco.runtime.sources.container import looks_like_text
from edgeco.runtime.sources.images import natural_key
from edgeco.train.data.case import Array, Case, Content, Held, Recorded
from edgeco.train.data.data import Data
from edgeco.train.data.tables import Labelled, read_npz, read_rows, read_ts

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".mts", ".wmv"})


def read_data(
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    fps: float | None = None,
    shape: tuple[int, ...] | None = None,
    group: str | None = None,
) -> Data:
    """Open labelled recordings.

    ====================================  ===================================================================
    ``root/CLASS/clip.mp4``               a folder per class; a case is a video, a file of rows (.csv,
                                          .jsonl) or a folder of pictures
    ``root/clip.mp4``                     the same without classes
    ``clip.mp4``, ``track.jsonl``         one case without a class
    ``cases.csv`` with ``shape``          a case per line: its class, then its frames one after the other
    ``cases.ts``                          the format of the UEA archive
    ``cases.npz``                         arrays ``x`` (cases, frames, *frame), and as far as there are any
                                          ``y`` (cases), ``groups`` (cases), ``labels`` (classes), ``fps``
    ====================================  ===================================================================

    Args:
        path: a folder or file.
        labels: the classes, in the order of the network's; where a file of many cases has numbers, those are places
            among them. None takes the classes that the data name, in natural order.
        fps: frames per second, of recordings that do not say it.
        shape: of a case in a line of a .csv file: (frames, *frame).
        group: a regular expression that is looked for in a case's name; what its first parentheses (or all of it)
            match is the case's group, as in ``r"subject(\\d+)"``. Without one every case is a group, unless the file
            itself has groups.

    Raises:
        DataError: there is nothing to read, the shapes differ, a value is missing, or a class is not one of ``labels``.
        SourceError: a file cannot be read. Recordings in folders are opened only when their frames are asked for.

    Example::

        data = read_data("gestures/", group=r"person(\\d+)").prepared(preprocessing, fps=15)
    """
    where = Path(os.fspath(path))
    check_fps(fps)
    table = _table(where, shape)
    cases = _folder(where, fps) if table is None else _held(table, where, fps)
    names = tuple(labels) if labels is not None else _names(cases, table)
    known = {name: place for place, name in enumerate(names)}
    if table is not None and labels is not None:
        known = {str(place): place for place in known.values()} | known  # files of numbers count the classes
    made = []
    for found in cases:
        if found.label is not None and found.label not in known:
            raise DataError(f"{where}, {found.name}: its class {found.label!r} is not one of {', '.join(names)}.")
        place = None if found.label is None else known[found.label]
        made.append(Case(found.name, place, found.group or _group(found.name, group), found.fps, found.content))
    return Data(tuple(made), names)


@dataclass(frozen=True)
class _Found:
    """A case before its class has a number."""

    name: str
    label: str | None
    group: str | None
    fps: float | None
    content: Content


def _table(path: Path, shape: tuple[int, ...] | None) -> Labelled | None:
    """The cases of one file that holds many, None where the path is of another form."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (".csv", ".tsv", ".npz", ".ts"):
        if shape is not None:
            raise DataError(f"{path}: a shape is for the lines of a .csv file, and this is none.")
        return None
    if suffix == ".npz":
        return read_npz(path)
    if suffix == ".ts":
        return read_ts(path) if looks_like_text(path) else None
    return None if shape is None else read_rows(path, shape)


def _held(table: Labelled, path: Path, fps: float | None) -> list[_Found]:
    rate = fps or table.fps
    return [
        _Found(f"{path.stem}:{name}", label, group, rate, Held(_checked(frames, f"{path}, {name}"), rate))
        for name, label, group, frames in table.cases
    ]


def _checked(frames: Array, name: str) -> Array:
    if not np.isfinite(frames).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(frames))[0])
        raise DataError(f"{name}: frame {place[0]} has a value that is not finite; fill it in, or leave the case out.")
    frames = np.asarray(frames)
    frames.flags.writeable = False
    return frames


def _names(cases: Iterable[_Found], table: Labelled | None) -> tuple[str, ...]:
    if table is not None and table.labels is not None:
        return table.labels
    return tuple(sorted({case.label for case in cases if case.label is not None}, key=_natural))


def _natural(name: str) -> list[tuple[int, int, str]]:
    return natural_key(Path(name))


def _group(name: str, pattern: str | None) -> str:
    if pattern is None:
        return name
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise DataError(f"group {pattern!r} is no regular expression ({error}).") from None
    if found is None:
        raise DataError(f"{name}: the group {pattern!r} is not found in this name.")
    return str(found[1] if found.re.groups else found[0])


# ------------------------------------------------------------------------------------------------------- folders


def _folder(root: Path, fps: float | None) -> list[_Found]:
    """The cases of a folder, or one recording as the only case."""
    if root.is_file():
        return [_Found(root.stem, None, None, fps, Recorded(root, fps))]
    entries = _entries(root)
    direct = [path for path in entries if _is_case(path)]
    classes = [path for path in entries if path.is_dir() and not _is_case(path)]
    if direct and classes:
        raise DataError(
            f"{root}: it has recordings ({direct[0].name}) and folders of recordings ({classes[0].name}); "
            "give a folder per class, or recordings alone."
        )
    if direct:
        return [_Found(path.name, None, None, fps, Recorded(path, fps)) for path in direct]
    found = []
    for folder in classes:
        inside = [path for path in _entries(folder) if _is_case(path)]
        if not inside:
            raise DataError(f"{folder}: there is no recording in this class; put some there, or remove the folder.")
        found += [_Found(f"{folder.name}/{p.name}", folder.name, None, fps, Recorded(p, fps)) for p in inside]
    if not found:
        kinds = ", ".join(sorted(VIDEO_SUFFIXES | SENSOR_SUFFIXES))
        raise DataError(f"{root}: there is no recording in it; give a folder per class with videos or rows ({kinds}).")
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural_key)
    except FileNotFoundError:
        raise DataError(f"{folder}: no such file or folder; give recordings.") from None
    except OSError as error:
        raise DataError(f"{folder}: it cannot be read ({error.strerror or error}).") from None


def _is_case(path: Path) -> bool:
    """Whether this is one recording: a video, a file of rows, or a folder with pictures and no folders in it."""
    if path.is_file():
        return path.suffix.lower() in VIDEO_SUFFIXES | SENSOR_SUFFIXES
    inside = _entries(path)
    return any(p.suffix.lower() in IMAGE_SUFFIXES for p in inside) and not any(p.is_dir() for p in inside)

"""Images as a source: a folder, a glob, a numbered pattern or one file."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeco.errors import SourceError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources import IMAGE_SUFFIXES
from edgeco.runtime.sources.base import Recording, Source, check_fps, import_cv2

DEFAULT_FPS = 30.0


class ImageSource(Recording):
    """Images in order, each one frame. ``numbers`` are their places in time: 0, 1, 2 … unless the names say more."""

    def __init__(self, uri: str, paths: list[Path], numbers: list[int], fps: float) -> None:
        super().__init__(uri, fps)
        self.files = tuple(paths)
        self.paths = paths
        self._numbers = numbers
        self._rate = fps
        self._cv2 = import_cv2("reading images")

    def _read(self) -> Iterator[Frame]:
        previous = self._numbers[0] - 1
        for index, (path, number) in enumerate(zip(self.paths, self._numbers, strict=True)):
            image = self._decode(path)
            yield Frame(image, (number - self._numbers[0]) / self._rate, "rate", index, number - previous - 1)
            previous = number

    def _decode(self, path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SourceError(f"{path}: image cannot be read ({error.strerror or error})") from error
        if not data or _is_cut(data):
            raise SourceError(f"{path}: the image is {'cut short' if data else 'empty'}; replace or remove it")
        try:
            image = self._cv2.imdecode(np.frombuffer(data, np.uint8), self._cv2.IMREAD_COLOR)
        except self._cv2.error as error:
            raise SourceError(f"{path}: not a readable image ({error.err}); replace or remove it") from error
        if image is None:
            raise SourceError(f"{path}: not a readable image; replace or remove it")
        return image  # type: ignore[no-any-return]


def _is_cut(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end, which decoders pass over by filling the rest with grey."""
    if data.startswith(b"\xff\xd8"):
        # An embedded thumbnail has an end mark too, so the last one must follow the last start of scan.
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data[-4096:]
    return False


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which frame2 comes before frame10; equal numbers in different spelling keep a fixed order.

    Example:
        >>> [path.name for path in sorted([Path("f10.png"), Path("f2.png")], key=natural_key)]
        ['f2.png', 'f10.png']
    """
    parts = re.split(r"(\d+)", path.name)
    key = [(1, int(part), "") if place % 2 else (0, 0, part.casefold()) for place, part in enumerate(parts)]
    return [*key, (0, 0, path.name), (0, 0, str(path))]


def open_form(path: Path, fps: float | None = None) -> Source:
    """Open a folder, glob, numbered pattern or single image. Raises SourceError if no image is found."""
    rate = check_fps(fps) or DEFAULT_FPS
    if path.is_file():
        return ImageSource(str(path), [path], [0], rate)
    if path.is_dir():
        paths = _list_folder(path)
    elif pattern := re.search(r"%(?:0(\d+))?d", path.name):
        numbered = _list_numbered(path, pattern)
        return ImageSource(str(path), [found for _, found in numbered], [number for number, _ in numbered], rate)
    else:
        paths = [found for found in map(Path, glob.glob(str(path))) if found.is_file()]
        if not paths:
            raise SourceError(f"{path}: no file matches; give a folder, glob or %06d pattern of images")
    paths.sort(key=natural_key)
    return ImageSource(str(path), paths, list(range(len(paths))), rate)


def _list_folder(folder: Path) -> list[Path]:
    try:
        paths = [entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    except OSError as error:
        raise SourceError(f"{folder}: folder cannot be read ({error.strerror or error})") from error
    if not paths:
        raise SourceError(f"{folder}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def _list_numbered(path: Path, pattern: re.Match[str]) -> list[tuple[int, Path]]:
    """Files whose names the printf pattern would print, by number."""
    width = int(pattern[1] or 0)
    before, after = path.name[: pattern.start()], path.name[pattern.end() :]
    name = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    found = []
    if path.parent.is_dir():
        for entry in path.parent.iterdir():
            match = name.fullmatch(entry.name)
            if match and f"{int(match[1]):0{width}d}" == match[1] and entry.is_file():
                found.append((int(match[1]), entry))
    if not found:
        raise SourceError(f"{path}: no file of this numbered pattern exists")
    return sorted(found)

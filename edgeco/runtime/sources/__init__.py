"""Sources of frames: ``open_source`` turns a URI into frames.

========================================  ============================================================
``clip.mp4``, ``file:///data/clip.mkv``   a recording, every frame of it
``frames/``, ``frames/*.png``             a folder or glob of images, in natural order
``frames/%06d.png``                       numbered images; a missing number is a gap
``photo.jpg``                             one image
``pattern://motion``, ``pattern://bars``  synthetic pictures (``edgeco.runtime.sources.pattern``)
========================================  ============================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from edgeco.errors import SourceError, SpecError
from edgeco.runtime.sources.base import Source

__all__ = ["IMAGE_SUFFIXES", "SUPPORTED", "Source", "open_source"]

SUPPORTED = "a video file, a folder, glob or %06d pattern of images, or pattern://motion and pattern://bars"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"})

_LIVE_SCHEMES = frozenset(
    {"csi", "v4l2", "rtsp", "rtsps", "rtmp", "rtp", "udp", "tcp", "srt", "webrtc", "http", "https"}
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NUMBERED = re.compile(r"%(0\d+)?d")


def open_source(uri: str | os.PathLike[str], **options: Any) -> Source:
    """Open a source of frames.

    Args:
        uri: one of the forms of this module's table; a path object is always a path.
        options: ``fps``, for files and images: the rate that replaces the recording's own time stamps, and the rate
            of images, which have none (30 unless given).

    Raises:
        SourceError: the source does not exist, cannot be read, or is of a form this release does not read.
        SpecError: an option or a parameter of the URI is not usable.

    Example:
        >>> with open_source("pattern://bars?size=64x48&frames=3") as source:
        ...     [frame.index for frame in source]
        [0, 1, 2]
    """
    text = os.fspath(uri)
    path = Path(text) if isinstance(uri, os.PathLike) else None
    if path is None:
        _refuse_live(text)
        scheme = _SCHEME.match(text)
        if scheme is None:
            path = Path(text)
        elif scheme[1].lower() == "file":
            path = _file_path(text)
        elif scheme[1].lower() != "pattern":
            raise SourceError(f"sources of the form {scheme[1]}:// do not exist; supported are {SUPPORTED}")
    module = "pattern" if path is None else _path_form(path)
    open_form: Callable[..., Source] = import_module(f"edgeco.runtime.sources.{module}").open_form
    try:
        return open_form(text if path is None else path, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise SpecError(f"{text}: this source takes no such option ({error})") from error


def _refuse_live(uri: str) -> None:
    """Name live forms without repeating the URI, which may hold a password."""
    scheme = _SCHEME.match(uri)
    if " ! " in uri:
        form = "GStreamer pipelines"
    elif re.fullmatch(r"\d+", uri):
        form = f"camera numbers ({uri})"
    elif re.fullmatch(r"/dev/video\d+", uri):
        form = f"camera devices ({uri})"
    elif scheme is not None and scheme[1].lower() in _LIVE_SCHEMES:
        form = f"live sources of the form {scheme[1].lower()}://"
    else:
        return
    raise SourceError(f"{form} are not supported in this release; supported are {SUPPORTED}")


def _file_path(uri: str) -> Path:
    parts = urlsplit(uri.replace("?", "%3F").replace("#", "%23"))
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise SourceError(f"{uri}: a file URI has three slashes and an absolute path, as in file:///data/clip.mp4")
    return Path(unquote(parts.path))


def _path_form(path: Path) -> str:
    """The module that reads a path: ``images`` or ``video``. Raises SourceError if nothing is there."""
    try:
        if path.is_dir():
            return "images"
        if path.exists():
            return "images" if path.suffix.lower() in IMAGE_SUFFIXES else "video"
    except (OSError, ValueError) as error:
        raise SourceError(f"{str(path)[:200]}: not a usable path ({error})") from error
    if _NUMBERED.search(path.name) or any(c in str(path) for c in "*?["):
        return "images"
    raise SourceError(f"{path}: no such file or folder; supported sources are {SUPPORTED}")

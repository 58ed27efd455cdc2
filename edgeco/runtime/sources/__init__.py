"""Sources of frames: ``open_source`` turns a URI into frames.

=============================================  =========================================================
``0``, ``/dev/video0``, ``v4l2:///dev/video0``  a camera of this machine
``csi://0``                                    a camera on a Jetson's CSI connector (needs GStreamer)
``rtsp://…``, ``rtsps://…``                    a network camera
``http://…``, ``https://…``                    a stream of MJPEG
``… ! appsink``                                a GStreamer pipeline (needs GStreamer)
``clip.mp4``, ``file:///data/clip.mkv``        a recording, every frame of it
``frames/``, ``frames/*.png``                  a folder or glob of images, in natural order
``frames/%06d.png``                            numbered images; a missing number is a gap
``photo.jpg``                                  one image
``pattern://motion``, ``pattern://bars``       synthetic pictures; as a live source with ``?live=1``
``values.csv``, ``values.jsonl``               rows of a sensor's values
``-``                                          rows of values as JSON lines on standard input
=============================================  =========================================================

``${NAME}`` in a URI is the environment's variable of that name. docs/sources.md has parameters, options and states.
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
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.base import Source
from edgeco.runtime.sources.status import SourceEvent, SourceStatus, State

__all__ = ["IMAGE_SUFFIXES", "SUPPORTED", "Source", "SourceEvent", "SourceStatus", "State", "open_source"]

SUPPORTED = (
    "a camera's number, /dev/video0, csi://0, rtsp://, http://, a GStreamer pipeline, a video file, a folder, glob or "
    "%06d pattern of images, pattern://motion and pattern://bars, a .csv or .jsonl file of values, and - for values on "
    "standard input"
)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"})
SENSOR_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NUMBERED = re.compile(r"%(0\d+)?d")
_CAMERA = re.compile(r"[0-9]{1,4}|/dev/(video[0-9]+|v4l/.+)")
_SCHEMES = {
    "v4l2": "camera.open_form",
    "csi": "pipelines.open_csi",
    "rtsp": "network.open_form",
    "rtsps": "network.open_form",
    "http": "network.open_form",
    "https": "network.open_form",
    "pattern": "pattern.open_form",
}


def open_source(uri: str | os.PathLike[str], **options: Any) -> Source:
    """Open a source of frames. A live one is opened in a thread of its own, when the first frame is asked for.

    Args:
        uri: one of the forms of this module's table; a path object is always a path.
        options: what a URI's parameters can say too, and those of ``Patience`` for live sources. ``fps`` of files,
            images and rows of values is the rate that replaces the recording's own time stamps, and the rate of images,
            which have none (30 unless given); that of a camera is asked of it.

    Raises:
        SourceError: the source has no name, does not exist, cannot be read, or is of a form that this OpenCV does not
            read.
        SpecError: an option or a parameter of the URI is not usable, or a variable of the environment is not set.

    Example:
        >>> with open_source("pattern://bars?size=64x48&frames=3") as source:
        ...     [frame.index for frame in source]
        [0, 1, 2]
    """
    if isinstance(uri, os.PathLike):
        path = Path(os.fspath(uri))
        return _open(_path_form(path), path, path, options)
    if not uri.strip():
        raise SourceError(f"no source is named; supported are {SUPPORTED}")
    address = Address(uri, whole=" ! " not in uri)
    text = address.reveal()
    scheme = _SCHEME.match(text)
    if " ! " in text:
        return _open("pipelines.open_raw", address, address, options)
    if _CAMERA.fullmatch(text):
        return _open("camera.open_form", address, address, options)
    if scheme is not None and scheme[1].lower() in _SCHEMES:
        return _open(_SCHEMES[scheme[1].lower()], address, address, options)
    if text == "-":
        return _open("sensors.open_stdin", address, address, options)
    if scheme is not None and scheme[1].lower() != "file":
        raise SourceError(f"sources of the form {scheme[1]}:// are not supported; supported are {SUPPORTED}")
    path = Path(text) if scheme is None else _file_path(text, address)
    return _open(_path_form(path), path, address, options)


def _open(form: str, target: Path | Address, shown: Path | Address, options: dict[str, Any]) -> Source:
    module, function = form.split(".")
    open_form: Callable[..., Source] = getattr(import_module(f"edgeco.runtime.sources.{module}"), function)
    try:
        return open_form(target, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise SpecError(f"{shown}: this source takes no such option ({error})") from None


def _file_path(uri: str, address: Address) -> Path:
    parts = urlsplit(uri.replace("?", "%3F").replace("#", "%23"))
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise SourceError(f"{address}: a file URI has three slashes and an absolute path, as in file:///data/clip.mp4")
    return Path(unquote(parts.path))


def _path_form(path: Path) -> str:
    """The opener of a path. Raises SourceError if nothing is there."""
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            return "images.open_form"
        if path.exists():
            module = "images" if suffix in IMAGE_SUFFIXES else "sensors" if suffix in SENSOR_SUFFIXES else "video"
            return f"{module}.open_form"
    except (OSError, ValueError) as error:
        raise SourceError(f"{str(path)[:200]}: not a usable path ({error})") from error
    if _NUMBERED.search(path.name) or any(c in str(path) for c in "*?["):
        return "images.open_form"
    raise SourceError(f"{path}: no such file or folder; supported sources are {SUPPORTED}")

"""Streams of the network: ``rtsp://``, ``rtsps://`` and MJPEG by ``http://`` and ``https://``, read by FFmpeg.

Options stand behind a ``#``, which no server sees: ``rtsp://camera/live#read_timeout=2&attempts=10``.
"""

from __future__ import annotations

import math
import os
import re
import socket
from typing import Any

from edgeco.errors import SourceError
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.base import Source, import_cv2
from edgeco.runtime.sources.capture import CaptureProducer, Opener, has_backend
from edgeco.runtime.sources.live import LiveSource, split_patience
from edgeco.runtime.sources.parameters import only, parse_parameters, rate, split_options
from edgeco.runtime.sources.patience import Patience
from edgeco.runtime.sources.pipelines import APPSINK, PipelineProducer
from edgeco.runtime.sources.producer import Lost

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


class StreamProducer(CaptureProducer):
    """One stream by FFmpeg. RTSP goes over TCP, unless ``OPENCV_FFMPEG_CAPTURE_OPTIONS`` says otherwise."""

    backend = "ffmpeg"

    def __init__(self, address: Address, patience: Patience, url: str, opener: Opener | None = None) -> None:
        super().__init__(address, patience, opener)
        self._url = url

    def _target(self) -> tuple[str, int]:
        knock(self._url, self._patience.open_timeout)
        return self._url, self._cv2.CAP_FFMPEG

    def _unopened(self, seconds: float) -> str:
        if seconds >= self._patience.open_timeout * 0.9:
            return f"no answer within {seconds:.0f} s"
        return "the server is there, but gives no stream; check the path and the credentials"

    def _unread(self, seconds: float) -> Exception:
        if seconds >= self._patience.read_timeout * 0.9:
            return Lost(f"no frame for {seconds:.1f} s")
        return Lost("the stream ended or its connection was lost")


class RtspPipelineProducer(PipelineProducer):
    """An RTSP stream by GStreamer, for builds of OpenCV that have it and no FFmpeg."""

    def __init__(self, address: Address, patience: Patience, url: str, opener: Opener | None = None) -> None:
        pipeline = gstreamer_pipeline(url, patience.read_timeout)
        super().__init__(address, patience, pipeline, ends=False, opener=opener)
        self._url = url

    def _target(self) -> tuple[str, int]:
        knock(self._url, self._patience.open_timeout)
        return super()._target()


def knock(url: str, seconds: float) -> None:
    """Connect to a stream's server and hang up, to learn what FFmpeg and GStreamer do not tell.

    Before OpenCV 4.7 a pipeline whose server refuses it may also never return from being opened.

    Raises:
        Lost: there is no such host, it refuses, or it does not answer.
    """
    scheme, _, rest = url.partition("://")
    place = re.match(r"(\[[^\]]+\]|[^:/?#]+)(?::([0-9]{1,5}))?(?=[/?#]|$)", rest.rpartition("@")[2])
    proxies = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    if place is None or (scheme.lower().startswith("http") and any(os.environ.get(name) for name in proxies)):
        return
    port = int(place[2] or _PORTS[scheme.lower()])
    try:
        socket.create_connection((place[1].strip("[]"), port), seconds).close()
    except socket.gaierror:
        raise Lost("there is no host of this name; check name and network") from None
    except (TimeoutError, OverflowError, UnicodeError):
        raise Lost(f"no answer within {seconds:g} s") from None
    except OSError as error:
        raise Lost(f"its server cannot be reached ({(error.strerror or str(error)).lower()})") from None


def gstreamer_pipeline(url: str, timeout: float = 10.0) -> str:
    """An RTSP stream as a pipeline.

    Args:
        url: of the stream.
        timeout: seconds to wait for the server.
    """
    # Quoted for GStreamer's parser, since a URL may hold any of its signs.
    quoted = re.sub(r'(["\\])', r"\\\1", url)
    return (
        f'rtspsrc location="{quoted}" protocols=tcp tcp-timeout={math.ceil(timeout * 1e6)} latency=100 '
        "drop-on-latency=true ! decodebin ! videoconvert ! "
        f"video/x-raw,format=BGR ! {APPSINK}"
    )


def open_form(address: Address, **options: Any) -> Source:
    """Open a stream. ``backend``: ``ffmpeg``, or ``gstreamer`` for RTSP; FFmpeg where this OpenCV has it otherwise.

    Raises:
        SourceError: this OpenCV cannot open it.
        SpecError: an option is not usable.
    """
    url, text = split_options(address.reveal())
    given = {**parse_parameters(text, address), **options}
    opener = given.pop("opener", None)
    patience, given = split_patience(given)
    only(given, ("fps", "backend"), address)
    fps = rate(given["fps"]) if given.get("fps") is not None else None
    producer = _producer(address, patience, url, given.get("backend"), opener)
    return LiveSource(address, producer, fps=fps, patience=patience)


def _producer(
    address: Address, patience: Patience, url: str, backend: str | None, opener: Opener | None
) -> CaptureProducer:
    cv2 = import_cv2("a network stream")
    rtsp = url.lower().startswith("rtsp")
    if backend in (None, "ffmpeg") and has_backend(cv2, "FFMPEG"):
        return StreamProducer(address, patience, url, opener)
    if backend in (None, "gstreamer") and rtsp and has_backend(cv2, "GStreamer"):
        return RtspPipelineProducer(address, patience, url, opener)
    asked = f" by {backend}" if backend else ""
    raise SourceError(
        f"{address}: this OpenCV ({cv2.__version__}) cannot read network streams{asked}; it needs FFmpeg, or for RTSP "
        "GStreamer"
    )

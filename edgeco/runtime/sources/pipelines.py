"""GStreamer pipelines: raw ones, and the one for cameras on a Jetson's CSI connector.

``csi://0?width=640&height=360&fps=30&flip=2`` becomes a pipeline that scales in the camera's own hardware, so that the
processor only ever sees pictures of the size asked for.
"""

from __future__ import annotations

import re
from typing import Any

from edgeco.errors import SpecError
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.base import Source
from edgeco.runtime.sources.capture import CaptureProducer, Opener, need_gstreamer, timeouts, version
from edgeco.runtime.sources.live import LiveSource, split_patience
from edgeco.runtime.sources.parameters import only, parse_parameters, rate, whole
from edgeco.runtime.sources.patience import Patience
from edgeco.runtime.sources.producer import Lost, Over

APPSINK = "appsink drop=true max-buffers=1 sync=false"
"""The end of a live pipeline: the newest picture only, and as soon as it is there."""

FLIPS = ("none", "90 left", "180", "90 right", "mirrored", "upper right", "upside down", "upper left")
"""What ``flip`` turns a picture by, by nvvidconv's number."""


class PipelineProducer(CaptureProducer):
    """A pipeline that ends in an appsink.

    Args:
        pipeline: the whole of it.
        ends: whether its end is the end of the source; otherwise it is started again.
    """

    backend = "gstreamer"

    def __init__(
        self, address: Address, patience: Patience, pipeline: str, *, ends: bool, opener: Opener | None = None
    ) -> None:
        super().__init__(address, patience, opener)
        self._pipeline, self._ends = pipeline, ends

    def _target(self) -> tuple[str, int]:
        return self._pipeline, self._cv2.CAP_GSTREAMER

    def _timeouts(self) -> list[int]:
        # Before 4.7 OpenCV knows no timeouts of pipelines and refuses to open one with them.
        return timeouts(self._patience) if version(self._cv2) >= (4, 7) else []

    def _unopened(self, seconds: float) -> str:
        if seconds >= self._patience.open_timeout:
            return f"its pipeline gave no picture for {seconds:.0f} s"
        return (
            "GStreamer cannot start its pipeline; gst-launch-1.0 -v with the same pipeline says why, and GST_DEBUG=2 "
            "here"
        )

    def _unread(self, seconds: float) -> Exception:
        if seconds >= self._patience.read_timeout * 0.9:
            return Lost(f"its pipeline gave no picture for {seconds:.1f} s")
        ended = "its pipeline ended; GStreamer does not tell OpenCV whether by an error"
        return Over(ended) if self._ends and self._frames else Lost("its pipeline ended or failed")


def csi_pipeline(
    sensor: int,
    width: int = 1280,
    height: int = 720,
    fps: float = 30,
    flip: int = 0,
    capture: tuple[int, int] | None = None,
    *,
    camera: str | None = None,
    scaler: str | None = None,
) -> str:
    """The pipeline for a camera on the CSI connector.

    Args:
        sensor: number of the camera.
        width, height: of the pictures.
        fps: their rate.
        flip: one of ``FLIPS``, by number.
        capture: width and height that the camera captures; 1920x1080 up to 30 fps, else 1280x720, unless given.
        camera, scaler: what stands in for nvarguscamerasrc and nvvidconv where there is no Jetson.

    Example:
        >>> csi_pipeline(0, 640, 360).split(" ! ")[2:]  # doctest: +NORMALIZE_WHITESPACE
        ['nvvidconv flip-method=0', 'video/x-raw,width=640,height=360,format=BGRx', 'videoconvert',
         'video/x-raw,format=BGR', 'appsink drop=true max-buffers=1 sync=false']
    """
    wide, high = capture or ((1920, 1080) if fps <= 30 else (1280, 720))
    memory = "(memory:NVMM)" if camera is None else ""
    rate_text = f"{fps:g}/1" if float(fps).is_integer() else f"{round(fps * 1000)}/1000"
    return " ! ".join(
        (
            camera or f"nvarguscamerasrc sensor-id={sensor}",
            f"video/x-raw{memory},width={wide},height={high},framerate={rate_text},format=NV12",
            scaler or f"nvvidconv flip-method={flip}",
            f"video/x-raw,width={width},height={height},format=BGRx",
            "videoconvert",
            "video/x-raw,format=BGR",
            APPSINK,
        )
    )


def open_csi(address: Address, **options: Any) -> Source:
    """Open ``csi://N?width&height&fps&flip&capture``. Raises SourceError without GStreamer, SpecError for its values.

    ``camera`` and ``scaler``, as options only, stand in for the Jetson's elements.
    """
    place, _, query = address.reveal().partition("?")
    given = {**parse_parameters(query, address), **options}
    opener = given.pop("opener", None)
    elements = {name: given.pop(name) for name in ("camera", "scaler") if name in given}
    patience, given = split_patience(given)
    only(given, ("width", "height", "fps", "flip", "capture"), address)
    number = re.fullmatch(r"(?i)csi://([0-9]{1,3})/?", place)
    if number is None:
        raise SpecError(f"{address}: give the number of the camera, as in csi://0")
    values: dict[str, Any] = {
        "width": whole(given.get("width", 1280), "width", 16, 16384),
        "height": whole(given.get("height", 720), "height", 16, 16384),
        "flip": whole(given.get("flip", 0), "flip", 0, len(FLIPS) - 1),
    }
    fps = rate(given["fps"]) if given.get("fps") is not None else 30.0
    capture = _size(str(given["capture"])) if "capture" in given else None
    need_gstreamer("a camera on the CSI connector")
    pipeline = csi_pipeline(int(number[1]), fps=fps, capture=capture, **values, **elements)
    producer = PipelineProducer(address, patience, pipeline, ends=False, opener=opener)
    return LiveSource(address, producer, fps=fps, patience=patience)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    return whole(width, "the width of capture", 16, 16384), whole(height, "the height of capture", 16, 16384)


def open_raw(address: Address, **options: Any) -> Source:
    """Open a pipeline as it is written. Raises SourceError without GStreamer, SpecError if it does not end in appsink.

    ``ends``: whether its end is the source's (the default), or it is started again as if lost.
    """
    opener, ends = options.pop("opener", None), options.pop("ends", True)
    patience, options = split_patience(options)
    only(options, ("fps",), address)
    fps = rate(options["fps"]) if options.get("fps") is not None else None
    pipeline = address.reveal()
    if not re.search(r"!\s*appsink\b[^!]*$", pipeline):
        raise SpecError(f"{address}: a pipeline must end in an appsink, best as ' ! {APPSINK}'")
    need_gstreamer("a GStreamer pipeline")
    producer = PipelineProducer(address, patience, pipeline, ends=bool(ends), opener=opener)
    return LiveSource(address, producer, fps=fps, patience=patience)

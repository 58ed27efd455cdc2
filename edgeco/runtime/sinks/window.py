"""The source's pictures with the answers drawn in, in a window."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

from edgeco.errors import SpecError
from edgeco.runtime.sinks.base import Delivery, Keeps
from edgeco.runtime.sinks.drawing import Painter
from edgeco.runtime.sources.base import import_cv2


class Window:
    """Shows pictures in a window; the keys q and Escape call ``quit``.

    Args:
        title: of the window.
        quit: called, in the sink's thread, when a key asks for the end.

    Raises:
        SourceError: OpenCV is not installed.
        SpecError: this OpenCV opens no windows, or there is no display.
    """

    name = "window"
    keeps = Keeps.NEWEST
    pictures = True

    def __init__(self, title: str = "edgeco", quit: Callable[[], object] | None = None) -> None:
        self._cv2: Any = import_cv2("showing a window")
        _check_display(self._cv2)
        self._title, self._quit, self._paint = title, quit, Painter()
        self._open = False

    def take(self, delivery: Delivery) -> None:
        image = self._paint(delivery)
        if image is None:
            return
        # OpenCV's windows belong to the thread that opened them.
        if not self._open:
            self._cv2.namedWindow(self._title, self._cv2.WINDOW_NORMAL)
            self._open = True
        self._cv2.imshow(self._title, image)
        if self._cv2.waitKey(1) & 0xFF in (ord("q"), 27) and self._quit is not None:
            self._quit()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._cv2.destroyWindow(self._title)


def _check_display(cv2: Any) -> None:
    """Raises SpecError where ``imshow`` would fail, or end the process as Qt does without a display."""
    gui = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    if gui is None or gui[1].upper() == "NONE":
        raise SpecError(
            "this OpenCV is a headless build and opens no windows; install opencv-python in its place, or save a video"
        )
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise SpecError("there is no display to show a window on (DISPLAY is not set); save a video instead")

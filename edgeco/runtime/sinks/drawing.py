"""Answers drawn into pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeco.errors import SourceError
from edgeco.runtime.sinks.base import Delivery
from edgeco.runtime.sources.base import import_cv2

_Image = np.ndarray[Any, np.dtype[np.uint8]]
_LINES = 3


class Painter:
    """Draws the last valid answer and a line of facts into pictures.

    Raises:
        SourceError: OpenCV is not installed.
    """

    def __init__(self) -> None:
        self._cv2: Any = import_cv2("drawing answers")
        self._top: list[Mapping[str, Any]] = []

    def __call__(self, delivery: Delivery) -> _Image | None:
        """A picture of its own with what is known of it; None where the frame's picture was dropped.

        Raises:
            SourceError: the frame is no picture but a sensor's values.
        """
        record = delivery.record
        self._top = record.get("top", self._top)
        image = delivery.frame.image
        if not image.size:
            return None
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise SourceError("the source gives values and no pictures, so there is nothing to draw answers into")
        drawn: _Image = image.copy()
        texts = [f"{score['label']} {score['score'] or 0:.2f}" for score in self._top[:_LINES]]
        state = "" if record["warm"] else "warming up" if record["stepped"] else str(record.get("why", ""))
        texts.append(" ".join(filter(None, (f"{record['stamp']:.2f} s", state))))
        self._write(drawn, texts)
        return drawn

    def _write(self, image: _Image, texts: list[str]) -> None:
        cv2 = self._cv2
        scale = max(0.4, min(image.shape[:2]) / 600)
        height = int(28 * scale) + 4
        # Shade, not a filled box: what lies under the text stays to be seen.
        band = image[: height * len(texts) + 6]
        np.multiply(band, 0.5, out=band, casting="unsafe")
        for place, text in enumerate(texts):
            where = (8, height * (place + 1))
            line = text.encode("ascii", "replace").decode()  # OpenCV's fonts hold no more
            cv2.putText(image, line, where, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)

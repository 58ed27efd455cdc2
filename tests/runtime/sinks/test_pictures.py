"""Answers drawn into pictures: a video file, and a window where there can be one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeco.errors import SourceError, SpecError, WriteError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sinks import AnnotatedVideo, Delivery, Window, window
from edgeco.runtime.sinks.drawing import Painter

cv2 = pytest.importorskip("cv2", reason="pictures are drawn with OpenCV")


def delivery(index: int, stamp: float, image: np.ndarray | None = None, **record: Any) -> Delivery:
    picture = np.full((60, 80, 3), 100 + index, np.uint8) if image is None else image
    entry = {"index": index, "stamp": stamp, "stepped": 1, "warm": True, **record}
    return Delivery(Frame(picture, stamp, "file", index), None, entry)


def top(label: str, score: float | None = 0.5) -> dict[str, Any]:
    return {"top": [{"index": 0, "label": label, "score": score}]}


def read(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    pictures = []
    while (got := capture.read())[0]:
        pictures.append(got[1])
    return pictures


def test_answers_are_drawn_into_a_copy() -> None:
    paint = Painter()
    given = delivery(0, 0.0, **top("red"))
    drawn = paint(given)
    assert drawn is not None and drawn.shape == (60, 80, 3)
    assert (given.frame.image == 100).all(), "the frame is other sinks' too"
    assert (drawn[-1] == 100).all() and (drawn[:20] != 100).any()
    again = paint(delivery(0, 0.0, stepped=0, why="rate"))
    assert again is not None and (again != 100).any(), "the last answer stays until there is another"
    assert paint(delivery(0, 0.0, **top("größe\x1b", None))) is not None
    assert paint(delivery(0, 0.0, np.empty((0, 0, 3), np.uint8))) is None
    with pytest.raises(SourceError, match="values and no pictures"):
        paint(delivery(0, 0.0, np.zeros(7, np.float32)))


@pytest.mark.parametrize("name", ["x.mp4", "x.avi", "x.mkv"])
def test_a_video_holds_every_picture(tmp_path: Path, name: str) -> None:
    sink = AnnotatedVideo(tmp_path / name, 10.0)
    for index in range(12):
        sink.take(delivery(index, 5 + index / 10, **top("red")))
    sink.close()
    sink.close()
    pictures = read(tmp_path / name)
    assert len(pictures) == sink.pictures_written == 12
    assert pictures[0].shape == (60, 80, 3)
    assert abs(float(pictures[-1][-10:].mean()) - 111) < 4


def test_a_videos_time_is_that_of_the_stamps(tmp_path: Path) -> None:
    """A picture is held while others are missing, one too many is left out, and after a long gap time goes on."""
    sink = AnnotatedVideo(tmp_path / "x.avi", 10.0)
    written = []
    for index, stamp in enumerate((0.0, 0.1, 0.13, 0.5, 60.0, 60.1, 0.0, 0.1)):
        sink.take(delivery(index, stamp))
        written.append(sink.pictures_written)
    sink.close()
    assert np.diff([0, *written]).tolist() == [1, 1, 0, 4, 1, 1, 1, 1]


def test_pictures_of_another_size_and_none(tmp_path: Path) -> None:
    sink = AnnotatedVideo(tmp_path / "x.avi", 10.0)
    for index, shape in enumerate([(60, 80, 3), (30, 50, 3), (0, 0, 3), (60, 80, 3)]):
        sink.take(delivery(index, index / 10, np.zeros(shape, np.uint8)))
    sink.close()
    assert {picture.shape for picture in read(tmp_path / "x.avi")} == {(60, 80, 3)}


def test_a_video_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"ends in \.mp4, \.mkv, \.avi"):
        AnnotatedVideo(tmp_path / "x.gif")
    with pytest.raises(SpecError, match="frame rate"):
        AnnotatedVideo(tmp_path / "x.mp4", -1)
    with pytest.raises(WriteError, match="cannot be opened"):
        AnnotatedVideo(tmp_path / "none" / "x.mp4")
    AnnotatedVideo(tmp_path / "empty.mp4").close()
    sink = AnnotatedVideo(tmp_path / "x.mp4")
    monkeypatch.setattr(cv2, "VideoWriter", lambda *_: SimpleNamespace(isOpened=lambda: False))
    with pytest.raises(WriteError, match="this OpenCV cannot write such a video"):
        sink.take(delivery(0, 0.0))


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi"])
def test_a_video_that_lies_there_in_part(tmp_path: Path, name: str) -> None:
    """OpenCV does not tell of a full disk: what is missing is found when the file is read back."""
    sink = AnnotatedVideo(tmp_path / name, 30)
    for number in range(40):
        sink.take(delivery(number, number / 30))
    sink.pictures_written += 20
    with pytest.raises(WriteError, match="of 60 pictures can be read back; is the disk full"):
        sink.close()


def build(text: str, **more: Any) -> Any:
    return SimpleNamespace(getBuildInformation=lambda: f"General\n  GUI:   {text}\n  Media I/O:\n", **more)


def test_headless_builds_and_machines_open_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "import_cv2", lambda purpose: build("NONE"))
    with pytest.raises(SpecError, match="headless build"):
        Window()
    monkeypatch.setattr(window, "import_cv2", lambda purpose: build("QT5"))
    monkeypatch.setattr(window.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SpecError, match="no display"):
        Window()


def test_a_window_shows_and_asks_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """With windows that only take notes: they are opened late, by the thread that shows, and closed once."""
    notes: list[Any] = []
    keys = iter([255, ord("q"), 27])
    fake = build(
        "GTK3",
        WINDOW_NORMAL=0,
        namedWindow=lambda title, flags: notes.append(("open", title)),
        imshow=lambda title, image: notes.append(("show", image.shape)),
        waitKey=lambda wait: next(keys),
        destroyWindow=lambda title: notes.append(("close", title)),
    )
    monkeypatch.setattr(window, "import_cv2", lambda purpose: fake)
    monkeypatch.setenv("DISPLAY", ":0")
    left: list[int] = []
    sink = Window("net", lambda: left.append(1))
    sink.take(delivery(0, 0.0, np.empty((0, 0, 3), np.uint8)))
    assert notes == []
    for index in range(3):
        sink.take(delivery(index, 0.0))
    sink.close()
    sink.close()
    assert notes == [("open", "net"), *[("show", (60, 80, 3))] * 3, ("close", "net")]
    assert len(left) == 2

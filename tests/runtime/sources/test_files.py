"""Forms of URI, images and what cannot be opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeco.errors import EdgecoError, SourceError, SpecError
from edgeco.runtime.sources import State, open_source
from edgeco.runtime.sources.images import natural_key
from edgeco.runtime.sources.live import LiveSource

cv2 = pytest.importorskip("cv2", reason="images are read with OpenCV")


def write_image(path: Path, grey: int = 100, size: tuple[int, int] = (6, 8)) -> Path:
    cv2.imwrite(str(path), np.full((*size, 3), grey, np.uint8))
    return path


def means(uri: str | Path) -> list[int]:
    with open_source(uri) as source:
        return [round(float(frame.image.mean())) for frame in source]


@pytest.mark.parametrize("uri", ["rtp://host", "webrtc://me:hunter2@host", "srt://host", "gopher://x"])
def test_other_forms_are_refused_in_one_sentence(uri: str) -> None:
    with pytest.raises(SourceError, match="are not supported; supported are a camera's number") as caught:
        open_source(uri)
    assert "hunter2" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("0", "CameraProducer"),
        ("12", "CameraProducer"),
        ("/dev/video0", "CameraProducer"),
        ("/dev/v4l/by-id/usb-cam-index0", "CameraProducer"),
        ("v4l2:///dev/video0?width=1280&height=720", "CameraProducer"),
        ("V4L2://2", "CameraProducer"),
        ("rtsp://user:hunter2@camera/stream", "StreamProducer"),
        ("RTSPS://user:hunter2@camera/stream", "StreamProducer"),
        ("http://user:hunter2@camera/x.mjpg", "StreamProducer"),
        ("https://camera/x.mjpg", "StreamProducer"),
        ("pattern://bars?live=1", "PatternProducer"),
    ],
)
def test_live_forms_open_nothing_before_a_frame_is_asked_for(uri: str, kind: str) -> None:
    source = open_source(uri)
    assert isinstance(source, LiveSource) and source.live
    assert type(source._reader._producer).__name__ == kind
    assert source.state is State.OPENING
    source.close()
    assert source.status().state is State.ENDED


def test_files_are_not_live_and_say_how_far_they_are(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", 10)
    with open_source(tmp_path) as source:
        assert not source.live
        assert source.state is State.OPENING
        assert source.wait(0) is not None
        status = source.status()
        assert (status.state, status.frames, status.captured, dict(status.drops)) == (State.RUNNING, 1, 1, {})
        assert (status.size, status.fps) == ((8, 6), 30)
        assert len(list(source)) == 2
        assert source.wait(1) is None
    assert source.state is State.ENDED
    (tmp_path / "9.png").write_bytes(b"")
    with open_source(tmp_path) as damaged:
        with pytest.raises(SourceError, match="empty"):
            list(damaged)
        assert damaged.state is State.FAILED
        with pytest.raises(SourceError, match="empty"):
            damaged.wait(0)


def test_unknown_forms_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="gopher://"):
        open_source("gopher://x")
    for missing in (tmp_path / "none.mp4", tmp_path / "none"):
        with pytest.raises(SourceError, match="no such file or folder") as caught:
            open_source(str(missing))
        assert str(missing) in str(caught.value)
    with pytest.raises(SourceError, match="three slashes"):
        open_source("file://host/clip.mp4")
    with pytest.raises(SourceError):
        open_source("bad\0path.mp4")


@given(st.text(max_size=40))
def test_any_text_is_a_source_or_an_error_of_our_own(text: str) -> None:
    try:
        open_source(text).close()
    except EdgecoError as error:
        assert str(error)


def test_file_uris(tmp_path: Path) -> None:
    folder = tmp_path / "with space #1?"
    folder.mkdir()
    path = write_image(folder / "a.png", 40)
    assert means(path.as_uri()) == [40]
    assert means(f"file://localhost{path.as_uri()[7:]}") == [40]
    assert means(path) == [40]


def test_a_path_object_is_never_another_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    write_image(tmp_path / "0" / "a.png", 70)
    assert means(Path("0")) == [70]


def test_options(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    with pytest.raises(SpecError, match="no such option"):
        open_source(path, colour="red")
    for fps in (0, -1, float("nan"), float("inf"), 1e9):
        with pytest.raises(SpecError, match="fps is"):
            open_source(path, fps=fps)


def test_folders_are_in_natural_order_and_skip_what_is_no_image(tmp_path: Path) -> None:
    for number in (1, 2, 10, 9, 100):
        write_image(tmp_path / f"frame{number}.png", number)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub.png").mkdir()
    assert means(tmp_path) == [1, 2, 9, 10, 100]
    assert means(str(tmp_path) + "/") == [1, 2, 9, 10, 100]
    assert means(str(tmp_path / "frame*.png")) == [1, 2, 9, 10, 100]
    assert means(str(tmp_path / "frame?.png")) == [1, 2, 9]


def test_image_frames(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", 50 * number)
    with open_source(tmp_path, fps=10) as source:
        frames = list(source)
    assert [frame.stamp for frame in frames] == pytest.approx([0, 0.1, 0.2])
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert {(frame.clock, frame.gap, frame.label) for frame in frames} == {("rate", 0, None)}
    assert frames[0].image.shape == (6, 8, 3)


def test_numbered_patterns_know_their_gaps(tmp_path: Path) -> None:
    for number in (3, 4, 7):
        write_image(tmp_path / f"f{number:06d}.png", number)
    write_image(tmp_path / "f08.png", 8)
    with open_source(str(tmp_path / "f%06d.png"), fps=2) as source:
        frames = list(source)
    assert [round(float(frame.image.mean())) for frame in frames] == [3, 4, 7]
    assert [frame.gap for frame in frames] == [0, 0, 2]
    assert [frame.stamp for frame in frames] == [0, 0.5, 2.0]
    assert [frame.index for frame in frames] == [0, 1, 2]


def test_unpadded_numbers(tmp_path: Path) -> None:
    for number in (9, 10, 11):
        write_image(tmp_path / f"{number}.png", number)
    write_image(tmp_path / "012.png", 12)
    assert means(str(tmp_path / "%d.png")) == [9, 10, 11]


@pytest.mark.parametrize("uri", ["", "*.png", "%06d.png"])
def test_no_images(tmp_path: Path, uri: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError) as caught:
        open_source(str(tmp_path / uri))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_an_unreadable_image_is_named(tmp_path: Path, suffix: str, damage: str) -> None:
    write_image(tmp_path / f"1{suffix}", 10)
    bad = tmp_path / f"2{suffix}"
    cv2.imwrite(str(bad), np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    data = bad.read_bytes()
    bad.write_bytes({"empty": b"", "text": b"hello", "cut": data[: len(data) // 2]}[damage])
    with open_source(tmp_path) as source:
        assert next(source).index == 0
        with pytest.raises(SourceError) as caught:
            next(source)
    assert str(bad) in str(caught.value)


def test_images_may_differ_in_size_and_kind(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", 10, (5, 7))
    cv2.imwrite(str(tmp_path / "2.png"), np.full((9, 3), 20, np.uint8))
    cv2.imwrite(str(tmp_path / "3.png"), np.full((4, 4, 4), 30, np.uint8))
    cv2.imwrite(str(tmp_path / "4.png"), np.full((4, 4, 3), 40 * 256, np.uint16))
    with open_source(tmp_path) as source:
        shapes = [(frame.image.shape, frame.image.dtype, round(float(frame.image.mean()))) for frame in source]
    assert [shape for shape, _, _ in shapes] == [(5, 7, 3), (9, 3, 3), (4, 4, 3), (4, 4, 3)]
    assert [mean for _, _, mean in shapes] == [10, 20, 30, 40]
    assert {dtype for _, dtype, _ in shapes} == {np.dtype(np.uint8)}


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1))
def test_natural_order_is_numeric(numbers: list[int]) -> None:
    paths = sorted((Path(f"f{number}.png") for number in numbers), key=natural_key)
    assert [int(path.stem[1:]) for path in paths] == sorted(numbers)


@given(st.lists(st.text(alphabet="aB1٣.-", min_size=1, max_size=6)))
def test_natural_order_takes_any_name(names: list[str]) -> None:
    paths = [Path(name) for name in names]
    backwards = paths[::-1]
    assert sorted(paths, key=natural_key) == sorted(backwards, key=natural_key)

"""Recordings: every frame, true stamps, and the ways in which a file can be wrong."""

from __future__ import annotations

import builtins
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeco.errors import SourceError
from edgeco.runtime.sources import open_source
from edgeco.runtime.sources.container import looks_like_text, read_container

sys.path.insert(0, str(Path(__file__).parents[1]))

from movies import CODECS, index_first, trimmed, write_movie

# Frames of the recordings in the test data, as its README and the players that count by decoding give them.
FRAMES = {
    "asl_again.mkv": 77,
    "asl_book.mkv": 109,
    "asl_eat.mkv": 47,
    "asl_hungry.mkv": 49,
    "asl_milk.mkv": 51,
    "asl_night.mkv": 68,
    "asl_please.mkv": 73,
    "asl_sister.mkv": 87,
    "asl_sorry.mkv": 73,
    "asl_walk.mkv": 89,
    "car-detection.mp4": 377,
    "nasa_13013.mp4": 325,
}


def decoded(path: Path) -> tuple[list[Any], str | None]:
    """All frames' stamps and the error that ended them, if any."""
    stamps = []
    try:
        with open_source(str(path)) as source:
            for frame in source:
                stamps.append(frame.stamp)
    except SourceError as error:
        return stamps, str(error)
    return stamps, None


def test_every_recording_reads_to_its_end(recordings: list[Path]) -> None:
    for path in recordings:
        stamps, error = decoded(path)
        assert error is None
        assert len(stamps) == FRAMES.get(path.name, len(stamps)), path.name
        assert stamps[0] == 0
        rises = np.diff(stamps)
        assert rises.min() > 0
        with open_source(path) as source:
            assert source.fps is not None
            assert np.allclose(rises, 1 / source.fps, atol=0.001), path.name


def test_recordings_end_cleanly_even_where_the_container_announces_more(recordings: list[Path]) -> None:
    announced = {path.name: open_source(path).announced for path in recordings}  # type: ignore[attr-defined]
    assert any(announced[name] > count for name, count in FRAMES.items() if name in announced), announced


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_cut_recordings_deliver_what_decodes_and_then_say_so(
    recordings: list[Path], tmp_path: Path, share: float
) -> None:
    for name in ("asl_again.mkv", "asl_eat.mkv", "car-detection.mp4"):
        whole = next(path for path in recordings if path.name == name)
        cut = tmp_path / f"cut{whole.suffix}"
        data = whole.read_bytes()
        cut.write_bytes(data[: int(len(data) * share)])
        stamps, error = decoded(cut)
        assert 0.3 * share * FRAMES[name] < len(stamps) < FRAMES[name]
        assert error is not None and "truncated" in error
        assert str(cut) in error and f"decoded {len(stamps)} of" in error and "announced" in error


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_own_recordings(tmp_path: Path, suffix: str) -> None:
    stamps, error = decoded(write_movie(tmp_path / f"clip{suffix}"))
    assert error is None
    assert np.allclose(stamps, np.arange(24) / 12, atol=0.001)


def test_frames_are_in_order_and_numbered(tmp_path: Path) -> None:
    with open_source(write_movie(tmp_path / "clip.avi")) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(24))
    assert {frame.gap for frame in frames} == {0}
    assert {frame.clock for frame in frames} == {"file"}
    assert np.all(np.diff([frame.image.mean() for frame in frames]) > 0)
    assert frames[0].image.shape == (64, 96, 3) and frames[0].image.dtype == np.uint8
    assert not np.shares_memory(frames[0].image, frames[1].image)


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_cut_own_recordings(tmp_path: Path, suffix: str, share: float) -> None:
    path = write_movie(tmp_path / f"clip{suffix}")
    data = index_first(path.read_bytes()) if suffix == ".mp4" else path.read_bytes()
    path.write_bytes(data)
    assert decoded(path)[1] is None
    path.write_bytes(data[: int(len(data) * share)])
    stamps, error = decoded(path)
    assert len(stamps) < 24
    assert error is not None and "truncated" in error
    if stamps:
        assert f"decoded {len(stamps)} of" in error and "24" in error


def test_mp4_without_its_index_cannot_be_opened(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[:-200])
    stamps, error = decoded(path)
    assert not stamps
    assert error is not None and "truncated" in error and str(path) in error


def test_frames_lost_in_the_middle_are_not_passed_over(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "clip.mp4")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = (start + data.index(b"moov")) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    stamps, error = decoded(path)
    if len(stamps) == 24:
        pytest.skip("this decoder conceals the damage")
    assert error is not None and f"decoded {len(stamps)} of 24 frames" in error


def test_a_trimmed_recording_is_sound(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "clip.mp4")
    data = path.read_bytes()
    assert read_container(path).exact
    path.write_bytes(trimmed(data, 0.5))
    assert not read_container(path).exact
    stamps, error = decoded(path)
    assert 0 < len(stamps) <= 24
    assert error is None


def test_stamps_can_be_replaced_by_a_rate(tmp_path: Path) -> None:
    with open_source(write_movie(tmp_path / "clip.avi"), fps=4) as source:
        frames = list(source)
    assert [frame.stamp for frame in frames] == [index / 4 for index in range(24)]
    assert {frame.clock for frame in frames} == {"rate"}


class Tape:
    """A capture of OpenCV that gives scripted stamps."""

    def __init__(self, stamps: list[float], fps: float, announced: float) -> None:
        self.stamps, self.fps, self.announced, self.place = stamps, fps, announced, -1

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, Any]:
        self.place += 1
        return self.place < len(self.stamps), np.zeros((2, 2, 3), np.uint8)

    def get(self, what: int) -> float:
        import cv2

        return {
            cv2.CAP_PROP_FPS: self.fps,
            cv2.CAP_PROP_FRAME_COUNT: self.announced,
            cv2.CAP_PROP_POS_MSEC: self.stamps[min(self.place, len(self.stamps) - 1)] if self.place >= 0 else 0,
        }[what]

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("stamps", "fps", "expected"),
    [
        ([0, 0, 0], 10, [0, 0.1, 0.2]),
        ([500, 600, 550, 700], 10, [0.5, 0.6, 0.7, 0.8]),
        ([-40, 0, 40], 25, [0, 0.04, 0.08]),
        ([0, float("nan"), 0], float("nan"), [0, 0.04, 0.08]),
        ([0, 0, 0], 0, [0, 0.04, 0.08]),
    ],
)
def test_stamps_always_rise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamps: list[float], fps: float, expected: list[float]
) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "raw.h264"
    path.write_bytes(b"\0\0\0\1" + bytes(100))
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Tape(stamps, fps, -1))
    given, error = decoded(path)
    assert error is None
    assert given == pytest.approx(expected)


@pytest.mark.parametrize(
    ("last", "announced", "complains"), [(9.9, 100, False), (9.2, 100, False), (5.0, 100, True), (8.9, 100, True)]
)
def test_an_estimate_missed_by_far_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: float, announced: float, complains: bool
) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "clip.flv"
    path.write_bytes(b"FLV\1" + bytes(100))
    stamps = list(np.linspace(0, last * 1000, 50))
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Tape(stamps, 10.0, announced))
    assert (decoded(path)[1] is not None) is complains


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "list.m3u8"])
def test_text_is_not_a_recording(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("#EXTM3U\nhéllo wörld\nhttp://example.org/clip.ts\n" * 300)
    with pytest.raises(SourceError, match="a text file, not a recording") as caught:
        open_source(path)
    assert str(path) in str(caught.value)


def test_text_is_told_from_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data, expected in [
        (b"plain\n", True),
        ("é".encode() * 3000, True),
        (b"a" + "é".encode() * 3000, True),
        ("a".encode("utf-16"), True),
        (b"\x1b[31mred", True),
        (b"\0\0\1\xba" + bytes(99), False),
        (b"abc\xff\xfe", False),
        (b"a" * 100 + b"\0", False),
        (b"", False),
    ]:
        path.write_bytes(data)
        assert looks_like_text(path) is expected, data[:20]


@pytest.mark.parametrize("data", [b"\x00\x01\x02\x03" * 500, b"RIFF\xff\xff\xff\xffAVI ", b"\x1aE\xdf\xa3" + bytes(50)])
def test_bytes_that_are_no_recording(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("cv2", reason="OpenCV is asked whether it can read them")
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    stamps, error = decoded(path)
    assert not stamps
    assert error is not None and str(path) in error


@pytest.mark.parametrize("data", [b"", b"\x1aE\xdf\xa3", b"\0\0\0\1ftyp", b"\0\0\0\7moovabc", b"RIFF1234AVI RIFF"])
def test_structure_of_stumps_can_be_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "stump"
    path.write_bytes(data)
    assert read_container(path).missing >= 0


def test_structure_survives_any_damage(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "clip.mp4", frames=4)
    rng = np.random.default_rng(0)
    whole = path.read_bytes()
    index = whole.index(b"moov")
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(4):
            data[rng.integers(index, len(data))] = rng.integers(256)
        path.write_bytes(data)
        read_container(path)


def test_empty_and_odd_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(SourceError, match="empty"):
        open_source(empty)
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match="not a regular file"):
        open_source(pipe)


def test_missing_opencv_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_movie(tmp_path / "clip.avi")
    real = builtins.__import__

    def without_cv2(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_cv2)
    with pytest.raises(SourceError, match=r"pip install 'edgeco\[camera\]'"):
        open_source(path)


def test_memory_stays_flat(recordings: list[Path]) -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("this system does not say how much memory is resident")

    def resident() -> int:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    longest = next(path for path in recordings if path.name == "car-detection.mp4")
    early = total = 0
    with open_source(longest) as source:
        for frame in source:
            total += frame.image.nbytes
            if frame.index == 60:
                early = resident()
    assert total > 300e6
    assert resident() - early < 30e6


def test_leaving_early_releases_the_file(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "clip.avi")
    with open_source(path) as source:
        next(source)
    assert list(source) == []
    source.close()

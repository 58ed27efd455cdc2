"""Recordings are read by the runtime's own code, drawn fairly, and refused in one sentence where they are unusable."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import one_sentence, written

from edgeco.bundle.manifest import Input, Manifest, Preprocessing
from edgeco.calibration.sources import Reading, open_recordings, shown_source
from edgeco.calibration.variants import frames_to_compare
from edgeco.errors import EdgecoError, FrameError, SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.preprocess import Preprocessor

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from toy_bundle import toy_manifest

SIZE = (12, 16)


def pictured(fps: float | None = None) -> Manifest:
    """What a network of pictures says it takes."""
    base = toy_manifest()
    timeline = type(base.timeline)(clip_length=3, receptive_field=3, delay=2, valid_from=2, warm_from=2, fps=fps)
    return toy_manifest(
        inputs=(Input(name="frame", shape=(*SIZE, 3), dtype="uint8", kind="image"),),
        preprocessing=Preprocessing(size=SIZE, resize="stretch", interpolation="area"),
        timeline=timeline,
    )


def pictures(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), rng.integers(0, 256, (24, 32, 3), np.uint8))
    return folder


def video(path: Path, count: int, fps: float = 10.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (32, 24))
    for index in range(count):
        writer.write(np.full((24, 32, 3), index * 20 % 256, np.uint8))
    writer.release()
    return path


def frames_of(recordings: list) -> list[np.ndarray]:  # type: ignore[type-arg]
    return [np.stack([frame["frame"].copy() for frame in recording.frames()]) for recording in recordings]


def test_a_folder_of_pictures_is_one_stream_prepared_as_by_the_runtime(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "shots", 4)
    manifest = pictured()
    (recording,) = open_recordings([str(folder)], manifest)
    assert (recording.name, recording.live) == ("shots", False)
    prepare = Preprocessor(manifest.preprocessing)
    expected = np.stack([prepare(cv2.imread(str(folder / f"{index}.png"))).copy() for index in range(4)])
    for _ in range(2):  # every time anew
        np.testing.assert_array_equal(frames_of([recording])[0], expected)


def test_a_video_is_held_to_the_networks_rate(tmp_path: Path) -> None:
    path = str(video(tmp_path / "v.avi", 20, fps=10))
    counts = {fps: len(frames_of(open_recordings([path], pictured(fps)))[0]) for fps in (None, 10.0, 5.0)}
    assert counts == {None: 20, 10.0: 20, 5.0: 10}
    assert len(frames_of(open_recordings([path], pictured(5.0), Reading(fps=0)))[0]) == 20
    assert len(frames_of(open_recordings([path], pictured(), Reading(seconds=0.5)))[0]) == 5


def test_recordings_are_drawn_of_every_class_in_proportion(tmp_path: Path) -> None:
    for label, count in (("wave", 6), ("point", 3), ("rest", 3)):
        for index in range(count):
            pictures(tmp_path / "set" / label / f"clip{index}", 2, seed=index)
    everything = open_recordings([str(tmp_path / "set")], pictured())
    assert len(everything) == 12
    drawn = [open_recordings([str(tmp_path / "set")], pictured(), streams=4, seed=seed) for seed in (0, 0, 1, 2, 3)]
    for recordings in drawn:
        assert Counter(r.name.split("/")[1] for r in recordings) == {"wave": 2, "point": 1, "rest": 1}
    names = [tuple(r.name for r in recordings) for recordings in drawn]
    assert names[0] == names[1] and len(set(names)) > 1


def test_values_of_a_sensor_are_streams(tmp_path: Path) -> None:
    manifest = toy_manifest()
    rows = "\n".join(f"{i},{i + 1},{i + 2}" for i in range(5))
    cases = np.random.default_rng(0).standard_normal((3, 6, 3)).astype(np.float32)
    np.savez(tmp_path / "cases.npz", x=cases, y=np.array([0, 1, 1]))
    recordings = open_recordings([str(written(tmp_path / "rows.csv", rows)), str(tmp_path / "cases.npz")], manifest)
    assert [recording.name for recording in recordings] == ["rows.csv", *(f"cases:case {i}" for i in (1, 2, 3))]
    found = frames_of(recordings)
    np.testing.assert_array_equal(found[0], np.arange(5)[:, None] + np.float32([0, 1, 2]))
    np.testing.assert_array_equal(np.stack(found[1:]), cases)


def test_arrays_of_unknown_rate_are_taken_frame_by_frame_and_others_at_their_own(tmp_path: Path) -> None:
    base = toy_manifest()
    timeline = type(base.timeline)(clip_length=3, receptive_field=3, delay=2, valid_from=2, warm_from=2, fps=10.0)
    cases = np.zeros((1, 60, 3), np.float32)
    np.savez(tmp_path / "bare.npz", x=cases)
    np.savez(tmp_path / "rated.npz", x=cases, fps=20.0)
    named = [str(tmp_path / f"{name}.npz") for name in ("bare", "rated")]
    found = frames_of(open_recordings(named, toy_manifest(timeline=timeline)))
    assert [len(frames) for frames in found] == [60, 30]


def test_an_endless_or_live_source_is_read_for_its_seconds() -> None:
    manifest = pictured()
    (endless,) = open_recordings(["pattern://bars?size=32x24&fps=10"], manifest, Reading(seconds=1.0))
    assert len(frames_of([endless])[0]) == 10 and not endless.live
    (camera,) = open_recordings(["pattern://bars?size=32x24&fps=50&live=1"], manifest, Reading(seconds=0.3))
    assert camera.live and 3 <= len(frames_of([camera])[0]) <= 16
    stopped = Reading(seconds=60, stop=lambda: True)
    (camera,) = open_recordings(["pattern://bars?size=32x24&fps=50&live=1"], manifest, stopped)
    assert len(frames_of([camera])[0]) <= 2


def test_a_callable_of_the_user_prepares_or_passes_over(tmp_path: Path) -> None:
    folder = str(pictures(tmp_path / "shots", 6))

    def every_second(frame: Frame) -> np.ndarray | None:
        return None if frame.index % 2 else np.full(3, frame.index, np.float32)

    (recording,) = open_recordings([folder], toy_manifest(), Reading(pre=every_second))
    np.testing.assert_array_equal(frames_of([recording])[0][:, 0], [0, 2, 4])


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/data/clips/a.mp4", "a.mp4"),
        ("0", "0"),
        ("rtsp://admin:hunter2@camera/live", "rtsp://***@camera/live"),
        ("rtsp://${WHO}:${PASSWORD}@camera/live?token=abcd", "rtsp://***@camera/live?token=***"),
        ("rtspsrc location=rtsp://a:secret@cam ! appsink", "rtspsrc location=rtsp://***@cam ! appsink"),
    ],
)
def test_what_is_kept_of_a_source_holds_no_folder_and_no_secret(source: str, shown: str) -> None:
    assert shown_source(source) == shown


def test_a_changed_file_has_another_fingerprint(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", "1,2,3\n4,5,6")
    before = open_recordings([str(path)], toy_manifest())[0].fingerprint
    assert open_recordings([str(path)], toy_manifest())[0].fingerprint == before
    path.write_text("1,2,3\n4,5,6\n7,8,9")
    assert open_recordings([str(path)], toy_manifest())[0].fingerprint != before


def cut(path: Path) -> Path:
    data = video(path, 30).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


BAD: dict[str, tuple[Callable[[Path], Path | str], str]] = {
    "no such thing": (lambda at: at / "none.mp4", "no such file or folder"),
    "an empty folder": (lambda at: at, "no recording in it"),
    "an empty file": (lambda at: written(at / "rows.csv", ""), "no row of values|is empty"),
    "a video that stops": (lambda at: cut(at / "v.avi"), "truncated"),
    "a row too short": (lambda at: written(at / "r.csv", "1,2,3\n4,5"), "line 2"),
    "rows of another network": (lambda at: written(at / "r.csv", "1,2\n4,5"), r"takes 3 values .* frame 0 has 2"),
    "pictures for values": (lambda at: pictures(at / "p", 2), "takes arrays, not pictures"),
    "a value that is none": (lambda at: written(at / "r.csv", "1,2,nan"), "which is no number"),
    "no archive": (lambda at: written(at / "x.npz", "nothing"), "cannot be read as arrays"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_unusable_is_told_in_one_sentence(tmp_path: Path, name: str) -> None:
    make, said = BAD[name]
    with pytest.raises(EdgecoError, match=said) as error:
        frames_of(
            open_recordings([str(make(tmp_path))], pictured() if name == "a video that stops" else toy_manifest())
        )
    assert "\n" not in str(error.value)


def test_options_that_are_none_are_refused(tmp_path: Path) -> None:
    path = str(written(tmp_path / "rows.csv", "1,2,3"))
    for options, said in (
        ({"streams": 0}, "streams is 0"),
        ({"reading": Reading(seconds=0)}, "seconds is 0"),
        ({"reading": Reading(seconds=math.nan)}, "seconds is nan"),
        ({"reading": Reading(fps=-1)}, "rate of the network is -1"),
    ):
        with pytest.raises(EdgecoError, match=said):
            open_recordings([path], toy_manifest(), **options)  # type: ignore[arg-type]
    with pytest.raises(EdgecoError, match="No source was given") as error:
        open_recordings([], toy_manifest())
    one_sentence(error.value)


def test_what_a_callable_makes_must_fit(tmp_path: Path) -> None:
    path = str(written(tmp_path / "rows.csv", "1,2,3"))
    for made, said in ((np.zeros(2, np.float32), r"prepared as float32\(2,\)"), ("x", "prepared as str")):
        with pytest.raises(EdgecoError, match=said):
            frames_of(open_recordings([path], toy_manifest(), Reading(pre=lambda frame, made=made: made)))


def test_what_a_camera_gave_is_read_once_and_held() -> None:
    (camera,) = open_recordings(["pattern://bars?size=32x24&fps=50&live=1"], pictured(), Reading(seconds=0.2))
    golden = np.zeros((1, *SIZE, 3), np.uint8)
    assert frames_to_compare(pictured(), [camera], golden) is golden, "not while it is yet to come"
    first = frames_of([camera])[0]
    np.testing.assert_array_equal(frames_of([camera])[0], first)
    np.testing.assert_array_equal(frames_to_compare(pictured(), [camera], golden), first)


def test_a_csv_of_a_case_in_each_line_is_a_stream_per_case(tmp_path: Path) -> None:
    rows = np.arange(5 * 12, dtype=np.float32).reshape(5, 12)
    lines = (f"{case % 2}," + ",".join(f"{value:g}" for value in row) for case, row in enumerate(rows))
    path = written(tmp_path / "tracks.csv", "\n".join(lines))
    found = open_recordings([str(path)], toy_manifest(), Reading(shape=(4, 3)))
    np.testing.assert_array_equal(np.stack(frames_of(found)), rows.reshape(5, 4, 3))
    drawn = open_recordings([str(path)], toy_manifest(), Reading(shape=(4, 3)), 2)
    assert len({frame["frame"][0] // 12 % 2 for recording in drawn for frame in recording.frames()}) == 2, (
        "of each class"
    )


@pytest.mark.parametrize(
    ("named", "reading", "said"),
    [
        (["  "], Reading(), "A source has no name"),
        (["pattern://bars"], Reading(shape=(4, 3)), "no source is one"),
    ],
)
def test_sources_that_are_none_are_told_before_they_are_opened(named: list[str], reading: Reading, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        open_recordings(named, pictured(), reading)


def test_of_many_recordings_the_one_is_named_that_does_not_fit(tmp_path: Path) -> None:
    for name, count in (("a", 3), ("b", 2)):
        written(tmp_path / f"{name}.csv", "\n".join(",".join("1" * count) for _ in range(3)))
    with pytest.raises(FrameError, match=r"b\.csv: .*takes 3 values"):
        frames_of(open_recordings([str(tmp_path)], toy_manifest()))

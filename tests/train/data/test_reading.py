"""What lies at a path becomes cases: folders of recordings, and files that hold many."""

from __future__ import annotations

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeco.bundle.manifest import Preprocessing
from edgeco.errors import DataError, SourceError
from edgeco.runtime.preprocess import Preprocessor
from edgeco.train.data import Data, read_data


def picture(seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def movie(path: Path, frames: int = 6, fps: float = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (32, 24))
    for seed in range(frames):
        writer.write(picture(seed))
    writer.release()


def pictures(folder: Path, frames: int = 3) -> None:
    folder.mkdir(parents=True)
    for i in range(frames):
        cv2.imwrite(str(folder / f"{i}.png"), picture(i))


def test_a_folder_per_class(tmp_path: Path) -> None:
    movie(tmp_path / "wave" / "p2_a.mp4")
    movie(tmp_path / "wave" / "p10_a.mp4")
    pictures(tmp_path / "point" / "p2_b")
    (tmp_path / "still").mkdir()
    (tmp_path / "still" / "p2.csv").write_text("1,2\n3,4\n")
    data = read_data(tmp_path, group=r"/p(\d+)")
    assert data.labels == ("point", "still", "wave") and data.counts == {"point": 1, "still": 1, "wave": 2}
    assert [(c.name, c.group) for c in data][2:] == [("wave/p2_a.mp4", "2"), ("wave/p10_a.mp4", "10")]
    assert [case.length for case in data] == [3, 2, 6, 6]
    assert np.array_equal(data[0].array(), np.stack([picture(i) for i in range(3)]))
    assert data[1].array().tolist() == [[1, 2], [3, 4]]


def test_recordings_without_classes(tmp_path: Path) -> None:
    movie(tmp_path / "a.mp4")
    (tmp_path / "README.md").write_text("not a recording")
    assert [(c.name, c.label) for c in read_data(tmp_path)] == [("a.mp4", None)]
    (single,) = read_data(tmp_path / "a.mp4")
    assert single.length == 6 and single.label is None


def test_pictures_are_prepared_as_the_runtime_prepares_them(tmp_path: Path) -> None:
    pictures(tmp_path / "a" / "one")
    how = Preprocessing(size=(12, 20), colour="gray", resize="letterbox", interpolation="area")
    prepare = Preprocessor(how)
    expected = np.stack([prepare(picture(i)).copy() for i in range(3)])
    assert np.array_equal(read_data(tmp_path).prepared(how)[0].array(), expected)


def test_a_recording_is_held_to_the_networks_rate(tmp_path: Path) -> None:
    movie(tmp_path / "a.mp4", frames=12, fps=30)
    data = read_data(tmp_path).prepared(None, fps=10)
    assert data[0].length == 4 and data.held()[0].array().shape == (4, 24, 32, 3)


def test_a_recording_that_stops_decoding_is_told(tmp_path: Path) -> None:
    movie(tmp_path / "a" / "cut.mp4", frames=60)
    whole = (tmp_path / "a" / "cut.mp4").read_bytes()
    (tmp_path / "a" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"cut\.mp4"):
        read_data(tmp_path).held()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([], "there is no recording in it"),
        (["notes.txt"], "there is no recording in it"),
        (["wave/notes.txt"], "wave: there is no recording in this class"),
        (["wave/a.csv", "b.csv"], r"it has recordings \(b.csv\) and folders of recordings \(wave\)"),
    ],
)
def test_folders_that_are_no_data_are_refused(tmp_path: Path, files: list[str], told: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1,2\n")
    with pytest.raises(DataError, match=told):
        read_data(tmp_path)


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_data(tmp_path / "nothing")
    (tmp_path / "wave").mkdir()
    (tmp_path / "wave" / "a.csv").write_text("1,2\n")
    with pytest.raises(DataError, match="its class 'wave' is not one of sit, run"):
        read_data(tmp_path, labels=("sit", "run"))
    with pytest.raises(DataError, match="is not found in this name"):
        read_data(tmp_path, group=r"subject(\d+)")
    with pytest.raises(DataError, match="no regular expression"):
        read_data(tmp_path, group="(")
    with pytest.raises(DataError, match="this is none"):
        read_data(tmp_path, shape=(2, 2))


def test_a_case_in_every_line(tmp_path: Path) -> None:
    path = tmp_path / "tracks.csv"
    path.write_text("1,0,0,1,2,3,4\n0,0,0,5,6,7,8\n")
    data = read_data(path, shape=(3, 2), labels=("stop", "move"), fps=20)
    assert [case.label for case in data] == [1, 0] and data[0].fps == 20
    assert data[0].array().tolist() == [[0, 0], [1, 2], [3, 4]] and data.frame_shape() == (2,)
    path.write_text("a,b,label,c,d\n1,2,wave,3,4\n")
    assert read_data(path, shape=(2, 2)).labels == ("wave",)
    path.write_text("1,0,0\n")
    with pytest.raises(DataError, match="row 1: 2 values beside the class"):
        read_data(path, shape=(3, 2))
    path.write_text("0.5,0,0,0,0\n")
    with pytest.raises(DataError, match=r"begins with 0\.5, which is no class"):
        read_data(path, shape=(2, 2))
    path.write_text("7,0,0,0,0\n")
    with pytest.raises(DataError, match="its class '7' is not one of stop, move"):
        read_data(path, shape=(2, 2), labels=("stop", "move"))
    path.write_text("0,nan,0,0,0\n")
    with pytest.raises(SourceError, match="no number"):
        read_data(path, shape=(2, 2))


TS = "#told\n@problemName x\n@timeStamps {stamps}\n@classLabel true Sit Run\n@data\n{lines}\n"


def test_the_uea_archives_format(tmp_path: Path) -> None:
    path = tmp_path / "cases.ts"
    path.write_text(TS.format(stamps="false", lines="1,2,3:4,5,6:Run\n7,8:9,10:Sit"))
    data = read_data(path, fps=10)
    assert data.labels == ("Sit", "Run") and [case.label for case in data] == [1, 0]
    assert data[0].array().tolist() == [[1, 4], [2, 5], [3, 6]] and [case.length for case in data] == [3, 2]
    for lines, told in (
        ("1,?:2,3:Run", "missing value"),
        ("1,2:3:Run", "its dimensions have 2, 1 values"),
        ("1,nan:3,4:Run", "frame 1 has a value that is not finite"),
        ("1,2:3,4:Fly", "its class 'Fly' is not one of Sit, Run"),
        ("", "no case in it"),
    ):
        path.write_text(TS.format(stamps="false", lines=lines))
        with pytest.raises(DataError, match=told):
            read_data(path)
    path.write_text(TS.format(stamps="true", lines="1,2:3,4:Run"))
    with pytest.raises(DataError, match="time stamps"):
        read_data(path)


def test_arrays(tmp_path: Path) -> None:
    path = tmp_path / "cases.npz"
    x = np.arange(24, dtype=np.float64).reshape(3, 4, 2)
    np.savez(path, x=x, y=[1, 0, 1], groups=["ann", "bob", "ann"], labels=["sit", "run"], fps=12.5)
    data = read_data(path)
    assert data.labels == ("sit", "run") and [c.label for c in data] == [1, 0, 1] and data[0].fps == 12.5
    assert [c.group for c in data] == ["ann", "bob", "ann"] and np.array_equal(data[1].array(), x[1].astype(np.float32))
    np.savez(path, x=x)
    assert [c.label for c in read_data(path)] == [None] * 3
    np.savez(path, x=x, y=["run", "sit", "run"])
    assert [c.label for c in read_data(path)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"y": [1]}, "the array x is missing"),
        ({"x": np.zeros((0, 9, 2))}, r"the array x is empty, \(0, 9, 2\)"),
        ({"x": np.zeros(3)}, r"the array x is float64\(3,\)"),
        ({"x": np.array([[[{}]]])}, "cannot be read as arrays of numbers"),
        ({"x": np.zeros((3, 2, 2)), "y": [1]}, "y has the shape"),
        ({"x": np.zeros((1, 2, 2)), "y": [2], "labels": ["a", "b"]}, "case 1 is of class 2"),
        ({"x": np.full((1, 2, 2), np.inf)}, "not finite"),
    ],
)
def test_arrays_that_are_no_data_are_refused(tmp_path: Path, arrays: dict[str, object], told: str) -> None:
    np.savez(tmp_path / "cases.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=told):
        read_data(tmp_path / "cases.npz")


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "cases.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=re.escape("cases.npz: it cannot be read")):
        read_data(tmp_path / "cases.npz")


def test_the_fingerprint_follows_the_bytes_and_not_the_place(tmp_path: Path) -> None:
    def make(root: Path, seed: int) -> Data:
        pictures(root / "a" / "one")
        cv2.imwrite(str(root / "a" / "one" / "0.png"), picture(seed))
        return read_data(root)

    first, same, other = (make(tmp_path / name, seed) for name, seed in (("x", 0), ("y", 0), ("z", 9)))
    assert first.fingerprint == same.fingerprint != other.fingerprint


@pytest.fixture
def recordings() -> Path:
    root = os.environ.get("EDGECO_TEST_DATA")
    if not root or not (Path(root) / "sensor").is_dir():
        pytest.skip("EDGECO_TEST_DATA names no folder with recordings under sensor/")
    return Path(root)


def test_real_recordings(recordings: Path) -> None:
    tracks = read_data(recordings / "sensor" / "fingertip_tracks_train.csv", shape=(16, 2))
    assert tracks.counts == {"0": 1021, "1": 862, "2": 900, "3": 924} and tracks.frame_shape() == (2,)
    watch = read_data(recordings / "sensor" / "BasicMotions_TRAIN.ts", fps=10)
    assert set(watch.counts.values()) == {10} and watch[0].array().shape == (100, 6)
    videos = read_data(recordings / "video").prepared(Preprocessing(size=(48, 64)), fps=12.5)
    assert len(videos) == 12 and videos[0].length > 15

"""Rows of values: CSV, JSON lines and standard input."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeco.errors import SourceError, SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources import open_source
from edgeco.runtime.sources.sensors import LONGEST_LINE, StdinSource
from edgeco.runtime.sources.status import State

pytestmark = pytest.mark.usefixtures("leakless")


def rows(path: Path, **options: float) -> list[Frame]:
    with open_source(path, **options) as source:
        assert not source.live
        return list(source)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_csv_with_names_stamps_and_labels(tmp_path: Path) -> None:
    text = "time, gyro_x, gyro_y, label\n0.5, 1, -2.5e0, walk\n0.75, 3, 4, run\n\n"
    with open_source(write(tmp_path, "imu.csv", text)) as source:
        frames = list(source)
        assert source.columns == ("gyro_x", "gyro_y")
        assert source.status().state is State.ENDED
    assert [frame.image.tolist() for frame in frames] == [[1, -2.5], [3, 4]]
    assert {(frame.image.dtype, frame.image.shape, frame.clock, frame.gap) for frame in frames} == {
        (np.dtype(np.float32), (2,), "file", 0)
    }
    assert [(frame.stamp, frame.label, frame.index) for frame in frames] == [(0.5, "walk", 0), (0.75, "run", 1)]


@pytest.mark.parametrize("mark", [",", ";", "\t", ", "])
def test_csv_without_names(tmp_path: Path, mark: str) -> None:
    path = write(tmp_path, "values.csv", f"# a remark\n1{mark}2{mark}3\r\n4{mark}5{mark}6\r\n")
    frames = rows(path, fps=4)
    assert [frame.image.tolist() for frame in frames] == [[1, 2, 3], [4, 5, 6]]
    assert [(frame.stamp, frame.clock) for frame in frames] == [(0, "rate"), (0.25, "rate")]


def test_json_lines_of_any_shape(tmp_path: Path) -> None:
    text = '[[1, 2], [3, 4]]\n{"values": [[5, 6], [7, 8]], "label": "wave", "t": 2}\n'
    with pytest.raises(SourceError, match="not after"):
        rows(write(tmp_path, "back.jsonl", '{"t": 2, "values": 1}\n{"t": 2, "values": 1}\n'))
    frames = rows(write(tmp_path, "skeleton.jsonl", text), fps=10)
    assert [frame.image.tolist() for frame in frames] == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert [(frame.stamp, frame.clock, frame.label) for frame in frames] == [(0, "rate", None), (0.1, "rate", "wave")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x,y\n1,2\n1,\n", r"a.csv line 3: column 2 \(y\) holds '', which is no number"),
        ("a.csv", "1,2\n1,nan\n", "line 2: column 2 holds 'nan', which is no number"),
        ("a.csv", "1,2\n1,1e99\n", "line 2: a value is not finite"),
        ("a.csv", "1,2\n1,2,3\n", "line 2: 3 values, where the rows before have 2 values"),
        ("a.csv", "t,x\n1,2\n0.5,2\n", "line 3: its time 0.5 is not after 1, that of the row before"),
        ("a.csv", "t,x\nnow,2\n", "line 2: its time 'now' is no number"),
        ("a.csv", "t,x\n1e999,2\n", "line 2: its time inf is none: seconds, at most 1e\\+12"),
        ("a.csv", "t,x\n-1e308,2\n1e308,2\n", "line 2: its time -1e\\+308 is none"),
        ("a.jsonl", '{"t": 1' + 400 * "0" + ', "values": 1}\n', "line 1: its time 10+ is none"),
        ("a.csv", "x,t\n1\n", "line 2: 1 columns are too few"),
        ("a.csv", "x,y\n", "there is no row of values in it"),
        ("a.csv", "", "there is no row of values in it"),
        ("a.jsonl", "[1, 2\n", "line 1: no JSON"),
        ("a.jsonl", "[1]\n[NaN]\n", "line 2: no JSON"),
        ("a.jsonl", "[1, null]\n", "line 1: values must be numbers"),
        ("a.jsonl", "[[1], [1, 2]]\n", "line 1: values must be numbers"),
        ("a.jsonl", '["one"]\n', "line 1: values must be numbers"),
        ("a.jsonl", "[]\n", "line 1: no values"),
        ("a.jsonl", '{"value": 1}\n', "line 1: an object without the member values"),
        ("a.jsonl", '{"values": 1, "t": "now"}\n', "line 1: its time 'now' is no number"),
        ("a.jsonl", "[" * 100000 + "\n", "line 1: no JSON"),
        ("a.jsonl", "[1]\n[1, 2]\n", "line 2: 2 values, where the rows before have 1 values"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with open_source(write(tmp_path, name, text)) as source:
        with pytest.raises(SourceError, match=message):
            list(source)
        assert source.state is State.FAILED


def test_rows_before_a_damaged_one_are_not_lost(tmp_path: Path) -> None:
    with open_source(write(tmp_path, "a.csv", "1\n2\nx\n")) as source:
        assert [int(next(source).image[0]) for _ in range(2)] == [1, 2]
        with pytest.raises(SourceError, match="line 3"):
            next(source)


def test_what_is_no_file_of_rows(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SourceError):
        open_source(tmp_path / "folder.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with open_source(tmp_path / "binary.csv") as source, pytest.raises(SourceError, match="separated values"):
        next(source)
    path = write(tmp_path, "a.csv", "1\n")
    with pytest.raises(SpecError, match="no such option"):
        open_source(path, live=True)


@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.jsonl"]))
def test_any_bytes_are_rows_or_an_error_of_our_own(data: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            assert all(np.isfinite(frame.image).all() for frame in rows(path))
        except SourceError as error:
            assert str(error).startswith(str(path))


def test_standard_input_as_it_comes() -> None:
    reader, writer = os.pipe()
    source = StdinSource(reader)
    try:
        assert source.wait(0.01) is None
        assert source.state is State.OPENING
        os.write(writer, b"[1, 2]\n[3,")
        before = time.monotonic_ns()
        first = source.wait(5)
        assert first is not None and first.taken is not None and first.taken >= before
        assert (first.image.tolist(), first.clock, first.stamp) == ([1, 2], "monotonic", first.taken * 1e-9)
        assert source.wait(0.01) is None
        os.write(writer, b' 4]\n{"values": [5, 6]}')
        second = next(source)
        assert second.image.tolist() == [3, 4] and second.stamp > first.stamp
        os.close(writer)
        assert next(source).image.tolist() == [5, 6]
        assert source.wait(1) is None
        assert source.state is State.ENDED
    finally:
        os.close(reader)


def test_standard_input_can_be_closed_by_another_thread_while_it_is_waited_for() -> None:
    reader, writer = os.pipe()
    source = StdinSource(reader)
    closer = threading.Timer(0.1, source.close)
    closer.start()
    assert list(source) == []
    closer.join()
    os.close(reader)
    os.close(writer)


def test_a_line_without_an_end_is_refused() -> None:
    reader, writer = os.pipe()

    def pour() -> None:
        with os.fdopen(writer, "wb", buffering=0) as file:
            for _ in range(LONGEST_LINE // 65536 + 1):
                file.write(b"1" * 65536)

    thread = threading.Thread(target=pour)
    thread.start()
    with StdinSource(reader) as source, pytest.raises(SourceError, match="a line on standard input is longer than"):
        next(source)
    thread.join()
    os.close(reader)


def test_the_dash_is_standard_input() -> None:
    program = (
        "from edgeco.runtime.sources import open_source\nfor f in open_source('-', fps=2): print(f.stamp, f.image)"
    )
    given = b"[1, 2]\n\n[3, 4]\n"
    ran = subprocess.run([sys.executable, "-c", program], input=given, capture_output=True, check=True)
    assert ran.stdout.decode().splitlines() == ["0.0 [1. 2.]", "0.5 [3. 4.]"]

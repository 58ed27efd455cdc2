"""JSON lines: whole lines, at once, also when the disk is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeco.errors import SpecError, WriteError
from edgeco.runtime.sinks import JsonLines, parse_rotation


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("old\n" * 100)
    with JsonLines(path) as sink:
        assert path.read_bytes() == b"old\n" * 100
        for number in range(3):
            sink.write({"index": number, "label": "größe\n"})
            lines = path.read_text("utf-8").splitlines()
            assert len(lines) == sink.lines == number + 1
            assert json.loads(lines[-1]) == {"index": number, "label": "größe\n"}
    sink.close()


def test_what_json_cannot_say_is_null(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "x") as sink:
        sink.write({"a": float("nan"), "b": [float("inf")]})
    assert (tmp_path / "x").read_text() == '{"a":null,"b":[null]}\n'


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    with JsonLines("-") as sink:
        sink.write({"a": 1})
    print("still open")
    assert capfd.readouterr().out == '{"a":1}\nstill open\n'


@pytest.mark.parametrize("name", ["none/x.jsonl", ".", "bad\0name"])
def test_a_file_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(WriteError, match="cannot be opened for writing") as caught:
        JsonLines(os.path.join(tmp_path, name))
    assert str(tmp_path) in str(caught.value)


def test_a_full_device() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with JsonLines("/dev/full") as sink:
        with pytest.raises(WriteError, match=r"the disk is full.*0 whole lines written"):
            sink.write({"a": 1})
        with pytest.raises(WriteError, match="takes no more records"):
            sink.write({"a": 1})


FULL = """
import resource, sys
from edgeco.errors import WriteError
from edgeco.runtime.sinks import JsonLines
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sink = JsonLines(sys.argv[1])
try:
    for number in range(1000):
        sink.write({"index": number, "text": "x" * 70})
except WriteError as error:
    print(error)
"""


def test_a_file_that_can_grow_no_more_ends_with_a_whole_line(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="file size limits are a feature of Unix")
    path = tmp_path / "log.jsonl"
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    data = path.read_bytes()
    assert data.endswith(b"}\n") and 900 < len(data) <= 1000
    lines = data.splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(len(lines)))
    assert f"{len(lines)} whole lines written" in ran.stdout and str(path) in ran.stdout


def test_a_short_write_is_continued_or_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.write, []

    def short(file: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        return real(file, data[:4])

    with JsonLines(tmp_path / "x") as sink:
        monkeypatch.setattr(os, "write", short)
        sink.write({"a": 1})  # eight bytes, two writes
        with pytest.raises(WriteError, match="1 whole line written"):
            sink.write({"b": "longer than that"})
        monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == b'{"a":1}\n'


def test_lines_go_on_in_a_new_file_when_one_is_full(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with JsonLines(path, rotate=100, kept=3) as sink:
        for number in range(60):
            sink.write({"index": number, "pad": "x" * 10})
            sizes = [file.stat().st_size for file in tmp_path.iterdir()]
            assert max(sizes) <= 100
    assert sink.lines == 60
    names = ["log.jsonl.3", "log.jsonl.2", "log.jsonl.1", "log.jsonl"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)
    kept = [json.loads(line)["index"] for name in names for line in (tmp_path / name).read_text().splitlines()]
    assert kept == list(range(60 - len(kept), 60)) and len(kept) > 9, "the newest, without a hole"


def test_an_older_file_stays_until_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("older, and longer than what comes\n")
    with JsonLines(path):
        pass
    assert path.read_text() == "older, and longer than what comes\n"
    with JsonLines(path, rotate=100, kept=2) as sink:
        sink.write({"index": 0})
    assert (tmp_path / "log.jsonl.1").read_text() == "older, and longer than what comes\n"
    with JsonLines(path) as sink:
        sink.write({})
    assert path.read_text() == "{}\n"


def test_a_line_longer_than_a_file_has_one_to_itself(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "x", rotate=20, kept=9) as sink:
        for size in (1, 100, 1):
            sink.write({"a": "x" * size})
    assert [len((tmp_path / name).read_bytes().splitlines()) for name in ("x.2", "x.1", "x")] == [1, 1, 1]


def test_no_full_file_need_be_kept(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "x", rotate=20, kept=0) as sink:
        for number in range(10):
            sink.write({"index": number})
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert json.loads((tmp_path / "x").read_text().splitlines()[-1]) == {"index": 9}


def test_a_rotation_that_fails_ends_with_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with JsonLines(path, rotate=20) as sink:
        sink.write({"index": 0})
        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(WriteError, match=r"the disk is full\), 1 whole line written"):
            sink.write({"index": 1})
        with pytest.raises(WriteError, match="takes no more"):
            sink.write({"index": 2})
    assert path.read_text() == '{"index":0}\n'


@pytest.mark.parametrize(
    ("target", "rotate", "kept", "message"),
    [
        ("-", 10, 5, "standard output cannot be rotated"),
        ("/dev/null", 10, 5, "no regular file"),
        ("x", 0, 5, "rotation at 0 bytes"),
        ("x", 10, -1, "keeping -1"),
    ],
)
def test_what_cannot_be_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, rotate: int, kept: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=message):
        JsonLines(target, rotate=rotate, kept=kept)


@pytest.mark.parametrize(
    ("text", "expected"), [("10MB:3", (10_000_000, 3)), ("512k", (512_000, 5)), ("1GB:0", (10**9, 0)), ("7", (7, 5))]
)
def test_rotation_as_text(text: str, expected: tuple[int, int]) -> None:
    assert parse_rotation(text) == expected


@pytest.mark.parametrize("text", ["", "MB", "10XB", "10MB:", "-1", "10MB:x", "1e3"])
def test_text_that_is_no_rotation(text: str) -> None:
    with pytest.raises(SpecError, match="give a size"):
        parse_rotation(text)

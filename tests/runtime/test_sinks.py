"""JSON lines: whole lines, at once, also when the disk is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeco.errors import WriteError
from edgeco.runtime.sinks import JsonLines


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("old\n" * 100)
    with JsonLines(path) as sink:
        assert path.read_bytes() == b""
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

"""The command line: what is printed where, and the exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import edgeco
from edgeco.cli import main
from edgeco.command import Group, one_line
from edgeco.errors import ConversionError

pytest.importorskip("onnxruntime", reason="networks are run by ONNX Runtime")

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from picturenet import write_picturenet

ROOT = Path(__file__).parents[1]
BARS = "pattern://bars?size=10x8&frames=6&fps=10"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_picturenet(tmp_path_factory.mktemp("bundle") / "mean.edgeco"))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from edgeco.cli import main; main()", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def said(result: Result, code: int) -> str:
    """The one line on stderr of a command that failed with this code."""
    assert result.exit_code == code, (result.exit_code, result.output)
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("edgeco: error: "), lines
    return lines[0]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["-h"], ["verify", "-h"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = (
        "import sys; from edgeco.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'onnxruntime', 'onnx', 'cv2', 'torch', 'numpy', 'rich', 'msgspec'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True)


def test_every_command_has_a_whole_sentence_in_the_list() -> None:
    result = call("--help")
    assert result.exit_code == 0
    listed = result.stdout.split("Commands:")[1].splitlines()
    assert {"bench", "demo", "inspect", "run", "verify"} <= {line.split()[0] for line in listed if line.strip()}
    assert not [line for line in listed if "..." in line]


def test_version() -> None:
    assert call("--version").stdout == f"edgeco {edgeco.__version__}\n"


def test_usage_errors_are_2(bundle: str) -> None:
    for arguments in (["none"], ["run", bundle], ["run", bundle, "--source", "x", "--frames", "0"], ["verify"]):
        assert call(*arguments).exit_code == 2


def test_run_writes_a_line_per_frame_and_sums_up(bundle: str, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    result = call("run", bundle, "--source", BARS, "--jsonl", str(log), "--top", "1", "--threads", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(6))
    assert all(len(line["top"]) == 1 for line in lines[1:])
    assert "6 decoded, 6 stepped, 0 missing" in result.stdout
    for word in ("read", "step", "deliver", "p50", "p90", "p99", "at the end of the source"):
        assert word in result.stdout
    assert "0.10 s  " in result.stdout  # the first answer's time and label


def test_run_to_standard_output_keeps_it_clean(bundle: str) -> None:
    result = call("run", bundle, "--source", BARS, "--jsonl", "-", "--frames", "4")
    assert result.exit_code == 0
    assert [json.loads(line)["index"] for line in result.stdout.splitlines()] == [0, 1, 2, 3]
    assert "4 decoded" in result.stderr and "after as many frames as asked" in result.stderr


def test_run_json(bundle: str) -> None:
    result = call("run", bundle, "--source", BARS, "--json")
    summary = json.loads(result.stdout)
    assert summary["frames"] == 6 and summary["ended"] == "source"
    assert set(summary["stages"]) == {"read", "prepare", "step", "deliver"}
    assert set(summary["stages"]["step"]) == {"count", "mean", "p50", "p90", "p99", "max"}
    both = call("run", bundle, "--source", BARS, "--json", "--jsonl", "-")
    assert len(both.stdout.splitlines()) == 6
    assert json.loads(both.stderr)["frames"] == 6


def test_source_errors_are_4(bundle: str, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("not a video\n" * 50)
    assert "text file" in said(call("run", bundle, "--source", str(text)), 4)
    assert "no such file" in said(call("run", bundle, "--source", str(tmp_path / "none.mp4")), 4)
    assert "no images" in said(call("run", bundle, "--source", str(tmp_path)), 4)
    assert "hunter2" not in said(call("run", bundle, "--source", "rtsp://me:hunter2@host/"), 4)
    assert "no such pattern" in said(call("run", bundle, "--source", "pattern://snow"), 2)


def test_engine_and_bundle_errors(bundle: str, tmp_path: Path) -> None:
    assert said(call("run", bundle, "--source", BARS, "--engine", "abacus"), 4)
    damaged = tmp_path / "damaged.edgeco"
    data = bytearray(Path(bundle).read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    for command in (["verify"], ["inspect"], ["bench"], ["run", "--source", BARS]):
        assert str(damaged) in said(call(command[0], str(damaged), *command[1:]), 5)
    assert said(call("verify", str(tmp_path / "none.edgeco")), 5)


def test_a_failed_source_leaves_an_old_log(bundle: str, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("precious\n")
    said(call("run", bundle, "--source", "none.mp4", "--jsonl", str(log)), 4)
    assert log.read_text() == "precious\n"


def test_disk_full_is_1_and_still_sums_up(bundle: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    result = call("run", bundle, "--source", BARS, "--jsonl", "/dev/full")
    assert "the disk is full" in said(result, 1)
    assert "with an error" in result.stdout
    with open("/dev/full", "wb") as full:
        ran = process("run", bundle, "--source", BARS, "--jsonl", "-", stdout=full)
        error = ran.communicate()[1].decode()
    assert ran.returncode == 1
    assert error.splitlines()[-1].startswith("edgeco: error: standard output: cannot be written (the disk is full)")


def test_truncated_recordings_deliver_then_fail(bundle: str, tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent / "runtime"))
    from movies import write_movie

    path = write_movie(tmp_path / "clip.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    log = tmp_path / "log.jsonl"
    ran = process("run", bundle, "--source", str(path), "--jsonl", str(log))
    out, error = ran.communicate()
    lines = log.read_text().splitlines()
    assert ran.returncode == 4
    assert 5 < len(lines) < 24
    assert error.decode().splitlines() == [line for line in error.decode().splitlines() if line.startswith("edgeco: ")]
    assert f"decoded {len(lines)} of" in error.decode()
    assert f"{len(lines)} decoded" in out.decode()


def test_a_reader_that_leaves_ends_the_run_quietly(bundle: str) -> None:
    source = "pattern://bars?size=10x8&frames=100000000"
    ran = process("run", bundle, "--source", source, "--jsonl", "-")
    assert ran.stdout is not None and ran.stderr is not None
    assert json.loads(ran.stdout.readline())["index"] == 0
    ran.stdout.close()
    error = ran.stderr.read().decode()
    ran.stderr.close()
    assert ran.wait(30) == 1
    assert "edgeco: error" not in error and "Traceback" not in error and "Exception ignored" not in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_summary(bundle: str, tmp_path: Path, number: int) -> None:
    log = tmp_path / "log.jsonl"
    source = "pattern://bars?size=10x8&frames=100000000"
    ran = process("run", bundle, "--source", source, "--jsonl", str(log), "--json")
    deadline = time.monotonic() + 30
    while not (log.exists() and log.stat().st_size > 1000) and time.monotonic() < deadline:
        time.sleep(0.02)
    ran.send_signal(number)
    out, error = ran.communicate(timeout=30)
    assert (ran.returncode, error) == (0, b"")
    summary = json.loads(out)
    lines = log.read_bytes().splitlines()
    assert summary["ended"] == "stopped"
    assert summary["frames"] == len(lines)
    assert json.loads(lines[-1])["index"] == len(lines) - 1


def test_verify(bundle: str, tmp_path: Path) -> None:
    result = call("verify", bundle)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "fp32" in result.stdout and "well" in result.stdout
    assert json.loads(call("verify", bundle, "--json").stdout)["passed"] is True
    wrong = str(write_picturenet(tmp_path / "wrong.edgeco", wrong=True))
    failed = call("verify", wrong)
    assert "differs from its golden answers" in said(failed, 1)
    assert "FAILED" in failed.stdout
    as_json = call("verify", wrong, "--json")
    assert said(as_json, 1)
    assert json.loads(as_json.stdout)["passed"] is False


def test_inspect(bundle: str) -> None:
    result = call("inspect", bundle)
    assert (result.exit_code, result.stderr) == (0, "")
    shown = " ".join(result.stdout.split())
    for part in (
        "mean colour",
        "frame input, image 8 x 10 x 3 uint8",
        "colour output 3 float32 1 0",
        "first answer after 2 frames, 0.2 s",
        "fully warm after 2 frames, 0.2 s",
        "h000 slots 3 float32 1 1 0 24 B",
        "288 multiply-accumulates",
        "144 multiply-accumulates 2.0 times less",
        "fp32 graphs/fp32.onnx weights.safetensors 24 B 1.0e-05",
        "golden.safetensors",
        "exact: mean at net.py:3",
    ):
        assert part in shown, part
    facts = json.loads(call("inspect", bundle, "--json").stdout)
    assert facts["manifest"]["timeline"]["receptive_field"] == 2
    assert facts["first_answer_seconds"] == facts["warm_seconds"] == 0.2
    assert facts["history_bytes"] == {"h000": 24}
    assert facts["report"]["lines"] == ["exact: mean at net.py:3"]


def test_names_in_a_bundle_cannot_steer_the_terminal(tmp_path: Path) -> None:
    labels = ("[red]\x1b[31m", "b\nc", "d")
    path = str(write_picturenet(tmp_path / "odd.edgeco", labels=labels))
    for arguments in (["inspect", path], ["run", path, "--source", BARS]):
        result = call(*arguments)
        assert result.exit_code == 0
        assert "\x1b" not in result.stdout
    assert "[red]\\x1b[31m" in call("inspect", path).stdout


def test_bench(bundle: str) -> None:
    result = call("bench", bundle, "--steps", "5", "--threads", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "whole step" in result.stdout and "p99" in result.stdout
    report = json.loads(call("bench", bundle, "--steps", "5", "--json").stdout)
    assert report["steps"] == 5 and report["step"]["count"] == 5


def test_demo_without_its_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeco.runtime.demo.SHIPPED", ("models", "none.edgeco"))
    assert "demonstration bundle" in said(call("demo"), 5)


def test_demo() -> None:
    from edgeco.errors import BundleError
    from edgeco.runtime.demo import load_demo

    try:
        load_demo()
    except BundleError as error:
        pytest.skip(f"{error}")
    result = call("demo")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "told rightly" in result.stdout
    report = json.loads(call("demo", "--json").stdout)
    assert report["passed"] and report["accuracy"] >= 0.8
    assert report["summary"]["stages"]["step"]["p99"] > 0


@click.group(cls=Group)
def broken() -> None:
    """Commands that fail."""


@broken.command()
@click.argument("how")
def fail(how: str) -> None:
    if how == "conversion":
        raise ConversionError("the network\n  mixes\x1b[2J time")
    if how == "interrupt":
        raise KeyboardInterrupt
    raise KeyError("lost")


def test_every_error_is_one_line() -> None:
    runner = CliRunner()
    result = runner.invoke(broken, ["fail", "conversion"])
    assert said(result, 3) == "edgeco: error: the network mixes\\x1b[2J time"
    assert said(runner.invoke(broken, ["fail", "interrupt"]), 130).endswith("interrupted")
    unexpected = said(runner.invoke(broken, ["fail", "bug"]), 70)
    assert "KeyError: 'lost'" in unexpected and "please report it" in unexpected and "--debug" in unexpected


@pytest.mark.parametrize(
    "arguments", [["--debug", "fail", "bug"], ["fail", "--debug", "bug"], ["fail", "bug", "--debug"]]
)
def test_debug_shows_the_traceback(arguments: list[str]) -> None:
    result = CliRunner().invoke(broken, arguments)
    assert result.exit_code == 70
    assert "Traceback" in result.stderr and 'raise KeyError("lost")' in result.stderr
    assert result.stderr.splitlines()[-1].startswith("edgeco: error: ")


def test_one_line() -> None:
    assert one_line(" a\n b\tc\x07 é ") == "a b c\\x07 é"


def test_the_process_says_nothing_else(bundle: str, tmp_path: Path) -> None:
    """OpenCV and FFmpeg write to the process's stderr by themselves."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + os.urandom(4000))
    ran = process("run", bundle, "--source", str(path))
    out, error = ran.communicate()
    assert (ran.returncode, out) == (4, b"")
    assert len(error.splitlines()) == 1 and error.startswith(b"edgeco: error: ")


@pytest.mark.parametrize("command", ["run", "build"])
def test_a_file_that_is_read_is_never_written_over(tmp_path: Path, command: str) -> None:
    if command == "build":
        pytest.importorskip("torch", reason="building needs torch")
    movie = tmp_path / "movie.mp4"
    movie.write_bytes(b"a recording")
    arguments = {
        "run": ["run", str(tmp_path / "net.edgeco"), "--source", str(movie), "--jsonl", str(movie)],
        "build": ["build", "camera-motion", "-o", str(movie), "--weights", str(movie)],
    }[command]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "overwritten" in result.stderr, result.output
    assert movie.read_bytes() == b"a recording"

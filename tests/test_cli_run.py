"""``edgeco run`` with its options: pace, preprocessing, sinks, smoothing, and what a terminal shows."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from edgeco.cli import main
from edgeco.command import pin
from edgeco.errors import SpecError

pytest.importorskip("onnxruntime", reason="networks are run by ONNX Runtime")
pytest.importorskip("onnx", reason="networks for tests are made with the onnx package")

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from picturenet import write_picturenet
from piping import Kept, recording
from stepnets import mixed, write_stepnet

from edgeco.runtime.model import load
from edgeco.runtime.pipeline import Pipeline
from edgeco.show.live import Board, render

ROOT = Path(__file__).parents[1]
BARS = "pattern://bars?size=64x48&frames=30&fps=30"
PRE = """
def darker(frame):
    return None if frame.index % 2 else frame
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_picturenet(tmp_path_factory.mktemp("bundle") / "mean.edgeco"))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["run", *arguments])


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_network_is_held_to_its_rate_unless_told(bundle: str, tmp_path: Path) -> None:
    log = tmp_path / "x.jsonl"
    result = call(bundle, "--source", BARS, "--jsonl", str(log))
    assert result.exit_code == 0 and "30 decoded, 10 stepped" in result.stdout and "20 passed over" in result.stdout
    assert [line["stepped"] for line in lines(log)] == [1, 0, 0] * 10
    assert "30 stepped" in call(bundle, "--source", BARS, "--fps", "0").stdout
    assert "15 stepped" in call(bundle, "--source", BARS, "--fps", "15").stdout
    repeated = json.loads(call(bundle, "--source", BARS, "--fps", "60", "--gap", "repeat", "--json").stdout)
    assert repeated["pacer"]["repeats"] == 29
    reset = call(bundle, "--source", BARS, "--fps", "60", "--gap", "reset", "--gap-threshold", "0", "--jsonl", str(log))
    assert reset.exit_code == 0
    assert {line["reset"] for line in lines(log)[1:]} == {"gap"}


def test_preprocessing_of_the_users_own(bundle: str, tmp_path: Path) -> None:
    log, file = tmp_path / "x.jsonl", tmp_path / "pre.py"
    file.write_text(PRE)
    result = call(bundle, "--source", BARS, "--fps", "0", "--pre", f"{file}:darker", "--jsonl", str(log))
    assert result.exit_code == 0 and "15 no input" in result.stdout
    assert [line.get("why") for line in lines(log)] == [None, "no input"] * 15


def test_a_sensors_rows(tmp_path: Path) -> None:
    net = mixed(valid_from=3, receptive_field=6)
    path = write_stepnet(tmp_path / "net.edgeco", net)
    rows = tmp_path / "track.csv"
    rows.write_text("stamp,a,b\n" + "".join(f"{index / 10},{index},{index % 3}\n" for index in range(20)))
    log = tmp_path / "x.jsonl"
    result = call(str(path), "--source", str(rows), "--jsonl", str(log))
    if "a text file, not a recording" in result.output:
        pytest.skip("no reader of sensor files yet")
    assert result.exit_code == 0, result.output
    assert len(lines(log)) == 20


def test_a_video_with_the_answers(bundle: str, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="pictures are drawn with OpenCV")
    video = tmp_path / "x.mp4"
    assert call(bundle, "--source", BARS, "--save", str(video)).exit_code == 0
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(30)
    count = 0
    while capture.read()[0]:
        count += 1
    assert count == 30
    assert "ends in" in call(bundle, "--source", BARS, "--save", str(tmp_path / "x.gif")).stderr


def test_rotating_lines(bundle: str, tmp_path: Path) -> None:
    log = tmp_path / "x.jsonl"
    assert call(bundle, "--source", BARS, "--jsonl", str(log), "--rotate", "1kB:2").exit_code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.jsonl", "x.jsonl.1", "x.jsonl.2"]
    assert lines(log)[-1]["index"] == 29
    assert call(bundle, "--source", BARS, "--rotate", "2kB").exit_code == 2


def test_smoothing(bundle: str, tmp_path: Path) -> None:
    log = tmp_path / "x.jsonl"
    assert call(bundle, "--source", BARS, "--smooth", "mean=3,dwell=2", "--jsonl", str(log)).exit_code == 0
    assert all("raw" in line for line in lines(log) if line["valid"])
    assert call(bundle, "--source", BARS, "--smooth", "much").exit_code == 2


def test_usage_errors_come_before_the_log_is_touched(bundle: str, tmp_path: Path) -> None:
    log = tmp_path / "x.jsonl"
    log.write_text("precious\n")
    for wrong in (
        ["--fps", "-1"],
        ["--gap-threshold", "-1"],
        ["--pre", "nothing"],
        ["--smooth", "x"],
        ["--rotate", "x"],
    ):
        result = call(bundle, "--source", BARS, "--jsonl", str(log), *wrong)
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, (wrong, result.output)
    assert log.read_text() == "precious\n"
    assert call(bundle, "--source", BARS, "--gap", "drop").exit_code == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no processes")
def test_affinity(bundle: str) -> None:
    first = min(os.sched_getaffinity(0))
    code = (
        "import os, sys; from edgeco.cli import main\n"
        "import atexit; atexit.register(lambda: print(sorted(os.sched_getaffinity(0)), file=sys.stderr)); main()"
    )
    command = [sys.executable, "-c", code, "run", bundle, "--source", BARS, "--affinity", str(first)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and ran.stderr.splitlines()[-1] == f"[{first}]"
    assert "with 1 thread" in " ".join(ran.stdout.split())
    for wrong in ("", "x", "1-", "0,,1", "99999", "-1", "5-3"):
        with pytest.raises(SpecError, match="affinity"):
            pin(wrong)


def test_a_window_where_there_is_none(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2", reason="windows are opened with OpenCV")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    result = call(bundle, "--source", BARS, "--show")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1


def test_the_panel_shows_what_a_pipeline_does(bundle: str) -> None:
    model = load(bundle, threads=1)
    pipeline = Pipeline(model, recording(index / 30 for index in range(31)), [Kept()])
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    with Board(console) as board:
        board.show(pipeline.status())
        pipeline.run()
        board.show(pipeline.status())
    shown = text.getvalue()
    for part in (
        "no answer yet",
        "answers per second",
        "31 frames, 11 stepped, 20 passed over",
        "prepare",
        "p99",
        "red",
    ):
        assert part in shown, part
    plain = Console(file=(out := io.StringIO()), width=100)
    plain.print(render(pipeline.status()))
    assert "ended" in out.getvalue() and "\x1b" not in out.getvalue()


def scenes(path: Path, count: int = 12) -> Path:
    """A recording of that name."""
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for number in range(count):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("source", ["file://{}", "${{HERE}}/clip.avi", "{}"])
@pytest.mark.parametrize("sink", ["--jsonl", "--save"])
def test_nothing_is_written_over_what_is_read(
    bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, sink: str
) -> None:
    clip = scenes(tmp_path / "clip.avi")
    monkeypatch.setenv("HERE", str(tmp_path))
    whole = clip.read_bytes()
    result = call(bundle, "--source", source.format(clip), sink, str(clip))
    assert result.exit_code == 2 and "would be overwritten while it is read" in result.stderr
    assert clip.read_bytes() == whole


def test_nor_over_an_image_of_a_sequence_or_code_of_the_users_or_another_sink(bundle: str, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "pre.py").write_text(PRE)
    for arguments in (
        ["--source", str(tmp_path / "%d.png"), "--jsonl", str(tmp_path / "1.png")],
        ["--source", BARS, "--pre", f"{tmp_path / 'pre.py'}:darker", "--jsonl", str(tmp_path / "pre.py")],
        ["--source", BARS, "--save", str(tmp_path / "x.avi"), "--jsonl", str(tmp_path / "." / "x.avi")],
    ):
        assert call(bundle, *arguments).exit_code == 2
    assert (tmp_path / "pre.py").read_text() == PRE and cv2.imread(str(tmp_path / "1.png")) is not None
    assert not (tmp_path / "x.avi").exists()


def test_a_run_that_does_not_begin_leaves_an_older_log(bundle: str, tmp_path: Path) -> None:
    log = tmp_path / "x.jsonl"
    log.write_text("older\n")
    result = call(bundle, "--source", BARS, "--jsonl", str(log), "--save", str(tmp_path / "nowhere" / "x.avi"))
    assert result.exit_code == 1 and log.read_text() == "older\n"
    assert call(bundle, "--source", BARS, "--jsonl", str(log), "--rotate", "1MB").exit_code == 0
    assert (tmp_path / "x.jsonl.1").read_text() == "older\n" and len(lines(log)) == 30


def test_a_source_without_a_name(bundle: str) -> None:
    assert "no source is named" in call(bundle, "--source", "").stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_a_summary_that_finds_no_room(bundle: str) -> None:
    command = [sys.executable, "-m", "edgeco.cli", "run", bundle, "--source", BARS]
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 1 and ran.stderr.endswith("standard output cannot be written (the disk is full)\n")

"""Faults: each ends in the documented state, nothing promised is lost, and no thread or descriptor is left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeco.errors import EdgecoError, EngineError, FrameError, SourceError, SpecError, WriteError
from edgeco.runtime.frame import Frame
from edgeco.runtime.pacer import Pacer
from edgeco.runtime.sinks import Callback, JsonLines, Keeps, worker
from edgeco.runtime.sources.patience import Patience
from edgeco.runtime.sources.scripted import Garbage, Pause, Raise, Until, scripted
from edgeco.runtime.sources.sensors import StdinSource
from edgeco.runtime.sources.status import State as SourceState

pytest.importorskip("onnxruntime", reason="networks are run by ONNX Runtime")
pytest.importorskip("onnx", reason="networks for tests are made with the onnx package")

from picturenet import write_picturenet
from piping import Kept, nothing_left, picture, recording, until

from edgeco.runtime.model import Model, load
from edgeco.runtime.pipeline import Pipeline, State

ROOT = Path(__file__).parents[2]
GONE = OSError(errno.ENODEV, "No such device")
EVERY = Pacer(None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_picturenet(tmp_path_factory.mktemp("bundle") / "mean.edgeco")


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return load(bundle, threads=1)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    with nothing_left():
        yield


def frames(count: int) -> Iterator[Frame]:
    return recording(index / 10 for index in range(count))


def indexes(path: Path) -> list[int]:
    """Indexes of the lines of a file, every one of them whole."""
    data = path.read_bytes()
    assert not data or data.endswith(b"}\n")
    return [json.loads(line)["index"] for line in data.splitlines()]


def test_an_exception_in_a_sink_is_counted_and_stops_nothing(model: Model, tmp_path: Path) -> None:
    faulty = Kept(Keeps.RECORDINGS, fail=lambda number: number % 3 == 0)
    lines = tmp_path / "x.jsonl"
    summary = Pipeline(model, frames(30), [faulty, JsonLines(lines)]).run()
    assert summary.ended == "source" and indexes(lines) == list(range(30))
    sink = summary.sinks["kept"]
    assert (sink["taken"], sink["failed"], sink["dropped"]) == (20, 10, 0)
    assert sink["error"] == "ZeroDivisionError: a fault of the sink" and faulty.closed == 1


def test_an_exception_in_a_sink_that_must_lose_nothing_ends_the_run(model: Model, tmp_path: Path) -> None:
    lines = tmp_path / "x.jsonl"
    pipeline = Pipeline(model, frames(10**9), [JsonLines(lines), Kept(fail=lambda number: number == 7)])
    with pytest.raises(ZeroDivisionError):
        pipeline.run()
    status = pipeline.status()
    assert (status.state, status.ended) == (State.FAILED, "error")
    assert status.error == "ZeroDivisionError: a fault of the sink"
    assert indexes(lines) == list(range(status.frames)), "the other sink has all that was delivered"
    with pytest.raises(ZeroDivisionError):
        pipeline.join()


def test_an_exception_in_closing_a_sink_is_told(model: Model) -> None:
    class Unclosable(Kept):
        def close(self) -> None:
            super().close()
            raise WriteError("the last page is missing")

    summary = Pipeline(model, frames(3), [Unclosable(Keeps.NEWEST)]).run()
    assert summary.sinks["kept"]["error"] == "the last page is missing"
    with pytest.raises(WriteError, match="last page"):
        Pipeline(model, frames(3), [Unclosable(Keeps.ALL)]).run()


def test_a_slow_sink_stalls_nobody(model: Model, tmp_path: Path) -> None:
    gate, lines = threading.Event(), tmp_path / "x.jsonl"
    slow = Kept(Keeps.NEWEST, wait=gate.wait)
    pipeline = Pipeline(model, frames(50), [slow, JsonLines(lines)])
    pipeline.start()
    until(lambda: lines.exists() and lines.read_bytes().count(b"\n") == 50)
    gate.set()
    assert pipeline.join()
    sink = pipeline.status().sinks["kept"]
    assert sink.taken + sink.dropped == 50 and 0 < sink.taken < 10
    assert slow.records[-1]["index"] == 49, "the newest are kept"
    assert indexes(lines) == list(range(50))


def test_a_sink_that_hangs_is_left_behind(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (worker, sys.modules["edgeco.runtime.pipeline"]):
        monkeypatch.setattr(module, "PATIENCE", 0.3)
    gate, lines = threading.Event(), tmp_path / "x.jsonl"
    summary = Pipeline(model, frames(20), [Kept(Keeps.NEWEST, wait=gate.wait), JsonLines(lines)]).run()
    assert summary.ended == "source" and indexes(lines) == list(range(20))
    assert "left behind" in summary.sinks["kept"]["error"]
    gate.set()


def test_a_callback_that_fails(model: Model) -> None:
    def fail(frame: Frame, result: object) -> None:
        raise KeyError("no such robot")

    summary = Pipeline(model, frames(5), [Callback(fail, Keeps.RECORDINGS)]).run()
    assert summary.sinks["fail"]["failed"] == 5
    with pytest.raises(KeyError):
        Pipeline(model, frames(5), [Callback(fail, Keeps.ALL)]).run()


def test_a_pre_that_fails_is_named(model: Model, tmp_path: Path) -> None:
    def pose(frame: Frame) -> Frame:
        if frame.index == 6:
            raise ValueError("no skeleton\nat all")
        return frame

    lines = tmp_path / "x.jsonl"
    pipeline = Pipeline(model, frames(20), [JsonLines(lines)], pre=pose)
    with pytest.raises(FrameError, match=r"^the preprocessing pose failed at frame 6: ValueError: no skeleton$"):
        pipeline.run()
    assert indexes(lines) == list(range(6))


def test_what_does_not_fit_the_network_ends_the_run(model: Model, tmp_path: Path) -> None:
    lines = tmp_path / "x.jsonl"
    wrong = Pipeline(model, frames(9), [JsonLines(lines)], pre=lambda f: f.image if f.index < 4 else f.image[:-1])
    with pytest.raises(FrameError, match="expects"):
        wrong.run()
    assert indexes(lines) == list(range(4))


def test_an_engine_that_fails_ends_the_run(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lines = model.engine.run, tmp_path / "x.jsonl"
    runs = iter(range(10**6))

    def fail(binding: object, *more: object) -> None:
        if next(runs) == 5:
            raise EngineError("out of memory")
        real(binding, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(model.engine, "run", fail)
    pipeline = Pipeline(model, frames(10**9), [JsonLines(lines)])
    with pytest.raises(EngineError, match="out of memory"):
        pipeline.run()
    assert indexes(lines) == list(range(5)) and pipeline.status().state is State.FAILED


@pytest.mark.parametrize("live", [False, True])
def test_the_end_of_a_source(model: Model, tmp_path: Path, live: bool) -> None:
    lines = tmp_path / "x.jsonl"
    if not live:
        summary = Pipeline(model, frames(12), [JsonLines(lines)]).run()
    else:
        with scripted([picture(n) for n in range(12)], fps=200) as source:
            summary = Pipeline(model, source, [JsonLines(lines)], pacer=EVERY).run()
    assert summary.ended == "source" and indexes(lines) == list(range(summary.frames))


def test_a_source_that_fails_for_good(model: Model, tmp_path: Path) -> None:
    lines = tmp_path / "x.jsonl"
    patience = Patience(attempts=1, first_pause=0.01)
    script = [*map(picture, range(5)), Pause(0.1), *([Raise(SourceError("the lens fell off"))])]
    with scripted(script, fps=100, patience=patience) as source:
        pipeline = Pipeline(model, source, [JsonLines(lines)], pacer=EVERY)
        with pytest.raises(SourceError, match="the lens fell off"):
            pipeline.run()
    status = pipeline.status()
    assert status.state is State.FAILED and status.source is not None and status.source.state is SourceState.FAILED
    assert indexes(lines) == list(range(status.frames)) and status.frames > 0


def test_a_stall_is_waited_out(model: Model, tmp_path: Path) -> None:
    lines, seen = tmp_path / "x.jsonl", []
    script = [*map(picture, range(5)), Until(lambda: SourceState.STALLED in seen), *map(picture, range(5))]
    with scripted(script, fps=100, patience=Patience(stall=0.1)) as source:
        pipeline = Pipeline(model, source, [JsonLines(lines)], pacer=Pacer(100.0, "reset", 0.05))
        with pipeline:
            while not pipeline.join(0.01):
                status = pipeline.status()
                assert status.source is not None
                seen.append(status.source.state)
                assert status.state in (State.RUNNING, State.ENDED)
    assert pipeline.summary.ended == "source"
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["index"] for record in records] == list(range(pipeline.summary.frames))
    assert "gap" in [record.get("reset") for record in records], "the stall was a gap"


def test_a_source_that_reconnects(model: Model, tmp_path: Path) -> None:
    lines = tmp_path / "x.jsonl"
    script = [*map(picture, range(5)), Raise(GONE), *map(picture, range(5))]
    with scripted(script, fps=50, patience=Patience(first_pause=0.3)) as source:
        summary = Pipeline(model, source, [JsonLines(lines)], pacer=Pacer(50.0, "reset", 0.04)).run()
        assert source.status().reconnects == 1
    assert summary.ended == "source" and indexes(lines) == list(range(summary.frames))
    assert summary.pacer["resets"] >= 1


def test_stop_while_a_source_is_away(model: Model) -> None:
    with scripted([picture(0), Raise(GONE)] * 50, patience=Patience(first_pause=20.0)) as source:
        pipeline = Pipeline(model, source, [Kept()])
        pipeline.start()
        until(lambda: source.state is SourceState.RECONNECTING)
        pipeline.stop()
        assert pipeline.join(5.0)
    assert pipeline.summary.ended == "stopped"


def test_garbage_and_pictures_of_another_size(model: Model) -> None:
    pytest.importorskip("cv2", reason="pictures are resized with OpenCV")
    big = np.full((30, 40, 3), 90, np.uint8)
    sink = Kept()
    with scripted([picture(0), Garbage(), picture(1), big, Garbage(), big, picture(2)], fps=50) as source:
        summary = Pipeline(model, source, [sink], pacer=EVERY).run()
        drops = source.status().drops
    assert summary.ended == "source" and sum(drops.values()) >= 2
    assert [record["index"] for record in sink.records] == list(range(summary.frames))
    assert {delivery.frame.image.shape for delivery in sink.deliveries if delivery.result} >= {(30, 40, 3)}


def test_stamps_that_go_back(model: Model) -> None:
    sink = Kept()
    stamps = [0.0, 0.1, 0.2, 0.15, 0.2, 0.3, 90.0, 90.1, 0.0, 0.1]
    summary = Pipeline(model, recording(stamps), [sink], pacer=Pacer(10.0, "reset")).run()
    assert [record["stepped"] for record in sink.records] == [1, 1, 1, 0, 0, 1, 1, 1, 1, 1]
    assert [record.get("why") for record in sink.records][3:5] == ["stamp", "stamp"]
    assert [record.get("reset") for record in sink.records if "reset" in record] == ["gap", "clock"]
    assert summary.frames == 10 and summary.pacer["stamp"] == 2


def test_a_second_interrupt_leaves_at_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a KeyboardInterrupt in the waiting thread does: no more is stepped with, and all threads end."""
    sink = Kept()
    pipeline = Pipeline(model, frames(10**9), [sink])

    def interrupted(timeout: float | None = None) -> bool:
        until(lambda: len(sink.deliveries) > 5)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run()
    assert pipeline.status().state is State.ENDED and sink.closed == 1


def test_an_error_inside_a_with_block_stops_the_run(model: Model) -> None:
    with pytest.raises(SpecError, match="of the user"), Pipeline(model, frames(10**9), [Kept()]) as pipeline:
        raise SpecError("an error of the user")
    assert pipeline.status().state is State.ENDED


IN_A_STEP = """
import sys, time
from edgeco.runtime.stream import Stream
real = Stream.step
def slow(self, frame):
    print("in a step", flush=True)
    time.sleep(0.4)
    return real(self, frame)
Stream.step = slow
from edgeco.cli import main
main()
"""


def process(*arguments: str, code: str = "from edgeco.cli import main; main()") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_step(bundle: Path, tmp_path: Path, number: int) -> None:
    lines = tmp_path / "x.jsonl"
    source = "pattern://bars?size=10x8&frames=1000000&fps=10"
    ran = process("run", str(bundle), "--source", source, "--jsonl", str(lines), "--json", code=IN_A_STEP)
    assert ran.stdout is not None
    assert ran.stdout.readline() == b"in a step\n"
    ran.send_signal(number)
    out, error = ran.communicate(timeout=60)
    assert (ran.returncode, error) == (0, b"")
    summary = json.loads(out[out.index(b"{") :])
    assert summary["ended"] == "stopped" and summary["frames"] >= 1
    assert indexes(lines) == list(range(summary["frames"])), "the frame in the step has its line"


def test_two_signals_leave_at_once(bundle: Path, tmp_path: Path) -> None:
    lines = tmp_path / "x.jsonl"
    source = "pattern://bars?size=10x8&frames=1000000&fps=10"
    ran = process("run", str(bundle), "--source", source, "--jsonl", str(lines), code=IN_A_STEP)
    assert ran.stdout is not None
    ran.stdout.readline()
    ran.send_signal(signal.SIGINT)
    ran.stdout.readline()
    ran.send_signal(signal.SIGINT)
    _, error = ran.communicate(timeout=60)
    assert ran.returncode == 130 and error.splitlines()[-1] == b"edgeco: error: interrupted"
    indexes(lines)


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
from edgeco.cli import main
main()
"""


def test_a_full_disk_while_lines_are_written(bundle: Path, tmp_path: Path) -> None:
    """As with a disk quota: the file ends with a whole line, the run with an error, and the summary is told."""
    pytest.importorskip("resource", reason="file size limits are a feature of Unix")
    lines = tmp_path / "x.jsonl"
    source = "pattern://bars?size=10x8&frames=1000000&fps=10"
    ran = process("run", str(bundle), "--source", source, "--jsonl", str(lines), code=LIMITED)
    out, error = ran.communicate(timeout=60)
    written = indexes(lines)
    assert ran.returncode == 1 and written == list(range(len(written))) and len(written) > 5
    assert f"{len(written)} whole lines written" in error.decode() and len(error.splitlines()) == 1
    assert "with an error" in out.decode()


def test_a_full_disk_in_the_library(model: Model) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    also = Kept(Keeps.RECORDINGS)
    pipeline = Pipeline(model, frames(10**9), [JsonLines("/dev/full"), also])
    with pytest.raises(WriteError, match="the disk is full"):
        pipeline.run()
    status = pipeline.status()
    assert status.state is State.FAILED and status.error is not None and "the disk is full" in status.error
    assert status.sinks["jsonl"].taken == 0 and also.closed == 1


def test_every_error_of_a_run_is_told_in_one_sentence(model: Model) -> None:
    pipeline = Pipeline(model, frames(3), [Kept(fail=lambda number: True)])
    with pytest.raises(ZeroDivisionError):
        pipeline.run()
    error = pipeline.status().error
    assert error is not None and "\n" not in error
    assert not isinstance(pipeline._error, EdgecoError)


@pytest.mark.parametrize("ending", ["stop", "abort"])
def test_an_idle_standard_input_keeps_nobody(model: Model, ending: str) -> None:
    reader, writer = os.pipe()
    try:
        with StdinSource(reader) as source:
            pipeline = Pipeline(model, source, [Kept()])
            pipeline.start()
            assert not pipeline.join(0.3)
            pipeline.stop() if ending == "stop" else pipeline.abort()
            assert pipeline.join(5) and pipeline.summary.ended == "stopped"
    finally:
        os.close(reader)
        os.close(writer)


def test_a_process_on_an_idle_standard_input_hears_a_signal(bundle: Path) -> None:
    command = [sys.executable, "-m", "edgeco.cli", "run", str(bundle), "--source", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        threading.Timer(3.0, process.send_signal, [signal.SIGTERM]).start()
        assert process.wait(30) == 0

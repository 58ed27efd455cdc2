"""The pipeline: what is stepped with, what is written, what waits and what is dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgeco.errors import EngineError, FrameError, SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.pacer import Pacer
from edgeco.runtime.smoothing import Smoother
from edgeco.runtime.sources.scripted import Until, from_frames, scripted
from edgeco.runtime.sources.status import State as SourceState
from edgeco.runtime.work import BUSY, NO_INPUT, Item, Newest

pytest.importorskip("onnxruntime", reason="networks are run by ONNX Runtime")
pytest.importorskip("onnx", reason="networks for tests are made with the onnx package")

from picturenet import write_picturenet
from piping import Kept, nothing_left, picture, recording, until
from stepnets import mixed, write_stepnet

from edgeco.runtime.model import Model, load
from edgeco.runtime.pipeline import Pipeline, State

NET = mixed(valid_from=3, receptive_field=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_picturenet(tmp_path_factory.mktemp("bundle") / "mean.edgeco"), threads=1)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_stepnet(tmp_path_factory.mktemp("bundle") / "net.edgeco", NET), threads=1)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    with nothing_left():
        yield


def answers(model: Model, values: list[Any]) -> list[np.ndarray]:
    """What a stream of its own answers to these inputs."""
    with model.stream() as stream:
        return [next(iter(stream.step(value).outputs.values())) for value in values]


def every(sink: Kept) -> list[np.ndarray]:
    return [next(iter(d.result.outputs.values())) for d in sink.deliveries if d.result is not None]


def test_a_recording_loses_nothing_whoever_is_slow(model: Model) -> None:
    slow, also = Kept(wait=lambda: time.sleep(0.002)), Kept()
    summary = Pipeline(model, recording(np.arange(60) / 10), [slow, also]).run()
    assert summary.frames == summary.stepped == 60 and summary.ended == "source"
    assert slow.records == also.records
    assert [record["index"] for record in slow.records] == list(range(60))
    for answer, expected in zip(every(slow), answers(model, [picture(n)[..., ::-1] for n in range(60)]), strict=True):
        np.testing.assert_array_equal(answer, expected)
    assert slow.closed == also.closed == 1
    assert len(slow.threads) == 1 and not slow.threads & also.threads, "each sink has a thread of its own"
    assert summary.sinks["kept"]["taken"] == summary.sinks["kept 2"]["taken"] == 60


def test_what_waits_is_bounded(model: Model) -> None:
    """A sink that takes nothing stops the reading of a recording after a handful of frames."""
    read, gate = [], threading.Event()

    def frames() -> Iterator[Frame]:
        for frame in recording(np.arange(100) / 10):
            read.append(frame.index)
            yield frame

    pipeline = Pipeline(model, frames(), [sink := Kept(wait=gate.wait)])
    pipeline.start()
    until(lambda: len(read) > 4)
    seen = -1
    while seen != len(read):
        seen = len(read)
        time.sleep(0.1)
    assert seen < 25
    gate.set()
    assert pipeline.join() and len(sink.deliveries) == 100


def test_the_pacer_passes_over_what_comes_too_fast(model: Model) -> None:
    sink = Kept()
    summary = Pipeline(model, recording(np.arange(31) / 30), [sink]).run()
    assert (summary.frames, summary.stepped) == (31, 11)
    taken = [record for record in sink.records if record["stepped"]]
    assert [record["index"] for record in taken] == list(range(0, 31, 3))
    assert [record["step"] for record in taken] == list(range(11)) and all("why" not in record for record in taken)
    over = [record for record in sink.records if not record["stepped"]]
    assert {record["why"] for record in over} == {"rate"}
    assert not any("step" in record or record["valid"] or record["warm"] for record in over)
    expected = answers(model, [picture(n)[..., ::-1] for n in range(0, 31, 3)])
    np.testing.assert_array_equal(every(sink), expected)
    assert summary.pacer["passed"] == 20 and summary.stages["prepare"]["count"] == 11, "spared their preprocessing"


def test_a_gap_is_repeated(model: Model) -> None:
    sink = Kept()
    stamps = [0, 0.1, 0.2, 0.6, 0.7]
    summary = Pipeline(model, recording(stamps), [sink], pacer=Pacer(10.0, "repeat")).run()
    assert [record["stepped"] for record in sink.records] == [1, 1, 1, 4, 1]
    assert (sink.records[3]["why"], sink.records[3]["missed"]) == ("gap", 3)
    assert [record["step"] for record in sink.records] == [0, 1, 2, 6, 7]
    np.testing.assert_array_equal(
        every(sink)[3:], answers(model, [picture(n)[..., ::-1] for n in (0, 1, 2, 3, 3, 3, 3, 4)])[-2:]
    )
    assert summary.pacer["repeats"] == 3 and summary.stages["step"]["count"] == 5


def test_a_long_gap_resets(model: Model) -> None:
    sink = Kept()
    Pipeline(model, recording([0, 0.1, 0.2, 5.0, 5.1]), [sink], pacer=Pacer(10.0, "reset")).run()
    assert [record.get("reset") for record in sink.records] == [None, None, None, "gap", None]
    assert [record["step"] for record in sink.records] == [0, 1, 2, 0, 1]
    np.testing.assert_array_equal(every(sink)[3:], answers(model, [picture(n)[..., ::-1] for n in (3, 4)]))


def test_a_reset_that_was_asked_for(model: Model) -> None:
    gate = threading.Event()

    def frames() -> Iterator[Frame]:
        for frame in recording(np.arange(20) / 10):
            if frame.index == 10:
                until(lambda: pipeline.status().frames == 10)
                pipeline.request_reset()
            yield frame

    pipeline = Pipeline(model, frames(), [sink := Kept()])
    gate.set()
    pipeline.run()
    assert [record.get("reset") for record in sink.records] == [None] * 10 + ["asked"] + [None] * 9
    np.testing.assert_array_equal(every(sink)[10:], answers(model, [picture(n)[..., ::-1] for n in range(10, 20)]))


def test_of_what_is_ready_for_a_live_step_only_the_newest_waits() -> None:
    ready = Newest()
    for index in range(7):
        ready.put(Item(Frame(picture(index), 0.0, "monotonic", index), value=None if index == 4 else picture(index)))
    ready.finish()
    items = list(iter(ready.get, None))
    assert [item.frame.index for item in items] == list(range(7))
    assert [item.why for item in items] == [BUSY] * 4 + [""] + [BUSY, ""]
    assert [item.value is not None for item in items] == [False] * 6 + [True]
    assert [bool(item.frame.image.size) for item in items] == [False] * 4 + [True, False, True]


def test_many_that_are_passed_over_keep_few_pictures() -> None:
    ready = Newest()
    for index in range(40):
        ready.put(Item(Frame(picture(index), 0.0, "monotonic", index), why="rate"))
    ready.finish()
    assert sum(bool(item.frame.image.size) for item in iter(ready.get, None)) == 4


def test_a_live_source_and_a_slow_step(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is slower than the camera: every frame taken has its line, and answers do not fall behind."""
    real = model.stream

    def slow() -> Any:
        stream = real()
        step = stream.step
        monkeypatch.setattr(stream, "step", lambda value: (time.sleep(0.03), step(value))[1], raising=False)
        return stream

    monkeypatch.setattr(model, "stream", slow)
    sink = Kept()
    with scripted([picture(n) for n in range(90)], fps=100) as source:
        summary = Pipeline(model, source, [sink], pacer=Pacer(None)).run()
        status = source.status()
    records = sink.records
    assert [record["index"] for record in records] == list(range(len(records))), "one line for each frame taken"
    assert status.frames == summary.frames == len(records)
    assert summary.frames + sum(count for cause, count in status.drops.items()) == 90
    assert summary.stepped < 60 and summary.stepped + summary.drops[BUSY] == summary.frames
    assert {record["why"] for record in records if not record["stepped"]} == {BUSY}
    ages = [record["age"] for record in records if record["stepped"]]
    half = len(ages) // 2
    assert np.median(ages[half:]) < 3 * np.median(ages[:half]), "a queue would let the age grow without end"
    assert summary.stages["age"]["count"] == summary.stepped
    assert all("age" not in record for record in records if not record["stepped"])


def test_the_last_frame_of_a_live_source_is_stepped_with(model: Model) -> None:
    with scripted([picture(n) for n in range(20)], fps=500) as source:
        sink = Kept()
        summary = Pipeline(model, source, [sink], pacer=Pacer(None)).run()
    assert summary.ended == "source"
    assert sink.records[-1]["stepped"] == 1
    np.testing.assert_array_equal(sink.deliveries[-1].frame.image, picture(19))


def test_rows_of_a_sensor_step_a_network_of_arrays(arrays: Model) -> None:
    rows = [row[0] for row in NET.frames(20)] if NET.frames(1)[0].ndim > 1 else NET.frames(20)
    sink = Kept()
    with from_frames([row.astype(np.float64) for row in rows], fps=10) as source:
        Pipeline(arrays, source, [sink]).run()
    np.testing.assert_array_equal(every(sink), answers(arrays, list(rows)))
    flat = [np.asarray(row).reshape(-1, 1) for row in rows]
    with from_frames(flat, fps=10) as source:
        Pipeline(arrays, source, [again := Kept()]).run()
    np.testing.assert_array_equal(every(again), every(sink))


def test_rows_that_do_not_fit_are_refused(arrays: Model) -> None:
    with from_frames([np.zeros(3, np.float32)], fps=10) as source, pytest.raises(FrameError, match="takes 2 values"):
        Pipeline(arrays, source).run()


def test_pre_makes_the_input_or_none(arrays: Model) -> None:
    """It may return lists and doubles; where it returns None the network is not stepped and misses a point."""

    def pose(frame: Frame) -> Any:
        return None if 5 <= frame.index < 8 else [frame.index, 2.5]

    sink = Kept()
    summary = Pipeline(arrays, recording(np.arange(12) / 10), [sink], pre=pose, pacer=Pacer(10.0, "repeat")).run()
    assert [record["stepped"] for record in sink.records] == [1, 1, 1, 1, 1, 0, 0, 0, 4, 1, 1, 1]
    assert {record["why"] for record in sink.records[5:8]} == {NO_INPUT}
    given = [0, 1, 2, 3, 4, 8, 8, 8, 8, 9, 10, 11]
    expected = answers(arrays, [np.array([n, 2.5], np.float32) for n in given])
    np.testing.assert_array_equal(every(sink), [*expected[:5], *expected[8:]])
    assert summary.drops[NO_INPUT] == 3


def test_pre_may_return_a_frame_or_a_mapping(model: Model) -> None:
    def darker(frame: Frame) -> Frame:
        return Frame(frame.image // 2, frame.stamp, frame.clock, frame.index)

    Pipeline(model, recording(np.arange(5) / 10), [one := Kept()], pre=darker).run()
    Pipeline(
        model, recording(np.arange(5) / 10), [other := Kept()], pre=lambda f: {"frame": (f.image // 2)[..., ::-1]}
    ).run()
    expected = answers(model, [(picture(n) // 2)[..., ::-1] for n in range(5)])
    np.testing.assert_array_equal(every(one), expected)
    np.testing.assert_array_equal(every(other), expected)


def test_pre_runs_beside_the_step(model: Model) -> None:
    """Preprocessing and stepping overlap: while one frame is stepped with, the next is prepared already."""
    prepared: list[int] = []
    gate = threading.Event()

    def pre(frame: Frame) -> Any:
        prepared.append(frame.index)
        return frame

    sink = Kept(wait=gate.wait)
    pipeline = Pipeline(model, recording(np.arange(30) / 10), [sink], pre=pre)
    pipeline.start()
    until(lambda: len(prepared) >= 5)
    assert sink.calls <= 1
    gate.set()
    pipeline.join()


def test_smoothed_answers_are_written_beside_the_raw_ones(model: Model) -> None:
    frames = [np.full_like(picture(0), 0) for _ in range(12)]
    for index, image in enumerate(frames):
        image[..., 2 if index in (5, 6) else 1] = 200  # two red pictures among green ones
    with from_frames(frames, fps=10) as source:
        sink = Kept()
        Pipeline(model, source, [sink], smooth=Smoother(dwell=5)).run()
    assert {record["top"][0]["label"] for record in sink.records[1:]} == {"green"}
    assert sink.records[6]["raw"][0]["label"] == "red"
    Pipeline(model, recording(np.arange(3) / 10), [plain := Kept()]).run()
    assert all("raw" not in record for record in plain.records)


def test_status_tells_of_the_run(model: Model) -> None:
    gate = threading.Event()
    pipeline: Pipeline

    def hold() -> bool:
        return gate.is_set()

    with scripted([*map(picture, range(10)), Until(hold), picture(10)], fps=100) as source:
        pipeline = Pipeline(model, source, [Kept()], pacer=Pacer(None), top=2)
        before = pipeline.status()
        assert (before.state, before.frames, before.top, before.seconds) == (State.NEW, 0, (), 0.0)
        with pipeline:
            until(lambda: pipeline.status().valid > 2 and pipeline.status().frames == source.status().frames)
            status = pipeline.status()
            assert status.state is State.RUNNING and status.ended is None and status.error is None
            assert len(status.top) == 2 and status.is_valid and status.is_warm
            assert status.source is not None and status.source.state is SourceState.RUNNING
            assert status.age is not None and status.age > 0 and status.fps > 0
            assert status.index is not None and status.stamp == pytest.approx(time.monotonic(), abs=60)
            assert {"read", "prepare", "step", "deliver", "age"} == set(status.stages)
            older = pipeline.status()
            assert older.age is not None and older.age > status.age, "the last answer grows old while none comes"
            gate.set()
            assert pipeline.join(20)
    done = pipeline.status()
    assert (done.state, done.ended) == (State.ENDED, "source")
    assert done.seconds == pipeline.status().seconds
    assert pipeline.wait()


def test_stop_ends_with_the_frames_in_hand(model: Model) -> None:
    pipeline = Pipeline(model, recording(index / 10 for index in range(10**9)), [sink := Kept()])
    with pipeline:
        until(lambda: len(sink.deliveries) > 20)
        pipeline.stop()
        assert pipeline.status().state in (State.STOPPING, State.ENDED)
    assert pipeline.summary.ended == "stopped"
    assert [record["index"] for record in sink.records] == list(range(pipeline.summary.frames))


def test_a_pipeline_runs_once(model: Model) -> None:
    pipeline = Pipeline(model, recording([0.0]))
    pipeline.run()
    with pytest.raises(SpecError, match="runs once"):
        pipeline.start()


def test_a_stream_that_cannot_be_opened(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise EngineError("no memory")

    monkeypatch.setattr(model, "stream", refuse)
    sink = Kept()
    pipeline = Pipeline(model, recording(np.arange(50) / 10), [sink])
    with pytest.raises(EngineError, match="no memory"):
        pipeline.start()
    assert pipeline.status().state is State.FAILED and sink.closed == 1 and sink.calls == 0


@pytest.mark.parametrize("wrong", [{"top": 0}, {"frames": 0}])
def test_what_makes_no_pipeline(model: Model, wrong: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="at least 1"):
        Pipeline(model, (), **wrong)  # type: ignore[arg-type]


def test_two_pipelines_share_a_model_from_their_own_threads(model: Model) -> None:
    sinks = [Kept() for _ in range(3)]
    pipelines = [
        Pipeline(model, recording(np.arange(200) / 10), [sink], pre=lambda f, n=number: f.image[..., ::-1] // (n + 1))
        for number, sink in enumerate(sinks)
    ]
    for pipeline in pipelines:
        pipeline.start()
    for pipeline in pipelines:
        assert pipeline.join(60)
    for number, sink in enumerate(sinks):
        expected = answers(model, [picture(n)[..., ::-1] // (number + 1) for n in range(200)])
        np.testing.assert_array_equal(every(sink), expected)

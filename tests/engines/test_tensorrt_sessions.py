"""Sessions over TensorRT's runner, on a fake GPU, against the numpy oracle: every storage, version and CUDA package."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from gpu_fixtures import Fake, open_engine
from stepnets import StepNet, history, mixed, stepnet

from edgeco.engines.session import Session
from edgeco.errors import EngineError

pytest.importorskip("onnx", reason="the fake TensorRT reads graphs with the onnx package")

BACKENDS = ("cuda.bindings", "pycuda")


def drive(session: Session, frames: np.ndarray) -> dict[str, np.ndarray]:
    memory = session.engine.memory
    answers: dict[str, list[np.ndarray]] = {name: [] for name in session.outputs}
    for frame in frames:
        memory.write(session.inputs["x"], frame)
        session.run()
        for name, value in zip(session.outputs, memory.read_all(list(session.outputs.values())), strict=True):
            answers[name].append(value)
    return {name: np.stack(values) for name, values in answers.items()}


def check(given: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(given[name], values, err_msg=name)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("rows", [1, 4])
def test_all_storages_on_every_version_and_package(fake: Fake, rows: int) -> None:
    net = mixed()
    session = Session(open_engine(net), net.manifest, rows)
    frames = net.frames(100, rows)
    check(drive(session, frames), net.oracle(frames, rows))
    session.close()
    assert fake.gpu.live == {}
    assert fake.gpu.depth == 0


ALIGNED = 64  # float32 channels of which one element is 256 bytes


@pytest.mark.sampled(3)
@pytest.mark.parametrize("channels", [1, 3, ALIGNED])
@pytest.mark.parametrize("storage", ["slots", "ring", "mirror", "carry"])
@pytest.mark.parametrize("graphs", [True, False])
def test_each_storage_aligned_or_not(one: Fake, storage: str, channels: int, graphs: bool) -> None:
    depth = 1 if storage == "carry" else 5
    starts = 0 if storage == "carry" else 3
    net = stepnet(history(storage, depth, channels=channels, border=-1.0, starts_at=starts))
    session = Session(open_engine(net, graphs=graphs), net.manifest)
    frames = net.frames(40)
    check(drive(session, frames), net.oracle(frames))
    assert one.gpu.log.count("launch") == (40 if graphs else 0)


def test_every_phase_is_recorded_once_and_after_a_plain_run(one: Fake) -> None:
    net = stepnet(history("slots", 3, ages=(1, 3)))  # 4 buffers, 4 phases
    session = Session(open_engine(net), net.manifest)
    assert one.gpu.log == ["enqueue"] * 4 + ["begin", "enqueue", "end"] * 4
    frames = net.frames(30)
    check(drive(session, frames), net.oracle(frames))
    assert one.gpu.log[16:] == ["launch"] * 30


def test_a_deep_mirror_has_a_graph_for_every_window(one: Fake) -> None:
    net = stepnet(
        history("mirror", 11, channels=ALIGNED), history("slots", 4, number=1), history("mirror", 9, number=2)
    )
    session = Session(open_engine(net), net.manifest)
    frames = net.frames(170)
    check(drive(session, frames), net.oracle(frames))
    assert one.gpu.log.count("launch") == 170


def copying(*depths: int) -> StepNet:
    """A ring, a mirror and one that is shifted, which all start late."""
    ring, mirror, shifted = depths
    return stepnet(
        history("ring", ring, border=-1.0, starts_at=2),
        history("mirror", mirror, channels=ALIGNED, number=1, starts_at=3),
        history("mirror", shifted, channels=3, number=2),
    )


@pytest.mark.parametrize("rows", [1, 4])
def test_copies_are_part_of_the_recordings(fake: Fake, rows: int) -> None:
    net = copying(3, 5, 4)
    session = Session(open_engine(net), net.manifest, rows)
    frames = net.frames(100, rows)
    expected = net.oracle(frames, rows)
    check(drive(session, frames[:4]), {name: values[:4] for name, values in expected.items()})
    fake.gpu.log.clear()
    check(drive(session, frames[4:]), {name: values[4:] for name, values in expected.items()})
    assert fake.gpu.log == ["launch"] * 96  # no copy by itself
    session.reset()
    check(drive(session, frames), expected)
    session.close()
    assert fake.gpu.live == {}


def test_copies_that_come_round_too_seldom_stay_outside(one: Fake) -> None:
    net = copying(131, 5, 4)
    session = Session(open_engine(net), net.manifest)
    frames = net.frames(300)
    expected = net.oracle(frames)
    check(drive(session, frames[:4]), {name: values[:4] for name, values in expected.items()})
    one.gpu.log.clear()
    check(drive(session, frames[4:]), {name: values[4:] for name, values in expected.items()})
    assert one.gpu.log == ["launch", "copy"] * 296


def test_where_nothing_is_recorded_copies_follow_the_graph(one: Fake) -> None:
    net = copying(3, 5, 4)
    session = Session(open_engine(net, graphs=False), net.manifest)
    frames = net.frames(60)
    expected = net.oracle(frames)
    check(drive(session, frames[:4]), {name: values[:4] for name, values in expected.items()})
    one.gpu.log.clear()
    check(drive(session, frames[4:]), {name: values[4:] for name, values in expected.items()})
    assert one.gpu.log == ["enqueue", *["copy"] * 5] * 56  # one of the ring, two of each mirror


def test_a_launch_that_fails_leaves_the_past_as_it_was(one: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    net = copying(3, 5, 4)
    session = Session(open_engine(net), net.manifest)
    frames = net.frames(40)
    expected = net.oracle(frames)
    check(drive(session, frames[:20]), {name: values[:20] for name, values in expected.items()})
    before = session.past()

    def fail(*args: object) -> None:
        raise EngineError("no power")

    with monkeypatch.context() as patch:
        patch.setattr("edgeco.engines.cuda.graphs.BindingsGraphs.launch", fail)
        with pytest.raises(EngineError, match="no power"):
            drive(session, frames[20:21])
    assert session.steps == 20
    check(session.past(), before)
    check(drive(session, frames[20:]), {name: values[20:] for name, values in expected.items()})


def test_recording_that_fails_falls_back(one: Fake) -> None:
    net = mixed()
    engine = open_engine(net)
    one.gpu.refuse_capture = True
    session = Session(engine, net.manifest)
    frames = net.frames(60)
    check(drive(session, frames), net.oracle(frames))
    assert "launch" not in one.gpu.log
    assert one.gpu.log.count("begin") == 1
    assert "CAPTURE" in session.engine.plain


def test_pycuda_alone_has_no_graphs(monkeypatch: pytest.MonkeyPatch, one: Fake) -> None:
    monkeypatch.setenv("EDGECO_CUDA", "pycuda")
    monkeypatch.setattr("edgeco.engines.cuda.pycuda._graphs", lambda: None)
    net = mixed()
    session = Session(open_engine(net), net.manifest)
    frames = net.frames(60)
    check(drive(session, frames), net.oracle(frames))
    assert one.gpu.log.count("begin") == 0
    assert "no package" in session.engine.plain


def test_half_states_of_a_weak_network(one: Fake) -> None:
    net = stepnet(history("slots", 2, border=-math.inf), history("ring", 3, number=1), history("carry", number=2))
    names = frozenset({"h000_slots_age1", "h000_slots_age2", "h000_slots_new", "h001_ring_past", "h001_ring_new"})
    session = Session(open_engine(net, "fp16", names), net.manifest)
    frames = net.frames(50)
    answers, expected = drive(session, frames), net.oracle(frames)
    assert session.past()["h000_slots"].dtype == np.float16
    assert session.past()["h002_carry"].dtype == np.float32
    least = np.float32(np.finfo(np.float16).min)
    check(answers, {name: np.maximum(values, least) for name, values in expected.items()})


def test_the_past_moves_between_engines(one: Fake) -> None:
    from edgeco.engines import open_engine as on_the_processor

    net = mixed()
    frames = net.frames(60)
    first = Session(open_engine(net), net.manifest)
    drive(first, frames[:23])
    second = Session(on_the_processor(net.onnx, threads=1), net.manifest)
    second.load(first.past(), first.steps)
    expected = {name: values[23:] for name, values in net.oracle(frames).items()}
    check(drive(second, frames[23:]), expected)
    first.reset()
    first.load(first.past(), 0)
    check(drive(first, frames), net.oracle(frames))


def test_reset_forgets_everything(one: Fake) -> None:
    net = mixed()
    session = Session(open_engine(net), net.manifest)
    frames = net.frames(31)
    drive(session, frames)
    session.reset()
    check(drive(session, frames), net.oracle(frames))


def test_sessions_of_one_engine_do_not_touch_each_other(one: Fake) -> None:
    net = mixed()
    engine = open_engine(net)
    sessions = [Session(engine, net.manifest), Session(engine, net.manifest), Session(engine, net.manifest, 3)]
    frames = [net.frames(40, seed=1), net.frames(40, seed=2), net.frames(40, 3, seed=3)]
    given: list[list[dict]] = [[], [], []]
    for step in range(40):
        for number, session in enumerate(sessions):
            given[number].append(drive(session, frames[number][step : step + 1]))
    for number, rows in enumerate((1, 1, 3)):
        answers = {name: np.concatenate([one[name] for one in given[number]]) for name in given[number][0]}
        check(answers, net.oracle(frames[number], rows))
    sessions[0].close()
    check(drive(sessions[1], frames[1][:1]), {})
    for session in sessions:
        session.close()
        session.close()
    assert one.gpu.live == {}


def test_frames_may_be_written_before_answers_are_read(one: Fake) -> None:
    """Page-locked frames are used in turn: three writes without a wait between them, each step gets its own."""
    net = stepnet(history("slots", 3))
    session = Session(open_engine(net), net.manifest)
    memory, frames = session.engine.memory, net.frames(30)
    for frame in frames:
        memory.write(session.inputs["x"], frame)
        session.run()
    past = session.past()["h000_slots"]
    np.testing.assert_array_equal(past[:, 0], 3 * frames[-3:, :2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_end_waits_for_the_work_that_is_queued(one: Fake, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setenv("EDGECO_CUDA", backend)
    net = mixed()
    session = Session(open_engine(net), net.manifest)
    session.engine.memory.write(session.inputs["x"], net.frames(1)[0])
    session.run()
    session.close()
    assert one.gpu.live == {}


def test_what_a_failing_start_took_is_given_back(one: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    net = mixed()
    engine = open_engine(net)

    def fail(*args: object) -> None:
        raise EngineError("no power")

    with monkeypatch.context() as patch:
        patch.setattr("edgeco.engines.tensorrt.lane.Lane.prepare", fail)
        with pytest.raises(EngineError, match="no power"):
            Session(engine, net.manifest)
    assert one.gpu.live == {}
    one.gpu.limit = 6000
    with pytest.raises(EngineError, match="no GPU memory for a buffer"):
        Session(engine, net.manifest, 100)
    assert one.gpu.live == {}
    assert one.gpu.depth == 0


def test_a_session_that_is_dropped_gives_its_memory_back(one: Fake) -> None:
    net = mixed()
    session = Session(open_engine(net), net.manifest)
    drive(session, net.frames(3))
    del session
    import gc

    gc.collect()
    assert one.gpu.live == {}


def test_a_run_that_cannot_be_recorded_leaves_the_stream_as_it_was(one: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    net = mixed()
    engine = open_engine(net)
    context = sys.modules["tensorrt"].IExecutionContext
    real = context.execute_async_v3
    monkeypatch.setattr(
        context, "execute_async_v3", lambda self, stream: not one.gpu.recording(stream) and real(self, stream)
    )
    session = Session(engine, net.manifest)
    assert "cannot run" in session.engine.plain
    frames = net.frames(30)
    check(drive(session, frames), net.oracle(frames))
    session.close()
    assert one.gpu.live == {}


def test_two_frames_may_wait_and_the_third_waits_for_them(one: Fake) -> None:
    net = stepnet(history("slots", 3))
    session = Session(open_engine(net), net.manifest)
    memory, queue = session.engine.memory, one.gpu.streams[session.engine.stream.handle]
    memory.read_all(list(session.outputs.values()))
    waiting = []
    for frame in net.frames(5):
        memory.write(session.inputs["x"], frame)
        waiting.append(len(queue.work))
    assert waiting == [1, 2, 1, 2, 1]
    memory.read_all(list(session.outputs.values()))
    for number, frame in enumerate(net.frames(2), 1):
        memory.write(session.inputs["x"], frame)
        assert len(queue.work) == number


def test_what_lies_on_the_gpu_is_copied_before_its_owner_goes_on(one: Fake) -> None:
    net = stepnet(history("slots", 1))
    session = Session(open_engine(net), net.manifest)
    memory, queue = session.engine.memory, one.gpu.streams[session.engine.stream.handle]
    frame = memory.allocate(session.inputs["x"].shape, "float32", 3.0)
    told = {"shape": frame.shape, "typestr": "<f4", "data": (frame.address, False), "version": 3, "stream": None}
    memory.accept(session.inputs["x"], SimpleNamespace(__cuda_array_interface__=told))
    assert not queue.work
    assert (memory.read(session.inputs["x"]) == 3).all()


def test_an_input_is_swapped_for_one_that_fits_and_lies_apart(one: Fake) -> None:
    net = stepnet(history("mirror", 3, channels=ALIGNED))
    lane = open_engine(net).lane(1)
    memory = lane.memory
    own = {t.name: memory.allocate([1 if n is None else n for n in t.shape], t.dtype) for t in lane.inputs}
    out = {t.name: memory.allocate([1 if n is None else n for n in t.shape], t.dtype) for t in lane.outputs}
    whole = memory.allocate((6, 1, ALIGNED), "float32")
    binding = lane.bind(own, {**out, "h000_mirror_new": memory.element(whole, 5)})
    binding.rebind("h000_mirror_past", memory.window(whole, 1, 3))
    assert binding.moved == (whole.address + 256,)
    binding.rebind("unknown", whole)
    with pytest.raises(EngineError, match="share memory"):
        binding.rebind("h000_mirror_past", memory.window(whole, 3, 3))
    with pytest.raises(EngineError, match=r"takes float32\(3, 1, 64\), not float32\(2, 1, 64\)"):
        binding.rebind("h000_mirror_past", memory.window(whole, 0, 2))
    lane.close()


def test_memory_that_the_driver_gives_askew_is_refused(one: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    net = stepnet(history("slots", 1))
    lane = open_engine(net).lane(1)
    real = type(lane.memory._cuda).allocate
    monkeypatch.setattr(type(lane.memory._cuda), "allocate", lambda self, size: real(self, size + 64) + 64)
    monkeypatch.setattr(type(lane.memory._cuda), "free", lambda self, address: one.gpu.free(address - 64))
    with pytest.raises(EngineError, match="no multiple of 256; report this GPU"):
        lane.memory.allocate((4,), "float32")
    lane.close()
    assert one.gpu.live == {}


def test_refused_bindings(one: Fake) -> None:
    net = stepnet(history("slots", 1, channels=3))
    lane = open_engine(net).lane(1)
    memory = lane.memory
    whole = memory.allocate((6, 1, 3), "float32")
    own = {t.name: memory.allocate([1 if n is None else n for n in t.shape], t.dtype) for t in lane.inputs}
    out = {t.name: memory.allocate([1 if n is None else n for n in t.shape], t.dtype) for t in lane.outputs}
    lane.bind(own, out)
    with pytest.raises(EngineError, match="no multiple of 256"):
        lane.bind({**own, "x": memory.element(whole, 1)}, out)
    with pytest.raises(EngineError, match="share memory"):
        lane.bind(own, {**out, "h000_slots_new": own["h000_slots_age1"]})
    with pytest.raises(EngineError, match="is not bound"):
        lane.bind({"x": own["x"]}, out)
    with pytest.raises(EngineError, match="and its buffer"):
        lane.bind({**own, "x": whole}, out)
    lane.close()

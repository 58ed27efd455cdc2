"""Sessions against the numpy oracle, for every storage and all of them together."""

from __future__ import annotations

import gc
import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepnets import StepNet, history, stepnet

from edgeco.engines import open_engine
from edgeco.engines.protocol import Copies
from edgeco.engines.session import MOST_BINDINGS, Session
from edgeco.errors import EngineError

BORDERS = {
    "float32": [0.0, -math.inf, 2.0, -3.4028234663852886e38],
    "float16": [0.0, -math.inf, 2.0],
    "int8": [0.0, -128.0],
    "uint8": [0.0, 128.0],
}


def open_session(net: StepNet, rows: int = 1) -> Session:
    return Session(open_engine(net.onnx, threads=1), net.manifest, rows)


def drive(session: Session, frames: np.ndarray) -> dict[str, np.ndarray]:
    memory = session.engine.memory
    answers: dict[str, list[np.ndarray]] = {name: [] for name in session.outputs}
    for frame in frames:
        memory.write(session.inputs["x"], frame)
        session.run()
        for name, buffer in session.outputs.items():
            answers[name].append(memory.read(buffer))
    return {name: np.stack(values) for name, values in answers.items()}


def check(given: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert given.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(given[name], values, err_msg=name)


@st.composite
def histories(draw: st.DrawFn, number: int) -> object:
    storage = draw(st.sampled_from(["slots", "ring", "mirror", "carry"]))
    depth = 1 if storage == "carry" else draw(st.integers(1, 7))
    dtype = (
        "float32" if storage == "carry" else draw(st.sampled_from(["float32", "float32", "float16", "int8", "uint8"]))
    )
    ages = None
    if storage == "slots":
        ages = sorted({depth, *draw(st.sets(st.integers(1, depth)))})
    return history(
        storage,
        depth,
        ages=ages,
        spare=draw(st.integers(0, 2)),
        number=number,
        channels=draw(st.integers(1, 3)),
        dtype=dtype,
        border=draw(st.sampled_from(BORDERS[dtype])),
        starts_at=draw(st.integers(0, 5)),
        before="border" if storage == "carry" else draw(st.sampled_from(["border", "border", "first"])),
        rows_per_stream=draw(st.sampled_from([1, 1, 2])),
    )


@st.composite
def networks(draw: st.DrawFn) -> StepNet:
    return stepnet(*[draw(histories(number)) for number in range(draw(st.integers(1, 4)))])


def long_enough(net: StepNet) -> int:
    depth = max(record.depth for record in net.manifest.histories)
    return min(5 * math.lcm(net.manifest.timeline.period, 2), 400) + 5 * depth


@settings(max_examples=60, deadline=None)
@given(networks(), st.sampled_from([1, 3]), st.integers(0, 2**16), st.sampled_from([0, MOST_BINDINGS]))
def test_every_storage_reads_what_the_oracle_reads(net: StepNet, rows: int, seed: int, bindings: int) -> None:
    frames = net.frames(long_enough(net), rows, seed)
    with mock.patch("edgeco.engines.session.MOST_BINDINGS", bindings):
        session = open_session(net, rows)
    check(drive(session, frames), net.oracle(frames, rows))


def test_deep_mirrors_move_within_few_bindings() -> None:
    net = stepnet(history("slots", 3), *[history("mirror", depth, number=depth) for depth in (3, 8, 9, 50)])
    session = open_session(net)
    assert len(session._bindings) <= MOST_BINDINGS
    frames = net.frames(170)
    check(drive(session, frames), net.oracle(frames))


@pytest.mark.parametrize("storage", ["slots", "ring", "mirror"])
@pytest.mark.parametrize("border", [0.0, -math.inf])
@pytest.mark.parametrize("rows", [1, 3])
def test_writes_before_starts_at_become_the_border(storage: str, border: float, rows: int) -> None:
    net = stepnet(history(storage, 3, border=border, starts_at=4))
    frames = net.frames(30, rows)
    answers = drive(open_session(net, rows), frames)
    check(answers, net.oracle(frames, rows))
    newest = {"slots": np.s_[:, :, :1], "mirror": np.s_[:, :, -1:], "ring": np.s_[:, :, 1:2]}[storage]
    seen = answers["y0"].reshape(30, rows, -1, 2)[newest]
    assert (seen[:5] == border).all()
    assert (seen[5:] != border).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("storage", ["slots", "ring", "mirror"])
@pytest.mark.parametrize("starts_at", [0, 1, 4])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_first_element_becomes_the_whole_past(storage: str, starts_at: int, rows: int) -> None:
    net = stepnet(history(storage, 3, before="first", starts_at=starts_at), history("slots", 2, number=1))
    frames = net.frames(20, rows)
    check(drive(open_session(net, rows), frames), net.oracle(frames, rows))


def test_reset_forgets_everything() -> None:
    net = stepnet(
        history("slots", 2, border=1.0, starts_at=1),
        history("ring", 3, number=1, border=-math.inf),
        history("mirror", 3, number=2),
        history("carry", number=3),
    )
    session = open_session(net)
    frames = net.frames(11)
    drive(session, frames)
    assert session.steps == 11
    session.reset()
    assert session.steps == 0
    check(drive(session, frames), net.oracle(frames))


@settings(max_examples=25, deadline=None)
@given(networks(), st.sampled_from([1, 3]), st.data())
def test_past_moves_to_another_session_at_any_step(net: StepNet, rows: int, data: st.DataObject) -> None:
    frames = net.frames(long_enough(net), rows)
    cut = data.draw(st.integers(1, len(frames) - 1))
    first, second = open_session(net, rows), open_session(net, rows)
    drive(first, frames[:cut])
    drive(second, frames[: data.draw(st.integers(1, 9))] + 1)
    past = first.past()
    for record in net.manifest.histories:
        assert past[record.name].shape == (record.depth, rows * record.rows_per_stream, *record.shape)
    second.load(past, first.steps)
    expected = {name: values[cut:] for name, values in net.oracle(frames, rows).items()}
    check(drive(second, frames[cut:]), expected)
    for name, array in first.past().items():
        np.testing.assert_array_equal(array, past[name])


def test_past_is_in_order_of_age_whatever_the_phase() -> None:
    net = stepnet(*[history(kind, 3, number=n, channels=1) for n, kind in enumerate(["slots", "ring", "mirror"])])
    session = open_session(net)
    frames = net.frames(12)
    for step, frame in enumerate(frames):
        drive(session, frame[None])
        for number, array in enumerate(session.past().values()):
            written = [3 * frames[at, 0] + number if at >= 0 else 0 for at in range(step - 2, step + 1)]
            assert array[:, 0, 0].tolist() == written


def test_a_past_that_does_not_fit_changes_nothing() -> None:
    net = stepnet(history("slots", 2), history("mirror", 2, number=1))
    session = open_session(net)
    frames = net.frames(20)
    drive(session, frames[:7])
    past = session.past()
    names = list(past)
    for wrong in (
        {names[0]: past[names[0]]},
        {**past, names[1]: past[names[1]][:1]},
        {**past, names[1]: past[names[1]].astype(np.float64)},
    ):
        changed = {name: np.zeros_like(array) for name, array in wrong.items()}
        with pytest.raises(EngineError, match=names[1]):
            session.load(changed, 3)
    assert session.steps == 7
    check(drive(session, frames[7:]), {name: values[7:] for name, values in net.oracle(frames).items()})


def test_sessions_of_one_engine_do_not_touch_each_other() -> None:
    net = stepnet(history("slots", 2), history("ring", 3, number=1), history("carry", number=2))
    engine = open_engine(net.onnx, threads=1)
    one, other = Session(engine, net.manifest), Session(engine, net.manifest, 3)
    frames, others = net.frames(25), net.frames(25, 3, seed=5)
    given: tuple[list, list] = ([], [])
    for frame, triple in zip(frames, others, strict=True):
        given[0].append(drive(one, frame[None]))
        given[1].append(drive(other, triple[None]))
    for answers, expected in zip(given, (net.oracle(frames), net.oracle(others, 3)), strict=True):
        check({name: np.concatenate([answer[name] for answer in answers]) for name in expected}, expected)


def test_a_failed_run_leaves_the_past_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    net = stepnet(history("slots", 2), history("mirror", 3, number=1), history("carry", number=2))
    session = open_session(net)
    frames = net.frames(20)
    drive(session, frames[:8])
    run = session.engine.run

    def fail(binding: object, copies: Copies = ()) -> None:
        run(binding)
        raise EngineError("no power")

    with monkeypatch.context() as patch:
        patch.setattr(session.engine, "run", fail)
        session.engine.memory.write(session.inputs["x"], frames[0])
        with pytest.raises(EngineError):
            session.run()
    assert session.steps == 8
    check(drive(session, frames[8:]), {name: values[8:] for name, values in net.oracle(frames).items()})


@pytest.mark.parametrize("storage", ["slots", "ring", "mirror"])
def test_a_past_may_come_in_floats_of_another_width(storage: str) -> None:
    lowest = {kind: float(np.finfo(kind).min) for kind in ("float32", "float16")}
    nets = {kind: stepnet(history(storage, 3, dtype=kind, border=lowest[kind])) for kind in lowest}
    frames = nets["float32"].frames(12)
    for kind, other in (("float32", "float16"), ("float16", "float32")):
        first, second = open_session(nets[kind]), open_session(nets[other])
        drive(first, frames[:2])
        second.load(first.past(), 2)
        assert all(np.isfinite(past).all() for past in second.past().values())
        given, right = drive(second, frames[2:]), nets[kind].oracle(frames)
        check({name: values[2:] for name, values in given.items()}, {name: v[4:] for name, v in right.items()})


def test_no_rows_no_session() -> None:
    with pytest.raises(EngineError, match="at least one row"):
        open_session(stepnet(history("carry")), 0)


def test_state_bytes_count_every_buffer() -> None:
    net = stepnet(
        history("slots", 2, channels=4),
        history("ring", 3, number=1, channels=4),
        history("mirror", 3, number=2, channels=4, dtype="float16"),
        history("carry", number=3, channels=4),
    )
    # Slots 3, ring 3 and a scratch, mirror 6 and a scratch of 2 bytes each, carry 2.
    assert open_session(net, 5).nbytes == 5 * 4 * (3 * 4 + 4 * 4 + 7 * 2 + 2 * 4)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_is_flat_over_twenty_thousand_steps() -> None:
    net = stepnet(history("slots", 2), history("ring", 3, number=1), history("mirror", 5, number=2))
    session = open_session(net)
    frame = net.frames(1)[0]
    memory = session.engine.memory

    def run(steps: int) -> None:
        for _ in range(steps):
            memory.write(session.inputs["x"], frame)
            session.run()
            memory.read(session.outputs["y0"])

    run(2000)
    gc.collect()
    before = resident()
    run(20000)
    gc.collect()
    assert resident() - before < 400_000  # 20 bytes a step would be as much

"""Rows that come and go over real bundles, each against a stream of its own."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picturenet import HEIGHT, WIDTH, write_picturenet
from rows_parity import Driver
from stepnets import StepNet, history, mixed, stepnet, write_stepnet

from edgeco.errors import BundleError, EngineError, FrameError, SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.model import Model, load

NET = mixed(valid_from=3, receptive_field=6)
PERSONS = stepnet(
    history("slots", 2, ages=(1, 2), spare=1, rows_per_stream=2, starts_at=2, border=-3.0),
    history("ring", 4, number=1, rows_per_stream=3),
    history("mirror", 1, number=2, rows_per_stream=2, dtype="float16"),
    history("ring", 1, number=3, starts_at=4, border=5.0),
    history("carry", number=4, rows_per_stream=2),
    history("mirror", 60, number=5, rows_per_stream=2, starts_at=5),
)
"""Several elements per row, deep and shallow; the deep mirror gets no bindings of its own."""
NETS = {"mixed": NET, "persons": PERSONS}


@pytest.fixture(scope="module", params=NETS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[StepNet, Model]:
    net = NETS[request.param]
    return net, load(write_stepnet(tmp_path_factory.mktemp("bundle") / "net.edgeco", net), threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_stepnet(tmp_path_factory.mktemp("bundle") / "net.edgeco", NET), threads=1)


def numbers(net: StepNet):
    return lambda rng: rng.integers(0, 20, net.features).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_every_row_answers_as_a_stream_of_its_own(case: tuple[StepNet, Model], rows: int) -> None:
    net, model = case
    counts = Driver(model, rows, numbers(net), seed=rows).run(300)
    assert min(counts[what] for what in ("joined", "left", "reset", "moved out", "moved in")) > 3, counts
    assert min(counts[what] for what in ("answered", "held")) > 20, counts


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 30), rows=st.integers(1, 6))
def test_in_any_order(model: Model, seed: int, rows: int) -> None:
    Driver(model, rows, numbers(NET), seed).run(40)


def test_a_row_may_be_older_than_the_streams_it_joins(model: Model) -> None:
    """Its start is long over where the session's own has just begun."""
    frames = NET.frames(30)
    with model.stream() as alone:
        for frame in frames[:20]:
            alone.step(frame)
        with model.streams(1) as streams:
            row = streams.join()
            streams.restore(row, alone.snapshot())
            for frame in frames[20:]:
                given, right = streams.tick({row: frame})[row], alone.step(frame)
                for name, values in right.outputs.items():
                    np.testing.assert_array_equal(given.outputs[name], values, err_msg=name)


def test_rows_that_never_pause_cost_no_copies(model: Model) -> None:
    frames = NET.frames(50, 3)
    with model.streams(3) as streams:
        rows = [streams.join() for _ in range(3)]
        given = [streams.tick(dict(zip(rows, triple, strict=True))) for triple in frames]
        assert (streams.held, streams.copied) == (0, 0)
        assert streams.ready == streams.live == (0, 1, 2)
    expected = NET.oracle(frames, 3)
    for step, results in enumerate(given):
        for row, result in results.items():
            for name, values in expected.items():
                np.testing.assert_array_equal(result.outputs[name], values[step][row])


def test_holding_copies_one_past_and_says_so(model: Model) -> None:
    with model.streams(2) as streams:
        one, other = streams.join(), streams.join()
        frame = NET.frames(1)[0]
        streams.tick({one: frame, other: frame})
        assert streams.tick({}) == {}
        assert (streams.held, streams.copied) == (0, 0), "a tick of nobody is none"
        streams.tick({one: frame})
        element = 2 * 4
        slots = (2 + 3 + 1) * element  # carry among them
        ring = (1 + 3 + 3) * element
        mirror = (1 + 5 + 10) * element // 2
        assert (streams.held, streams.copied) == (1, slots + ring + mirror)
        assert (streams.steps(one), streams.steps(other)) == (2, 1)
        streams.leave(other)
        streams.tick({one: frame})
        fresh = streams.join()
        streams.tick({one: frame})
        assert streams.held == 1, "neither a row that left nor one that has not begun is held"
        assert streams.steps(fresh) == 0


def test_a_tick_allocates_no_histories(tmp_path: Path) -> None:
    net = stepnet(
        *(history(kind, 3, channels=4096, number=n) for n, kind in enumerate(("slots", "ring", "mirror"))),
        history("carry", number=3, channels=4096),
    )
    with load(write_stepnet(tmp_path / "large.edgeco", net), threads=1).streams(3) as streams:
        frame = net.frames(1)[0]
        rows = [streams.join() for _ in range(3)]
        full = dict.fromkeys(rows, frame)
        streams.tick(full)
        streams.tick({0: frame})
        session = streams._open()
        stepping = {0: 2}
        tracemalloc.start()
        for _ in range(20):
            session.run_rows(stepping, [1, 2])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4096 * 4, "one element of one row would be as much"


def test_rows_are_numbered_from_the_lowest_that_is_free(model: Model) -> None:
    with model.streams(3) as streams:
        assert streams.live == streams.ready == ()
        assert [streams.join() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(SpecError, match="all 3 rows are taken"):
            streams.join()
        streams.leave(1)
        assert streams.live == (0, 2)
        assert streams.join() == 1


@pytest.mark.parametrize("use", ["leave", "reset", "snapshot", "steps", "waits"])
def test_a_row_that_is_not_live_is_refused(model: Model, use: str) -> None:
    with model.streams(2) as streams:
        streams.join()
        with pytest.raises(SpecError, match=r"row 1 is not live \(live rows: 0\)"):
            getattr(streams, use)(1)
        with pytest.raises(SpecError, match="row 1 is not live"):
            streams.restore(1, b"")


def test_a_frame_that_does_not_fit_changes_no_row(model: Model) -> None:
    frames = NET.frames(20, 2)
    good, expected = NET.frames(1)[0], NET.oracle(frames, 2)
    with model.streams(2) as streams:
        rows = [streams.join(), streams.join()]
        for step, pair in enumerate(frames):
            for wrong, message in (
                ({0: good, 1: good[:1]}, r"row 1: input 'x' expects float32\(2,\); given was float32\(1,\)"),
                ({0: good, 2: good}, "a frame for row 2, which is not live"),
                ({0: good, 1: None}, "row 1: .* given was a NoneType"),
                ({0: good, 1: {"y": good}}, "row 1: the network takes a mapping"),
            ):
                with pytest.raises(FrameError, match=message):
                    streams.tick(wrong)
            results = streams.tick(dict(zip(rows, pair, strict=True)))
            for row, result in results.items():
                for name, values in expected.items():
                    np.testing.assert_array_equal(result.outputs[name], values[step][row])


def test_an_engine_that_fails_changes_no_row(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = NET.frames(12, 2)
    expected = NET.oracle(frames, 2)

    def fail(*_: object) -> None:
        raise EngineError("out of order")

    with model.streams(2) as streams:
        rows = [streams.join(), streams.join()]
        for step, pair in enumerate(frames):
            given = dict(zip(rows, pair, strict=True))
            with monkeypatch.context() as patch:
                patch.setattr(model.engine, "run", fail)
                with pytest.raises(EngineError, match="out of order"):
                    streams.tick(given)
            for row, result in streams.tick(given).items():
                for name, values in expected.items():
                    np.testing.assert_array_equal(result.outputs[name], values[step][row])


def test_a_snapshot_of_several_rows_or_damaged_is_refused(model: Model) -> None:
    with model.stream(2) as pair, model.streams(2) as streams:
        row = streams.join()
        for frame in NET.frames(5):
            streams.tick({row: frame})
        before = streams.snapshot(row)
        for data, message in ((pair.snapshot(), "another number of rows: 2"), (before[:-1], "damaged|snapshot")):
            with pytest.raises(BundleError, match=message):
                streams.restore(row, data)
            assert streams.snapshot(row) == before
            assert streams.steps(row) == 5


def test_pictures_are_prepared_row_by_row(tmp_path: Path) -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 2] = 200
    with load(write_picturenet(tmp_path / "pictures.edgeco"), threads=1).streams(2) as streams:
        one, other = streams.join(), streams.join()
        results = streams.tick({one: Frame(image, 1.5, "file", 0), other: Frame(image // 2, 2.5, "file", 0)})
        assert (results[one].stamp, results[other].stamp) == (1.5, 2.5)
        np.testing.assert_array_equal(results[one].outputs["colour"], [100, 0, 0])
        np.testing.assert_array_equal(results[other].outputs["colour"], [50, 0, 0])
        assert results[one].latency > 0
        again = streams.tick({one: Frame(image, 1.75, "file", 1)})
        assert again[one].top(1)[0].label == "red"


def test_closed_streams_say_so(model: Model) -> None:
    streams = model.streams(2)
    streams.join()
    streams.close()
    streams.close()
    for use in (streams.join, lambda: streams.tick({}), lambda: streams.snapshot(0), lambda: streams.state_bytes):
        with pytest.raises(SpecError, match="closed"):
            use()


def test_no_rows_are_refused(model: Model) -> None:
    with pytest.raises(SpecError, match="at least one row"):
        model.streams(0)

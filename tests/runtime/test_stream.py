"""Streams over real bundles against the numpy oracle."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx_bytes import value
from picturenet import HEIGHT, WIDTH, write_picturenet
from stepnets import StepNet, history, mixed, stepnet, write_stepnet

from edgeco.engines.threads import default_threads
from edgeco.errors import BundleError, EngineError, FrameError, SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.model import Model, load
from edgeco.runtime.stream import Stream

NET = mixed(valid_from=3, receptive_field=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_stepnet(tmp_path_factory.mktemp("bundle") / "net.edgeco", NET), threads=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_picturenet(tmp_path_factory.mktemp("bundle") / "pictures.edgeco"), threads=1)


def answers(stream: Stream, frames: np.ndarray) -> dict[str, np.ndarray]:
    results = [stream.step(frame) for frame in frames]
    return {name: np.stack([result.outputs[name] for result in results]) for name in results[0].outputs}


def check(given: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert given.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(given[name], values, err_msg=name)


@pytest.mark.parametrize("rows", [1, 3])
def test_answers_are_the_oracles(model: Model, rows: int) -> None:
    frames = NET.frames(70, rows)
    with model.stream(rows) as stream:
        check(answers(stream, frames), NET.oracle(frames, rows))
        stream.reset()
        check(answers(stream, frames), NET.oracle(frames, rows))


def test_results_tell_when_answers_are_valid(model: Model) -> None:
    with model.stream() as stream:
        assert (stream.steps, stream.valid, stream.warm) == (0, False, False)
        for step, frame in enumerate(NET.frames(9)):
            result = stream.step(frame)
            assert result.step == step
            assert (result.valid, result.warm) == (step >= 3, step >= 5)
            assert (stream.valid, stream.warm, stream.steps) == (result.valid, result.warm, step + 1)
            assert result.stamp is None
            assert 0 < result.latency < 10
        stream.reset()
        assert (stream.steps, stream.valid, stream.warm) == (0, False, False)


def test_results_may_be_kept(model: Model) -> None:
    frames = NET.frames(30)
    with model.stream() as stream:
        kept = [stream.step(frame) for frame in frames]
    for name, values in NET.oracle(frames).items():
        for result, expected in zip(kept, values, strict=True):
            np.testing.assert_array_equal(result.outputs[name], expected)
    kept[0].outputs["y0"][:] = 99
    assert not (kept[1].outputs["y0"] == 99).all()


def test_the_frame_may_be_reused_and_lie_anywhere(model: Model) -> None:
    frames = NET.frames(20)
    wide = np.zeros((NET.features * 2, 3), np.float32)
    scattered = wide[::2, 1]
    assert not scattered.flags.c_contiguous
    with model.stream() as stream:
        given = []
        for frame in frames:
            scattered[:] = frame
            given.append(stream.step(scattered).outputs["y3"])
            wide[:] = -5
    np.testing.assert_array_equal(np.stack(given), NET.oracle(frames)["y3"])


def test_a_mapping_names_the_inputs(model: Model) -> None:
    frames = NET.frames(12)
    with model.stream() as stream:
        check(answers(stream, [{"x": frame} for frame in frames]), NET.oracle(frames))


class Subclass(np.ndarray):
    pass


def test_a_subclass_of_array_is_an_array(model: Model) -> None:
    frames = NET.frames(12)
    with model.stream() as stream:
        check(answers(stream, frames.view(Subclass)), NET.oracle(frames))


def test_a_frame_of_a_sensor_is_its_array(model: Model) -> None:
    frames = NET.frames(12)
    rows = [Frame(row, index / 10, "rate", index) for index, row in enumerate(frames)]
    with model.stream() as stream:
        results = [stream.step(row) for row in rows]
        assert [result.stamp for result in results] == [row.stamp for row in rows]
        with pytest.raises(FrameError, match=r"'x' expects float32\(2,\); given was float32\(3,\)"):
            stream.step(Frame(np.zeros(3, np.float32), 0.0, "rate", 0))
    with model.stream() as stream:
        plain = [stream.step(row) for row in frames]
    for one, other in zip(results, plain, strict=True):
        assert all((one.outputs[name] == other.outputs[name]).all() for name in other.outputs)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros(2), r"'x' expects float32\(2,\); given was float64\(2,\)"),
        (np.zeros(3, np.float32), r"expects float32\(2,\); given was float32\(3,\)"),
        (np.zeros((1, 2), np.float32), r"given was float32\(1, 2\)"),
        (np.float32(1), "given was a float32"),
        (np.zeros(2, ">f4"), r"given was >f4\(2,\)"),
        (np.zeros(2, np.uint8), r"given was uint8\(2,\)"),
        ([1.0, 2.0], "given was a list"),
        (None, "given was a NoneType"),
        ({"y": np.zeros(2, np.float32)}, "inputs 'x'; given was 'y'"),
        ({}, "given was nothing"),
        ({"x": np.zeros(2, np.float32), "y": np.zeros(2, np.float32)}, "given was 'x', 'y'"),
        ({"x": np.zeros(2)}, "given was float64"),
        (Frame(np.zeros((4, 4, 3), np.uint8), 0.0, "rate", 0), "'x' takes arrays"),
    ],
)
def test_a_frame_that_does_not_fit_changes_nothing(model: Model, frame: object, message: str) -> None:
    frames = NET.frames(20)
    with model.stream() as stream:
        answers(stream, frames[:9])
        with pytest.raises(FrameError, match=message):
            stream.step(frame)  # type: ignore[arg-type]
        assert stream.steps == 9
        check(answers(stream, frames[9:]), {name: values[9:] for name, values in NET.oracle(frames).items()})


def test_rows_have_their_axis(model: Model) -> None:
    with model.stream(3) as stream, pytest.raises(FrameError, match=r"float32\(3, 2\); given was float32\(2,\)"):
        stream.step(np.zeros(2, np.float32))


def test_a_nan_stays_for_as_long_as_it_is_looked_back_at(tmp_path: Path) -> None:
    net = stepnet(history("slots", 2), history("ring", 3, number=1), history("mirror", 4, number=2))
    frames = net.frames(12)
    frames[3] = math.nan
    with load(write_stepnet(tmp_path / "nan.edgeco", net), threads=1).stream() as stream:
        given = answers(stream, frames)
    for name, depth in (("y0", 2), ("y1", 3), ("y2", 4)):
        touched = np.isnan(given[name]).any(axis=(1, 2, 3))
        assert touched.tolist() == [3 < step <= 3 + depth for step in range(12)]


def test_interleaved_streams_are_strangers(model: Model) -> None:
    frames, others = NET.frames(40, seed=1), NET.frames(40, 3, seed=2)
    with model.stream() as one, model.stream(3) as other, model.stream() as idle:
        idle.step(frames[7])
        given: tuple[list, list] = ([], [])
        for frame, triple in zip(frames, others, strict=True):
            given[0].append(one.step(frame).outputs)
            given[1].append(other.step(triple).outputs)
            if len(given[0]) == 20:
                idle.reset()
    for outputs, expected in zip(given, (NET.oracle(frames), NET.oracle(others, 3)), strict=True):
        check({name: np.stack([output[name] for output in outputs]) for name in expected}, expected)


def test_streams_of_one_model_run_in_their_own_threads(model: Model) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            frames = NET.frames(300, seed=seed)
            with model.stream() as stream:
                check(answers(stream, frames), NET.oracle(frames))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_closed_stream_says_so(model: Model) -> None:
    stream = model.stream()
    stream.close()
    stream.close()
    for use in (
        lambda: stream.step(NET.frames(1)[0]),
        stream.reset,
        stream.snapshot,
        lambda: stream.restore(b""),
        lambda: stream.valid,
        lambda: stream.warm,
        lambda: stream.steps,
    ):
        with pytest.raises(SpecError, match="closed"):
            use()


def test_no_rows_are_refused(model: Model) -> None:
    with pytest.raises(SpecError, match="at least one row"):
        model.stream(0)


def test_pictures_are_preprocessed(pictures: Model) -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 2] = 200  # red, in the order blue, green, red
    with pictures.stream() as stream:
        first = stream.step(Frame(image, 1.5, "file", 0))
        second = stream.step({"frame": Frame(image // 2, 1.75, "file", 1)})
    assert (first.stamp, second.stamp) == (1.5, 1.75)
    assert (first.valid, second.valid) == (False, True)
    np.testing.assert_array_equal(first.outputs["colour"], [100, 0, 0])
    np.testing.assert_array_equal(second.outputs["colour"], [150, 0, 0])
    assert second.top(1)[0].label == "red"


def test_a_picture_as_array_must_be_the_networks_frame(pictures: Model) -> None:
    frame = np.full((HEIGHT, WIDTH, 3), (10, 20, 30), np.uint8)
    with pictures.stream() as stream:
        np.testing.assert_array_equal(stream.step(frame).outputs["colour"], [5, 10, 15])
        with pytest.raises(FrameError, match=rf"expects uint8\({HEIGHT}, {WIDTH}, 3\); given was uint8\(480, 640, 3\)"):
            stream.step(np.zeros((480, 640, 3), np.uint8))
    with pictures.stream(2) as stream, pytest.raises(FrameError, match="not one Frame"):
        stream.step(Frame(frame, 0.0, "rate", 0))


def test_a_model_says_what_it_chose(model: Model, tmp_path: Path) -> None:
    assert model.variant == "fp32"
    assert model.labels is None
    assert model.manifest == model.bundle.manifest
    assert model.sha256 == model.bundle.sha256
    assert model.why.count(".") == 1
    for word in ("onnxruntime", "1 thread", "fp32", "exact"):
        assert word in model.why


def test_small_steps_get_one_thread(tmp_path: Path) -> None:
    assert load(write_stepnet(tmp_path / "small.edgeco", NET)).engine.threads == 1
    costs = msgspec.structs.replace(NET.manifest.costs, step_macs=10**9)
    large = StepNet(msgspec.structs.replace(NET.manifest, costs=costs), NET.model)
    path = write_stepnet(tmp_path / "large.edgeco", large)
    assert load(path).engine.threads == default_threads()
    assert load(path, threads=1).engine.threads == 1


def test_loading_refuses_what_is_not_there(tmp_path: Path) -> None:
    path = write_stepnet(tmp_path / "net.edgeco", NET)
    with pytest.raises(SpecError, match="no variant 'int8'; it has fp32"):
        load(path, variant="int8")
    with pytest.raises(EngineError, match="no engine named"):
        load(path, engine="abacus")
    with pytest.raises(BundleError):
        load(tmp_path / "none.edgeco")


def test_a_graph_of_another_network_is_refused(tmp_path: Path) -> None:
    net = mixed(valid_from=3, receptive_field=6)
    (past,) = [entry for entry in net.manifest.histories if entry.storage == "mirror"]
    right, wrong = (value(past.reads[0].name, (depth, "rows", *past.shape), past.dtype) for depth in (past.depth, 4))
    assert right in net.model and past.depth != 4
    graph = StepNet(NET.manifest, net.model.replace(right, wrong))
    with pytest.raises(BundleError, match=r"not of one build|refuses"):
        load(write_stepnet(tmp_path / "net.edgeco", graph), threads=1).stream()

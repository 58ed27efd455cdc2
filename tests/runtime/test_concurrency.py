"""One model, several threads: streams, and rows that come and go, each equal to its own separate run."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="networks are run by ONNX Runtime")
pytest.importorskip("onnx", reason="networks for tests are made with the onnx package")

from rows_parity import Driver
from stepnets import mixed, write_stepnet

from edgeco.runtime.model import Model, load

NET = mixed(valid_from=3, receptive_field=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_stepnet(tmp_path_factory.mktemp("bundle") / "net.edgeco", NET), threads=1)


def together(*bodies: Callable[[], None]) -> None:
    """Run some functions, each in a thread, beginning at once; their first error is raised here."""
    errors: list[BaseException] = []
    begin = threading.Barrier(len(bodies))

    def guarded(body: Callable[[], None]) -> None:
        try:
            begin.wait(30)
            body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def test_two_streams_and_rows_in_three_threads(model: Model) -> None:
    """Two streams of their own and eight rows that join, leave, pause and reset share one model at the same time."""
    steps = 400
    frames = np.random.default_rng(2).integers(0, 20, (2, steps, NET.features)).astype(np.float32)
    seen: dict[int, list[dict[str, np.ndarray]]] = {0: [], 1: []}

    def stream(number: int) -> None:
        with model.stream() as own:
            for step, frame in enumerate(frames[number]):
                if step == 150 * (number + 1):
                    own.reset()
                seen[number].append(own.step(frame).outputs)

    def rows() -> None:
        draw = lambda rng: rng.integers(0, 20, NET.features).astype(np.float32)  # noqa: E731
        counts = Driver(model, 8, draw, seed=8).run(200)
        assert min(counts[what] for what in ("joined", "left", "reset")) > 1 and counts["held"] > 20, counts

    together(lambda: stream(0), lambda: stream(1), rows)
    for number in (0, 1):
        with model.stream() as own:
            for step, frame in enumerate(frames[number]):
                if step == 150 * (number + 1):
                    own.reset()
                expected = own.step(frame).outputs
                for name, values in expected.items():
                    np.testing.assert_array_equal(seen[number][step][name], values)

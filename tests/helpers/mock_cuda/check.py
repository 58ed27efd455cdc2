"""A stream of a hundred steps through a real CUDA package, over the driver's mock; argument: which package.

Prints the number of steps and of recorded phases; whatever is wrong is an exception.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

HELPERS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HELPERS), str(HELPERS / "fake_gpu")]

import numpy as np  # noqa: E402
from gpu import GPU  # noqa: E402
from gpu_fixtures import compile_here  # noqa: E402
from stepnets import mixed  # noqa: E402

import edgeco.engines.tensorrt.plans as plans  # noqa: E402
from edgeco.engines.cuda import open_cuda  # noqa: E402
from edgeco.engines.session import Session  # noqa: E402
from edgeco.engines.tensorrt.api import find_tensorrt  # noqa: E402
from edgeco.engines.tensorrt.cache import PlanCache  # noqa: E402
from edgeco.engines.tensorrt.engine import TensorRtEngine  # noqa: E402
from edgeco.engines.tensorrt.order import Options  # noqa: E402

plans.compile_in_child = compile_here


def stream(session: Session, frames: np.ndarray) -> dict[str, np.ndarray]:
    answers: dict[str, list[np.ndarray]] = {name: [] for name in session.outputs}
    memory = session.engine.memory
    for frame in frames:
        memory.write(session.inputs["x"], frame)
        session.run()
        for name, value in zip(session.outputs, memory.read_all(list(session.outputs.values())), strict=True):
            answers[name].append(value)
    return {name: np.stack(values) for name, values in answers.items()}


def main() -> None:
    net = mixed()
    cuda = open_cuda(sys.argv[1])
    assert cuda.device.name == "Mock GPU" and cuda.device.capability == (8, 7), cuda.device
    opened = plans.Plans(find_tensorrt(), cuda, PlanCache(), lambda text: None, "net")
    engine = TensorRtEngine([net.onnx], opened, "fp16", False, frozenset(), Options())
    session = Session(engine, net.manifest)
    frames = net.frames(100)
    stream(session, frames[:30])
    session.reset()
    answers = stream(session, frames)
    for name, values in net.oracle(frames).items():
        np.testing.assert_array_equal(answers[name], values, err_msg=name)
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            other = Session(engine, net.manifest)
            stream(other, frames[:20])
            other.close()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failed, failed
    graphs = 0 if session.engine.plain else len(session._bindings)
    session.close()
    assert GPU.live == 0, f"{GPU.live} things of the GPU were not given back"
    assert GPU.depth == 0
    print(len(frames), graphs, os.environ.get("EDGECO_FAKE_TRT"))


main()

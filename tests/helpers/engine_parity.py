"""The exported graphs in the product's own engine, from reset, against the torch runner, step for step."""

from __future__ import annotations

import numpy as np
import torch
from streaming import recording
from torch import nn

from edgeco.continual.convert import StepGraph, convert_graph, trace_network
from edgeco.continual.gate import gate
from edgeco.continual.program import State, StepProgram
from edgeco.engines import open_engine
from edgeco.engines.session import Session
from edgeco.export.exported import Exported
from edgeco.export.fold import fold_norms
from edgeco.export.onnx import export_onnx
from edgeco.export.package import manifest_of
from edgeco.spec import BuildSpec


def exported(
    net: nn.Module, clip: tuple[int, ...], time_dim: int = 2, exact: str | None = None, gated: bool = False
) -> tuple[StepGraph, Exported]:
    graph = trace_network(net.eval(), torch.zeros(1, *clip), time_dim)
    fold_norms(graph)
    step = convert_graph(graph, exact=exact)  # type: ignore[arg-type]
    step = gate(step) if gated else step
    return step, export_onnx(step)


def differences(
    net: nn.Module, clip: tuple[int, ...], time_dim: int = 2, steps: int = 60, rows: int = 1, exact: str | None = None
) -> dict[str, float]:
    """Greatest difference between engine and torch runner over a stream, relative, for every output.

    Every element of every state that is left at the end is compared as well, under ``state``.
    """
    step, made = exported(net, clip, time_dim, exact)
    program = StepProgram(net, step)
    manifest = manifest_of("net", BuildSpec(model="m", clip=clip, time_dim=time_dim), step, None, None, 0, 0, {})
    session = Session(open_engine(made.phases()), manifest, rows=rows)
    shape = [rows, *clip]
    shape[time_dim] = steps
    state, worst = program.initial_state(rows), dict[str, float]()
    for frame in recording(*shape, dtype=torch.float32).unbind(time_dim):
        buffer = session.inputs["frame"]
        session.engine.memory.write(buffer, frame.numpy().reshape(buffer.shape))
        session.run()
        with torch.no_grad():
            answers, state = program.step([frame], state)
        for answer, value in zip(program.answers, answers, strict=True):
            if value is not None and state.steps > answer.timeline.starts_at:
                given = session.engine.memory.read(session.outputs[answer.name])
                expected = value.numpy().reshape(given.shape)
                error = float(np.abs(given - expected).max() / max(np.abs(expected).max(), 1e-6))
                worst[answer.name] = max(worst.get(answer.name, 0.0), error)
    assert set(worst) == {answer.name for answer in program.answers}, "an answer was never valid"
    return worst | {"state": _state_difference(session, state)}


def _state_difference(session: Session, state: State) -> float:
    """Of every history of the engine from the torch runner's, relative to its greatest number."""
    worst = 0.0
    for name, past in session.past().items():
        expected = torch.stack(state.histories[name][::-1]).numpy().reshape(past.shape)  # oldest first
        finite = np.isfinite(expected)
        assert (past[~finite] == expected[~finite]).all(), f"{name}: another border"
        error = np.abs(past[finite] - expected[finite]).max(initial=0.0)
        worst = max(worst, float(error / max(np.abs(expected[finite]).max(initial=0.0), 1e-6)))
    return worst

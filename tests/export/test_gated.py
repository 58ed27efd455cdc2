"""Gated graphs in hosts: one that only feeds outputs back to inputs, and edgeco's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from builders import written
from bundles import write_network
from engine_parity import exported
from gated_nets import NETS
from naive_host import stream
from rows_parity import Driver
from streaming import randomise_norms, recording, relative
from torch import nn

import edgeco
from edgeco.continual.program import StepProgram
from edgeco.export.package import manifest_of
from edgeco.runtime.verify import verify
from edgeco.spec import BuildSpec

INTEGERS = {onnx.TensorProto.INT64, onnx.TensorProto.INT32}
ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Mod", "Min", "Max", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}


def made(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    make, clip = NETS[name]
    torch.manual_seed(0)
    return randomise_norms(make()).eval(), clip


def naive(net: nn.Module, clip: tuple[int, ...], long: torch.Tensor, gated: bool) -> tuple[torch.Tensor, StepProgram]:
    """A naive host's answers from the first valid one on, stacked where the clip network's output has time."""
    step, graphs = exported(net, clip, gated=gated)
    manifest = manifest_of("net", BuildSpec(model="m", clip=clip), step, None, None, 0, 0, {})
    given = stream(graphs.phases(), manifest, long.movedim(2, 0).numpy())
    (output,) = manifest.outputs
    kept = [step[output.name] for step in given[output.valid_from :: output.rate]]
    return torch.from_numpy(np.stack(kept, step.answers[0].stack_dim)), StepProgram(net, step)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("name", NETS)
def test_a_naive_host_gives_the_clip_networks_elements(name: str, rows: int) -> None:
    net, clip = made(name)
    frames = clip[1] + 5 * 12 * 12  # five receptive fields of the widest of them
    long = recording(rows, clip[0], frames, *clip[2:], dtype=torch.float32)
    answers, program = naive(net, clip, long, gated=True)
    assert frames >= 5 * program.receptive_field
    assert not any(history.starts_at for history in program.histories)
    axis = program.answers[0].stack_dim
    with torch.no_grad():
        expected = net(long)
    both = answers.shape[axis] - (program.receptive_field + clip[1]) // program.stride
    assert both * program.stride > 100
    expected = expected.narrow(axis, 0, both)
    assert relative(answers.narrow(axis, 0, both), expected) <= 1e-5
    ungated = naive(net, clip, long, gated=False)[0].narrow(axis, 0, both)
    assert relative(ungated, expected) > 1e-3, "without the gate such a host must go wrong"


@pytest.mark.parametrize("name", NETS)
def test_the_gate_computes_with_no_whole_numbers(name: str) -> None:
    net, clip = made(name)
    _, graphs = exported(net, clip, gated=True)
    for number in range(len(graphs.graphs)):
        model = onnx.shape_inference.infer_shapes(graphs.model(number))
        types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
        types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        operators = {node.op_type for node in model.graph.node}
        assert "Where" in operators
        for node in model.graph.node:
            if node.op_type in ARITHMETIC:
                assert not {types.get(name) for name in node.input} & INTEGERS, node.name


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", NETS)
def test_edgecos_own_runtime_runs_it(name: str, tmp_path: Path) -> None:
    net, clip = made(name)
    gated, plain = (
        edgeco.load(write_network(tmp_path / f"{kind}.edgeco", net, clip, gated=kind == "gated"), threads=1)
        for kind in ("gated", "plain")
    )
    assert verify(tmp_path / "gated.edgeco").passed
    assert any(history.storage == "carry" for history in gated.manifest.histories)
    frames = recording(100, clip[0], *clip[2:], dtype=torch.float32).numpy()
    with gated.stream() as one, plain.stream() as other:
        for _ in range(2):
            for frame in frames:
                answer, expected = one.step(frame), other.step(frame)
                assert (answer.valid, answer.warm) == (expected.valid, expected.warm)
                if answer.valid:
                    np.testing.assert_allclose(answer.outputs["output"], expected.outputs["output"], rtol=0, atol=1e-5)
            one.reset()
            other.reset()


@pytest.mark.parametrize("name", ["deep", "persons", "rate 4"])
def test_rows_come_and_go(name: str, tmp_path: Path) -> None:
    net, clip = made(name)
    model = edgeco.load(write_network(tmp_path / "net.edgeco", net, clip, gated=True), threads=1)
    shape = (clip[0], *clip[2:])
    Driver(model, 3, lambda rng: rng.standard_normal(shape).astype(np.float32), seed=1).run(200)


CODE = """
import torch
from torch import nn
class Net(nn.Module):
    clip = (3, 8)
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv1d(3, 6, 3, padding=1), nn.Conv1d(6, 6, 3, padding=1)
    def forward(self, x):
        return self.b(torch.sigmoid(self.a(x))).mean(2)
"""


@pytest.mark.parametrize("window", [None, 5])
def test_a_build_may_be_gated(tmp_path: Path, window: int | None) -> None:
    models = {}
    for gated in (True, False):
        path = tmp_path / f"{gated}.edgeco"
        model = f"{written(tmp_path / 'net.py', CODE)}:Net"
        report = edgeco.build({"model": model, "gated": gated, "window": window}, path)
        assert max(report.step_difference, report.engine_difference) < 1e-5
        assert verify(path).passed
        models[gated] = edgeco.load(path, threads=1)
    gated, plain = models[True].manifest, models[False].manifest
    assert any(history.starts_at for history in plain.histories)
    assert [h.name for h in gated.histories if h.storage == "carry"] == ["row_step"]
    assert not any(history.starts_at for history in gated.histories)
    assert gated.provenance["spec"]["gated"] is True
    with models[True].stream() as one, models[False].stream() as other:
        for frame in np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32):
            answer, expected = one.step(frame), other.step(frame)
            assert answer.valid == expected.valid
            if answer.valid:
                np.testing.assert_allclose(answer.outputs["output"], expected.outputs["output"], rtol=0, atol=1e-6)

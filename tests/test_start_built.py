"""Bundles whose streams begin as if their first frame had been there for ever, in the runtime."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import edgeco
from edgeco.cli import main
from edgeco.errors import BundleError, EngineError
from edgeco.runtime.model import Model
from edgeco.runtime.verify import verify

sys.path.insert(0, str(Path(__file__).parent / "helpers"))
from builders import written
from bundles import write_network
from gated_nets import NETS
from rows_parity import Driver
from streaming import randomise_norms


def models(folder: Path, name: str, gated: bool = False) -> tuple[Model, Model]:
    """A network that starts with its first frame, and the same as it starts by itself."""
    make, clip = NETS[name]
    torch.manual_seed(0)
    net = randomise_norms(make()).eval()
    paths = [folder / f"{start}.edgeco" for start in ("replicate", "zeros")]
    for path in paths:
        write_network(path, net, clip, start=path.stem, gated=gated)
    verify(paths[0])
    return edgeco.load(paths[0], threads=1), edgeco.load(paths[1], threads=1)


def frames_of(model: Model, steps: int, *rows: int) -> np.ndarray:
    shape = (steps, *rows, *model.manifest.inputs[0].shape)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_a_stream_equals_one_that_was_shown_its_first_frame_before(name: str, gated: bool, tmp_path: Path) -> None:
    model, plain = models(tmp_path, name, gated)
    lead, rate = model.manifest.timeline.lead, model.manifest.outputs[0].rate
    assert lead >= model.manifest.timeline.receptive_field - 1
    frames = frames_of(model, 60)
    first = model.manifest.timeline.first_answer(model.manifest.outputs[0])
    assert first < rate
    with model.stream() as stream, plain.stream() as other:
        for again in range(2):
            assert (stream.steps, stream.valid, stream.warm) == (0, False, False)
            for _ in range(lead):
                other.step(frames[0])
            for step, frame in enumerate(frames):
                given, expected = stream.step(frame), other.step(frame)
                assert (given.step, stream.steps) == (step, step + 1)
                assert given.valid == given.warm == expected.valid == ((step - first) % rate == 0)
                assert (stream.valid, stream.warm) == (given.valid, given.warm)
                np.testing.assert_array_equal(given.outputs["output"], expected.outputs["output"], err_msg=str(again))
            stream.reset()
            other.reset()


@pytest.mark.parametrize("name", ["pools", "persons", "rate 4"])
def test_rows_begin_so_too(name: str, tmp_path: Path) -> None:
    model, _ = models(tmp_path, name)
    shape = model.manifest.inputs[0].shape
    Driver(model, 3, lambda rng: rng.standard_normal(shape).astype(np.float32), seed=2).run(250)


def test_several_rows_in_one_stream(tmp_path: Path) -> None:
    model, _ = models(tmp_path, "pools")
    frames = frames_of(model, 20, 3)
    with model.stream(3) as together, model.stream() as one, model.stream() as two, model.stream() as three:
        for triple in frames:
            given = together.step(triple)
            for row, stream in enumerate((one, two, three)):
                np.testing.assert_allclose(
                    given.outputs["output"][row], stream.step(triple[row]).outputs["output"], rtol=1e-5, atol=1e-6
                )


def test_snapshots_remember_that_it_has_begun(tmp_path: Path) -> None:
    model, plain = models(tmp_path, "pools")
    frames = frames_of(model, 20)
    with model.stream() as stream, model.stream() as other:
        other.restore(stream.snapshot())
        assert other.steps == 0
        np.testing.assert_array_equal(stream.step(frames[0]).outputs["output"], other.step(frames[0]).outputs["output"])
        other.step(frames[5])
        other.restore(stream.snapshot())
        assert (other.steps, other.valid) == (1, True)
        for frame in frames[1:]:
            np.testing.assert_array_equal(stream.step(frame).outputs["output"], other.step(frame).outputs["output"])
    with plain.stream() as foreign, pytest.raises(BundleError, match="another network"):
        foreign.restore(model.stream().snapshot())


@pytest.mark.parametrize("failing", [1, 3, -1])
def test_an_engine_that_fails_at_the_start_leaves_a_stream_unbegun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    model, _ = models(tmp_path, "pools")
    frames, run, left = frames_of(model, 2), model.engine.run, [failing % (model.manifest.timeline.lead + 2)]

    def fail(binding: object, *more: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise EngineError("out of order")
        run(binding, *more)

    with model.stream() as stream, model.stream() as other:
        with monkeypatch.context() as patch:
            patch.setattr(model.engine, "run", fail)
            with pytest.raises(EngineError, match="out of order"):
                stream.step(frames[0])
        assert (stream.steps, stream.valid) == (0, False)
        np.testing.assert_array_equal(stream.step(frames[1]).outputs["output"], other.step(frames[1]).outputs["output"])


CODE = """
import torch
from click.testing import CliRunner
from torch import nn
class Net(nn.Module):
    clip = (3, 8)
    start = "replicate"
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv1d(3, 6, 3, padding=1), nn.Conv1d(6, 6, 3, padding=1)
    def forward(self, x):
        return self.b(torch.sigmoid(self.a(x))).mean(2)
"""


def test_a_build_may_start_so(tmp_path: Path) -> None:
    spec = {"model": f"{written(tmp_path / 'net.py', CODE)}:Net"}
    report = edgeco.build(spec, tmp_path / "net.edgeco")
    assert max(report.step_difference, report.engine_difference) < 1e-5
    assert report.valid_from == 0
    assert verify(tmp_path / "net.edgeco").passed
    model = edgeco.load(tmp_path / "net.edgeco", threads=1)
    assert model.manifest.timeline.start == "replicate"
    with model.stream() as stream:
        assert all(stream.step(frame).valid for frame in frames_of(model, 5))
    edgeco.build({**spec, "start": "zeros"}, tmp_path / "other.edgeco")
    assert edgeco.load(tmp_path / "other.edgeco").manifest.timeline.lead == 0


def test_the_command_line_says_both(tmp_path: Path) -> None:
    path, net = tmp_path / "net.edgeco", written(tmp_path / "net.py", CODE)
    built = CliRunner().invoke(main, ["build", f"{net}:Net", "-o", str(path), "--gated", "--start", "zeros"])
    assert built.exit_code == 0, built.output
    spec = edgeco.load(path).manifest.provenance["spec"]
    assert (spec["gated"], spec["start"]) == (True, "zeros")
    again = CliRunner().invoke(main, ["build", f"{net}:Net", "-o", str(path)])
    assert again.exit_code == 0, again.output
    spec = edgeco.load(path).manifest.provenance["spec"]
    assert (spec["gated"], spec["start"]) == (False, "replicate"), "the factory carries one of them"
    facts = json.loads(CliRunner().invoke(main, ["inspect", str(path), "--json"]).stdout)
    assert facts["first_answer_seconds"] is None
    shown = " ".join(CliRunner().invoke(main, ["inspect", str(path)]).stdout.split())
    assert "first answer after 1 frames" in shown
    assert f"start as after {edgeco.load(path).manifest.timeline.lead} steps of the first frame" in shown

"""INT8 of networks that strain it: shared weights, unusual layers, and whatever a random network is made of."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from calibrated import network
from hypothesis import HealthCheck, given, settings
from quant_nets import recording_of
from random_nets import EXAMPLES, RandomNet, clip_of, random_nets
from streaming import randomise_norms
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import Ranges
from edgeco.calibration import placement
from edgeco.calibration.forms import CPU, OLDEST, Target, described, prepare, quantised_form
from edgeco.calibration.recordings import recorded
from edgeco.calibration.rollout import observe
from edgeco.engines import open_engine
from edgeco.engines.session import Session
from edgeco.export.exported import Exported
from edgeco.export.lint import lint

Array = np.ndarray
TARGETS: tuple[Target, ...] = ("cpu", "trt-weak", "trt-strong")


class Shared(nn.Module):
    """One dense layer read twice, the second time of numbers four times as large and with another bias."""

    clip = (16, 8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.dense = nn.Conv3d(16, 32, 1), nn.Conv3d(32, 32, 3, padding=1)
        self.other = nn.Parameter(torch.linspace(-1, 1, 32))
        self.leave, self.head = nn.Conv3d(32, 32, 1), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = 4 * torch.relu(self.dense(torch.relu(self.enter(x))))
        x = torch.relu(F.conv3d(x, self.dense.weight, self.other, padding=1))
        return self.head(torch.relu(self.leave(x)).mean((2, 3, 4)))


class Strided(nn.Module):
    """A dense and a depthwise layer, each read twice, before a stride in time: several graphs, not all with both."""

    clip = (16, 8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.dense = nn.Conv3d(16, 32, 1), nn.Conv3d(32, 32, 1)
        self.depth = nn.Conv3d(32, 32, 3, padding=1, groups=32)
        self.stride = nn.Conv3d(32, 32, 3, stride=(2, 1, 1), padding=1)
        self.leave, self.head = nn.Conv3d(32, 32, 1), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.dense(torch.relu(self.enter(x))))
        x = torch.relu(self.dense(torch.relu(self.depth(x))))
        return self.head(torch.relu(self.leave(torch.relu(self.stride(x)))).mean((2, 3, 4)))


class Upwards(nn.Module):
    """A grouped transposed convolution over space."""

    clip = (16, 6, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.up = nn.Conv3d(16, 32, 1), nn.ConvTranspose3d(32, 32, (1, 3, 3), stride=(1, 2, 2), groups=32)
        self.dense, self.leave = nn.Conv3d(32, 32, 3, padding=1), nn.Conv3d(32, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.dense(torch.relu(self.up(torch.relu(self.enter(x))))))
        return self.head(torch.relu(self.leave(x)).mean((2, 3, 4)))


def answers(exported: Exported, manifest: Manifest, streams: list[Array], rows: int = 1) -> list[dict[str, Array]]:
    """Of several streams one after the other, each from reset, (steps, rows, ...)."""
    engine = open_engine(exported.phases(), engine="onnxruntime", threads=1)
    session = Session(engine, manifest, rows=rows)
    entry = session.inputs[manifest.inputs[0].name]
    found = []
    for frames in streams:
        session.reset()
        made: dict[str, list[Array]] = {name: [] for name in session.outputs}
        for frame in frames:
            engine.memory.write(entry, np.ascontiguousarray(np.broadcast_to(frame, entry.shape)))
            session.run()
            for name, buffer in session.outputs.items():
                made[name].append(engine.memory.read(buffer).copy())
        found.append({name: np.stack(steps).reshape(len(steps), rows, -1) for name, steps in made.items()})
    return found


def calibrated(net: nn.Module, clip: tuple[int, ...]) -> tuple[Exported, Manifest, Ranges, list[Array]]:
    exported, manifest = network(randomise_norms(net).eval(), clip)
    steps = manifest.timeline.valid_from + 5 * manifest.timeline.receptive_field + 20
    frames = [recording_of(manifest, steps, seed) for seed in (1, 2)]
    return exported, manifest, observe(exported, manifest, recorded(manifest, frames), threads=1), frames


@pytest.mark.parametrize("kind", [Shared, Strided, Upwards], ids=lambda kind: kind.__name__)
def test_every_typing_answers_as_fp32_does(kind: type[nn.Module]) -> None:
    """Of what differs from the mean answer too, from reset, with one row and with four, in the first steps as later."""
    torch.manual_seed(0)
    exported, manifest, ranges, frames = calibrated(kind(), kind.clip)  # type: ignore[arg-type]
    prepared = prepare(exported, manifest, ranges, frames[0])
    again = [frames[0], frames[1][:7], frames[0]]
    expected = answers(exported, manifest, again)
    first, stride = manifest.timeline.valid_from, manifest.timeline.stride
    for target in TARGETS:
        form, runs = quantised_form(prepared, target)
        assert form.told["layers"] > 1
        if target in OLDEST:
            for number in range(len(exported.graphs)):
                assert lint(form.exported.model(number), OLDEST[target]) == []
        given = answers(runs, described(manifest, form), again)
        rows = answers(runs, described(manifest, form), again[:1], rows=4)[0]["output"]
        right, left = (found[0]["output"][first::stride] for found in (expected, given))
        np.testing.assert_array_equal(given[2]["output"][first::stride], left)
        assert all(np.abs(rows[first::stride, row] - left[:, 0]).max() <= 1e-5 for row in range(4))
        off = np.abs(right - left).max(axis=(1, 2)) / np.abs(right).max()
        assert off.max() < 0.02 and off[:3].max() < 0.02, (target, off)
        a, b = (found - found.mean(axis=0) for found in (right, left))
        assert (a * b).sum() > 0.98 * np.linalg.norm(a) * np.linalg.norm(b), target


def test_layers_that_share_a_weight_have_its_codes_and_each_its_own_bias() -> None:
    torch.manual_seed(0)
    exported, manifest, ranges, frames = calibrated(Shared(), Shared.clip)
    prepared = prepare(exported, manifest, ranges, frames[0])
    for target in TARGETS:
        body = quantised_form(prepared, target)[0].exported.model().graph
        kept = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in body.initializer}
        maker = {node.output[0]: node for node in body.node}
        layers = [node for node in body.node if node.op_type == "Conv" and "taps" in node.input[1]]
        codes = [maker[node.input[1]].input[0] for node in layers]
        assert len(codes) == 2 and codes[0] != codes[1]
        np.testing.assert_array_equal(kept[codes[0]], kept[codes[1]])
        biases = [kept[maker[n.input[2]].input[0]] if n.input[2] in maker else kept[n.input[2]] for n in layers]
        assert not np.array_equal(*biases)


@settings(
    max_examples=max(EXAMPLES // 4, 1),
    deadline=None,
    derandomize=EXAMPLES < 100,
    suppress_health_check=list(HealthCheck),
)
@given(random_nets(depth=6))
def test_random_networks_answer_nearly_as_fp32_after_every_reset(net: RandomNet) -> None:
    """However narrow: nothing is left in float for its size, and the last layers are quantised too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "NARROW", 1)
        patch.setattr(placement, "VECTOR_WEIGHTS", 0)
        patch.setattr(placement, "_is_head", lambda graph, node: False)
        exported, manifest, ranges, frames = calibrated(net, clip_of(net))
        form, runs = quantised_form(prepare(exported, manifest, ranges, frames[0]), "cpu")
    assert form.name == CPU
    again = [frames[0], frames[1][:7], frames[0]]
    expected, given = answers(exported, manifest, again[:1]), answers(runs, described(manifest, form), again)
    for output in manifest.outputs:
        first = manifest.timeline.first_answer(output)
        right, left, last = (found[output.name][first :: output.rate] for found in (expected[0], given[0], given[2]))
        np.testing.assert_array_equal(left, last)
        size = float(np.linalg.norm(right))
        assert float((right * left).sum()) > 0.99 * size * float(np.linalg.norm(left)) or size < 1e-6


class Narrow(nn.Module):
    """The frames themselves are kept, for a layer too narrow for INT8; a wide one follows."""

    clip = (16, 8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.widen = nn.Conv3d(16, 8, 3, padding=1), nn.Conv3d(8, 32, 1)
        self.dense, self.leave, self.head = nn.Conv3d(32, 32, 3, padding=1), nn.Conv3d(32, 32, 1), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.widen(torch.relu(self.narrow(x))))
        return self.head(torch.relu(self.leave(torch.relu(self.dense(x)))).mean((2, 3, 4)))


@pytest.mark.parametrize("kind", [Narrow, Shared, Strided], ids=lambda kind: kind.__name__)
def test_what_the_present_step_reads_of_an_element_is_what_later_steps_read(kind: type[nn.Module]) -> None:
    """Nothing but its quantiser, and what only turns it round, reads the floats that a history keeps in codes."""
    torch.manual_seed(0)
    exported, manifest, ranges, frames = calibrated(kind(), kind.clip)  # type: ignore[arg-type]
    prepared = prepare(exported, manifest, ranges, frames[0])
    for target in TARGETS:
        form, runs = quantised_form(prepared, target)
        for number in range(len(runs.graphs)):
            body = runs.model(number).graph
            for history in manifest.histories:
                maker = next((node for node in body.node if history.write in node.output), None)
                if history.name not in form.histories or maker is None or maker.op_type != "QuantizeLinear":
                    continue
                real = maker.input[0]
                source = next((n.input[0] for n in body.node if real in n.output and n.op_type == "Identity"), real)
                readers = [node for node in body.node if {real, source} & set(node.input)]
                made = [node for node in readers if node.op_type not in ("QuantizeLinear", "Identity")]
                assert not made or source.endswith("_real"), (target, history.name, source)


class Plain(nn.Module):
    """Two dense layers over time and space, one after the other: the first one's codes are the second one's past."""

    clip = (16, 8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.one = nn.Conv3d(16, 32, 1), nn.Conv3d(32, 32, 3, padding=1)
        self.two, self.leave, self.head = nn.Conv3d(32, 32, 3, padding=1), nn.Conv3d(32, 32, 1), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.two(torch.relu(self.one(torch.relu(self.enter(x))))))
        return self.head(torch.relu(self.leave(x)).mean((2, 3, 4)))


def test_a_layer_computes_what_whole_numbers_give() -> None:
    """ONNX Runtime against sums of whole numbers and ``clip(round(sum * scales / scale) + zero)``: a code at most."""
    torch.manual_seed(0)
    exported, manifest, ranges, frames = calibrated(Plain(), Plain.clip)
    model = quantised_form(prepare(exported, manifest, ranges, frames[0]), "cpu")[0].exported.model()
    maker = {name: node for node in model.graph.node for name in node.output}
    kept = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    rng, feeds = np.random.default_rng(0), {"frame": frames[0][30][None]}
    for value in model.graph.input:
        shape = [size.dim_value or 1 for size in value.type.tensor_type.shape.dim]
        coded = value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        numbers = rng.integers(0, 120, shape).astype(np.uint8 if coded else np.float32)
        feeds.setdefault(value.name, numbers)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True)) | feeds
    quantiser = maker["h001_new"]
    layer = maker[quantiser.input[0]]  # its ReLU is done by the lowest code
    given, weight, bias = (maker[name].input for name in layer.input)
    joined = np.concatenate([found[name] for name in maker[given[0]].input], axis=1)
    x = joined.astype(np.float64) - float(kept[given[2]])
    total = F.conv2d(*(torch.from_numpy(a.astype(float)) for a in (x, kept[weight[0]], kept[bias[0]])), padding=1)
    step, zero = (float(kept[name]) for name in quantiser.input[1:])
    scales = float(kept[given[1]]) * kept[weight[1]].astype(np.float64).reshape(1, -1, 1, 1)
    expected = np.clip(np.rint(total.numpy() * scales / step) + zero, 0, 255)
    off = np.abs(expected - found["h001_new"].astype(np.float64))
    assert off.max() <= 1 and (off == 0).mean() > 0.99 and len(np.unique(expected)) > 20

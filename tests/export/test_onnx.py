"""The exported graph in the product's own engine, from reset, against the torch runner, step for step."""

from __future__ import annotations

import onnx
import pytest
import torch
from engine_parity import differences, exported
from streaming import randomise_norms, recording
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.continual.convert import convert_graph, trace_network
from edgeco.continual.program import StepProgram
from edgeco.errors import ConversionError
from edgeco.export.fold import fold_norms

OPERATORS = {
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3, 0.4])),
    "gelu": lambda x: F.gelu(x) + F.gelu(x, approximate="tanh"),
    "mish": F.mish,
    "hardswish": F.hardswish,
    "where": lambda x: torch.where((x > 0) & (x <= 1) | (x < -1), x.clamp(-2, 2), x.sigmoid().rsqrt()),
    "erf": torch.erf,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "softplus": lambda x: F.softplus(x) + F.softplus(x, beta=2.0),
    "hardsigmoid": F.hardsigmoid,
    "relu6": lambda x: F.relu6(4 * x),
    "maximum": lambda x: torch.maximum(x, -x).pow(2) + 2 - (3 - x),
    "rounding": lambda x: x.round() + x.floor() + x.ceil() + x.trunc() - x.frac() + x.sign(),
    "logarithm": lambda x: torch.log(x.abs() + 1) + torch.log1p(x.abs()) + torch.expm1(-x.abs()) + x.square().sqrt(),
    "softmax": lambda x: x.softmax(-1) + F.log_softmax(x, 1),
    "variance": lambda x: x.var(-1, keepdim=True) + x.std(-1, keepdim=True),
    "normalised": lambda x: (x - x.mean((1, 3), keepdim=True)) / x.std((1, 3), keepdim=True, correction=0),
    "product": lambda x: x.sigmoid().prod(-1, keepdim=True),
    "einsum": lambda x: torch.einsum("nctv,cd->ndtv", x, torch.eye(4) + 0.1),
    "circular": lambda x: torch.tan(0.1 * x) + torch.sin(x) * torch.cos(x) + torch.atan(x),
    "compare": lambda x: (x != 0).float() + (x >= 0.5).float() - (x == x).float(),
    "padded": lambda x: F.pad(x, (1, 1), value=0.5)[..., ::2],
    "pooled": lambda x: F.max_pool2d(x, (1, 2)),
    "logsigmoid": F.logsigmoid,
    "hardshrink": F.hardshrink,
    "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "glu": lambda x: F.glu(x, 1),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.3),
    "logit": lambda x: torch.logit(x.sigmoid()),
    "unit": lambda x: F.normalize(x, dim=1),
    "cosine": lambda x: F.cosine_similarity(x, x * 2 + 1, dim=1),
    "group norm": lambda x: F.group_norm(x.permute(0, 2, 1, 3).flatten(0, 1), 2).unflatten(0, (-1, 5)).transpose(1, 2),
    "layer norm": lambda x: F.layer_norm(x, (6,)),
    "rms norm": lambda x: F.rms_norm(x, (6,)),
    "extremes": lambda x: x.amax(-1) + x.amin(-1) + x.max(-1).values - x.abs().min(dim=-1)[0],
    "logsumexp": lambda x: x.logsumexp(-1),
    "running sum": lambda x: x.cumsum(-1).flip(-1).roll(1, -1),
    "median": lambda x: x.median(-1).values,
    "place": lambda x: x.argmax(-1).float() - x.argmin(-1).float(),
    "moments": lambda x: torch.std_mean(x, -1)[0] + torch.var_mean(x, -1, correction=0)[1],
    "narrow": lambda x: x.narrow(-1, 1, 3),
    "stack": lambda x: torch.stack([x, 2 * x], -1).flatten(-2),
    "attention": lambda x: F.scaled_dot_product_attention(*[x.transpose(1, 2)] * 3).transpose(1, 2),
    "repeat": lambda x: x.repeat(1, 2, 1, 1) + x.repeat_interleave(2, 1),
    "powers": lambda x: x**3 + 2.0**x,
    "modulo": lambda x: torch.fmod(x, 2) + torch.remainder(x, 2) + torch.div(x, 0.3, rounding_mode="floor"),
    "gram": lambda x: x.transpose(1, 2) @ x.permute(0, 2, 3, 1),
    "chunks": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)[:, [0, 2, 1]],
    "moved": lambda x: x.movedim(1, 3).swapaxes(2, 3).contiguous(),
    "finite": lambda x: torch.nan_to_num(torch.where(torch.isnan(x), x, -x)),
}


class Operators(nn.Module):
    """Every operator of the table on one value that mixes time."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        mixed = x[:, :, 1:] - x[:, :, :-1]
        return {name: function(mixed) for name, function in OPERATORS.items()}


class Windows(nn.Module):
    """What is recomputed over a live window, or answers with numbers and truths rather than reals."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "mean": F.adaptive_avg_pool1d(x, 5),
            "greatest": F.adaptive_max_pool1d(x, 5),
            "quantile": x.quantile(0.3, 2),
            "median": x.median(2).values,
            "moments": torch.cat(torch.std_mean(x, 2), 1),
            "place": x.argmax(2),
            "truth": x.mean(2) > 0.1,
            "number": x.mean((1, 2)),
        }


class Frames(nn.Module):
    """Resizing, shuffling and transposed convolution within a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1)
        self.mix = nn.Conv3d(4, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, t, _, _ = x.shape
        frames = x.transpose(1, 2).flatten(0, 1)
        frames = F.interpolate(self.up(frames), scale_factor=2, mode="nearest")
        frames = F.pixel_unshuffle(F.interpolate(frames, size=(8, 8), mode="bilinear"), 2)[:, :4]
        return self.mix(frames.unflatten(0, (b, t)).transpose(1, 2))


class TokenAppended(nn.Module):
    """A constant row joined to each frame must be repeated for every row of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 3, 1, 1))
        self.conv = nn.Conv2d(3, 3, (3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.token.expand(x.shape[0], -1, x.shape[2], -1), x], dim=3)
        return self.conv(joined)


class Masked(nn.Module):
    """A mask of truths that is a tensor of the network: bundles keep no truths among their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.arange(4) % 3 != 0)
        self.conv = nn.Conv2d(3, 3, (3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.where(self.kept, x, -1.0))


torch.manual_seed(1)
NETS = {
    "masked": (Masked(), (3, 6, 4), 2),
    "frames": (Frames(), (3, 6, 3, 3), 2),
    "token": (TokenAppended(), (3, 6, 4), 2),
    "norm before": (nn.Sequential(nn.BatchNorm1d(3), nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU()), (3, 8), 2),
    "window": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.Flatten(), nn.Linear(24, 5)), (3, 8), 2),
    "long pools": (nn.Sequential(nn.MaxPool1d(9, stride=1, padding=4), nn.AvgPool1d(20, stride=1)), (3, 24), 2),
    "pixels alone": (nn.Sequential(nn.Conv3d(1, 2, 1), nn.Sigmoid()), (1, 4, 3, 3), 2),
}


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", NETS)
def test_engine_equals_the_torch_runner(name: str, rows: int) -> None:
    torch.manual_seed(1)
    net, clip, time_dim = NETS[name]
    assert max(differences(randomise_norms(net), clip, time_dim, rows=rows).values()) < 1e-4


@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_every_operator_of_the_table(rows: int) -> None:
    found = differences(Operators(), (4, 6, 6), steps=25, rows=rows)
    assert not {name: error for name, error in found.items() if not error < 1e-4}


@pytest.mark.parametrize("rows", [1, 3])
def test_windows_numbers_and_truths(rows: int) -> None:
    found = differences(Windows(), (4, 12), steps=40, rows=rows)
    assert not {name: error for name, error in found.items() if not error < 1e-4}


def test_graph_has_the_shape_that_engines_want() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv3d(3, 4, 3, padding=1),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.MaxPool3d((3, 2, 2), stride=(1, 2, 2), padding=(1, 0, 0)),
    )
    step, made = exported(randomise_norms(net), (3, 6, 8, 8))
    model = made.model()
    assert [o.version for o in model.opset_import] == [20]
    ops = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in ops and not ops & {"Loop", "Scan", "ScatterND", "If"}
    shapes = onnx.shape_inference.infer_shapes(model).graph
    ranks = {len(v.type.tensor_type.shape.dim) for v in [*shapes.value_info, *shapes.input, *shapes.output]}
    assert max(ranks) <= 4
    names = {v.name for v in model.graph.input}
    assert names == {"frame"} | {n for h in step.histories for n in h.inputs}
    assert all(v.type.tensor_type.shape.dim[0].dim_param == "rows" for v in model.graph.input)
    assert not model.graph.initializer or all(
        w not in onnx.ModelProto.FromString(made.graphs[0]).graph.initializer for w in made.weights
    )


def test_weights_lie_beside_the_graph_once() -> None:
    layer = nn.Conv1d(3, 3, 3)
    _, made = exported(nn.Sequential(layer, nn.ReLU(), layer), (3, 8))
    assert len([w for w in made.weights.values() if w.size == layer.weight.numel()]) == 1
    assert len(made.graphs[0]) < 2500


def test_norms_are_folded_where_a_convolution_alone_feeds_them() -> None:
    torch.manual_seed(3)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(3, 3, 3), nn.Conv1d(3, 3, 3, bias=False)
            self.na, self.nb = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.a(x), self.b(x)
            return self.na(a) + self.nb(b) * b

    net = randomise_norms(Net()).eval()
    graph = trace_network(net, torch.zeros(1, 3, 8))
    assert fold_norms(graph) == 1
    program = StepProgram(net, convert_graph(graph))
    clip = recording(2, 3, 8, dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(program.forward_steps(clip, pad_end=True), net(clip), atol=1e-5)


def test_an_operator_without_onnx_form_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.i0e(x) + torch.nextafter(x, x + 1)

    with pytest.raises(ConversionError, match="has no ONNX form here"):
        exported(Odd(), (3, 8))


class Parts(nn.Module):
    """Each token less the clip's mean, cut into parts in every way there is; under exact a live window holds them."""

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        a, b, c = x.chunk(3, 2)
        d, e = x.split(4, 2)
        f, g = x.split([5, 2], -1)
        return torch.cat([c, a + b, d[..., :3] * e, f[..., 1:], g], 2)


@pytest.mark.parametrize("rows", [1, 4])
def test_parts_of_a_live_window(rows: int) -> None:
    assert max(differences(Parts(), (5, 7), 1, steps=110, rows=rows, exact="interior").values()) < 1e-5


def test_weights_are_of_types_that_a_bundle_keeps() -> None:
    _, made = exported(*NETS["masked"][:2])
    assert {array.dtype.name for array in made.weights.values()} == {"float32", "int8"}

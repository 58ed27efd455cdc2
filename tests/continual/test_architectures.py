"""Whole architectures as others write them: R(2+1)D, WaveNet; VideoMAE and TimeSformer of transformers."""

from __future__ import annotations

import pytest
import torch
from engine_parity import differences
from streaming import assert_streams, randomise_norms, recording, relative
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco


class Factored(nn.Sequential):
    """A convolution over the frame, then one over time."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        middle = (channels * out * 27) // (channels * 9 + 3 * out)
        super().__init__(
            nn.Conv3d(channels, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(middle, out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
        )


class Basic(nn.Module):
    """Two factored convolutions beside a strided shortcut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Sequential(Factored(channels, out, stride), nn.BatchNorm3d(out), nn.ReLU(inplace=True))
        self.b = nn.Sequential(Factored(out, out), nn.BatchNorm3d(out))
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv3d(channels, out, 1, stride, bias=False), nn.BatchNorm3d(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b(self.a(x)) + self.shortcut(x))


class FactoredResNet(nn.Module):
    """R(2+1)D-18 (Tran et al., 2018) at an eighth of its width: three stages stride in time by 2."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 6, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(6),
            nn.ReLU(inplace=True),
            nn.Conv3d(6, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        blocks: list[nn.Module] = []
        for stage in range(4):
            before = width * 2 ** max(stage - 1, 0)
            blocks += [Basic(before, width * 2**stage, 2 if stage else 1), Basic(width * 2**stage, width * 2**stage, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.pool, self.classify = nn.AdaptiveAvgPool3d((1, 1, 1)), nn.Linear(width * 8, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.pool(self.features(x)).flatten(1))


class Features(FactoredResNet):
    """The same before pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


@pytest.mark.slow
def test_r2plus1d_streams_every_eighth_frame() -> None:
    torch.manual_seed(0)
    net = randomise_norms(Features()).double().eval()
    program = assert_streams(net, (3, 16, 16, 16), tolerance=1e-11)
    assert (program.stride, len(program.phases)) == (8, 4)


@pytest.mark.slow
def test_r2plus1d_answers_are_the_head_over_sliding_features() -> None:
    torch.manual_seed(0)
    net = randomise_norms(FactoredResNet()).eval()
    program = edgeco.convert(net, torch.zeros(1, 3, 16, 16, 16))
    long = recording(1, 3, 160, 16, 16, dtype=torch.float32)
    given = program.forward_steps(long)
    with torch.no_grad():
        features = net.features(long)  # type: ignore[operator]
        for i in range(given.shape[1]):
            expected = net.classify(features[:, :, i : i + 2].mean((2, 3, 4)))  # type: ignore[operator]
            assert relative(given[:, i], expected) < 1e-5
    assert given.shape[1] >= 3


class Gated(nn.Module):
    """A causal, dilated layer with a gate, a residual and a skip."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.front = dilation
        self.filter, self.gate = (nn.Conv1d(channels, channels, 2, dilation=dilation) for _ in range(2))
        self.residual, self.skip = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.pad(x, (self.front, 0))
        y = torch.tanh(self.filter(y)) * torch.sigmoid(self.gate(y))
        return x + self.residual(y), self.skip(y)


class WaveNet(nn.Module):
    """Causal convolutions dilated by 1 to 2^(n - 1) (van den Oord et al., 2016)."""

    def __init__(self, layers: int, channels: int = 6) -> None:
        super().__init__()
        self.entry, self.exit = nn.Conv1d(1, channels, 1), nn.Conv1d(channels, 4, 1)
        self.layers = nn.ModuleList(Gated(channels, 2**i) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        total = torch.zeros_like(x)
        for layer in self.layers:
            x, skip = layer(x)
            total = total + skip
        return self.exit(F.relu(total))


@pytest.mark.parametrize("layers", [6, pytest.param(10, marks=pytest.mark.slow)])
def test_wavenet_answers_without_delay(layers: int) -> None:
    torch.manual_seed(0)
    program = assert_streams(WaveNet(layers), (1, 2**layers + 76))
    assert (program.receptive_field, program.delay, program.valid_from) == (2**layers, 0, 0)
    assert program.period <= 16, "deep histories of small frames do not stretch the period"


def test_videomae_unmodified() -> None:
    """Tubelets of 2 frames stride in time; a table of positions over the clip makes the encoder a live window."""
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=8, tubelet_size=2, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, num_labels=5,
    )  # fmt: skip

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformers.VideoMAEForVideoClassification(config)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).logits

    net = Logits().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 8, 3, 32, 32, dtype=torch.float64), time_dim=1)
    assert (program.exactness, program.stride, program.receptive_field) == ("exact", 2, 8)
    long = recording(2, 40, 3, 32, 32)
    given = program.forward_steps(long)
    with torch.no_grad():
        for i in range(given.shape[1]):
            assert relative(given[:, i], net(long[:, 2 * i : 2 * i + 8])) < 1e-12


def timesformer(attention: str) -> nn.Module:
    """A small TimeSformer; its tables and class token are zero at first, which would hide what they do."""
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    torch.manual_seed(0)
    config = transformers.TimesformerConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, num_labels=5, attention_type=attention,
    )  # fmt: skip

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformers.TimesformerForVideoClassification(config)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).logits

    net = Logits().eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "embeddings" in name or "token" in name:
                parameter.normal_()
            elif parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
            else:
                parameter.normal_(1.0, 0.3)
    return net


@pytest.mark.parametrize("exact", [False, True, "clip"])
@pytest.mark.parametrize("attention", ["divided_space_time", "joint_space_time"])
def test_timesformer_unmodified(attention: str, exact: bool | str) -> None:
    """A table of positions over the clip makes all that follows a live window, so that every answer is the clip's."""
    net = timesformer(attention).double()
    program = edgeco.convert(net, torch.zeros(1, 4, 3, 32, 32, dtype=torch.float64), time_dim=1, exact=exact)
    assert (program.exactness, program.receptive_field, program.valid_from) == ("exact", 4, 3)
    assert any("position in the clip" in note.form for note in program.report)
    long = recording(4, 24, 3, 32, 32)
    given = program.forward_steps(long)
    assert given.shape[1] == 21 and float((given[:, 1:] - given[:, :-1]).abs().min()) > 0
    with torch.no_grad():
        for i in range(given.shape[1]):
            assert relative(given[:, i], net(long[:, i : i + 4])) < 1e-12


def test_timesformer_before_its_tables_are_trained() -> None:
    """Tables and class token of zeros: time reaches the blocks as a stream."""
    net = timesformer("divided_space_time")
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "embeddings" in name and "projection" not in name:
                parameter.zero_()
    net = net.double()
    program = edgeco.convert(net, torch.zeros(1, 4, 3, 32, 32, dtype=torch.float64), time_dim=1)
    assert program.exactness == "exact"
    long = recording(1, 24, 3, 32, 32)
    given = program.forward_steps(long)
    with torch.no_grad():
        for i in range(given.shape[1]):
            assert relative(given[:, i], net(long[:, i : i + 4])) < 1e-12


@pytest.mark.parametrize("rows", [1, 4])
def test_timesformer_in_onnx_runtime(rows: int) -> None:
    assert differences(timesformer("divided_space_time"), (4, 3, 32, 32), 1, steps=110, rows=rows)["output"] < 1e-5

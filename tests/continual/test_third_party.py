"""Networks of other packages, unmodified and with random weights: torchvision and pytorchvideo, where installed.

Those of transformers are in test_architectures.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from streaming import assert_answers, randomise_norms, recording, relative
from torch import Tensor, nn

import edgeco

pytestmark = pytest.mark.slow


def prepared(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return randomise_norms(build()).double().eval()


@pytest.mark.parametrize(("name", "elements", "stride"), [("r2plus1d_18", 2, 8), ("r3d_18", 2, 8), ("mc3_18", 16, 1)])
def test_torchvision_resnets(name: str, elements: int, stride: int) -> None:
    """Each answer is the head's to so many elements of the whole recording's features; with exact, the clip's own."""
    models = pytest.importorskip("torchvision.models.video", reason="pip install torchvision")
    net = prepared(lambda: getattr(models, name)(num_classes=5))
    clip = torch.zeros(1, 3, 16, 32, 32, dtype=torch.float64)
    program = edgeco.convert(net, clip)
    assert (program.exactness, program.stride) == ("unpadded", stride)
    long = recording(1, 3, 120, 32, 32)
    given = program.forward_steps(long)
    with torch.no_grad():
        features = net.layer4(net.layer3(net.layer2(net.layer1(net.stem(long)))))  # type: ignore[operator]
        for i in range(given.shape[1]):
            window = features[:, :, i : i + elements]
            expected = net.fc(net.avgpool(window).flatten(1))  # type: ignore[operator]
            assert relative(given[:, i], expected) < 1e-12
    assert given.shape[1] >= 5
    assert_answers(edgeco.convert(net, clip, exact="clip"), net, long[:, :, :22], 16)


class TwoRates(nn.Module):
    """A SlowFast network with its slow pathway's frames picked from the clip."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net([x[:, :, ::4], x])


def slowfast() -> nn.Module:
    module = pytest.importorskip("pytorchvideo.models.slowfast", reason="pip install pytorchvideo")
    sizes = ((2, 2, 2), (8, 2, 2))
    return TwoRates(
        module.create_slowfast(
            model_num_class=5, slowfast_channel_reduction_ratio=(8,), slowfast_conv_channel_fusion_ratio=2,
            head_pool_kernel_sizes=sizes,
        )
    )  # fmt: skip


def x3d() -> nn.Module:
    module = pytest.importorskip("pytorchvideo.models.x3d", reason="pip install pytorchvideo")
    return module.create_x3d(input_clip_length=4, input_crop_size=64, model_num_class=5)


def mvit() -> nn.Module:
    name = "pytorchvideo.models.vision_transformers"
    module = pytest.importorskip(name, reason="pip install pytorchvideo")
    return module.create_multiscale_vision_transformers(
        spatial_size=32, temporal_size=4, depth=2, patch_embed_dim=16, num_heads=1, head_num_classes=5,
        pool_kv_stride_adaptive=[1, 2, 2], pool_kvq_kernel=[3, 3, 3], embed_dim_mul=[[1, 2.0]],
        atten_head_mul=[[1, 2.0]], pool_q_stride_size=[[1, 1, 2, 2]],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "frames", "size", "grade"), [(slowfast, 8, 64, "unpadded"), (x3d, 4, 64, "causal"), (mvit, 4, 32, None)]
)
def test_pytorchvideo(build: Callable[[], nn.Module], frames: int, size: int, grade: str | None) -> None:
    """They convert as they are; over a live window of the clip every answer is the clip's own."""
    net = prepared(build)
    clip = torch.zeros(1, 3, frames, size, size, dtype=torch.float64)
    assert edgeco.convert(net, clip).exactness == (grade or "unpadded")
    program = edgeco.convert(net, clip, exact="clip")
    assert program.exactness == "exact"
    assert_answers(program, net, recording(1, 3, 5 * frames, size, size), frames)


def test_pytorchvideo_slowfast_step_by_step() -> None:
    """Each answer is the head's to the whole recording's features of both pathways."""
    whole = prepared(slowfast)
    program = edgeco.convert(whole, torch.zeros(1, 3, 8, 64, 64, dtype=torch.float64))
    long = recording(1, 3, 88, 64, 64)
    given = program.forward_steps(long)
    *blocks, pool, head = whole.net.blocks  # type: ignore[union-attr, misc]
    with torch.no_grad():
        paths = [long[:, :, ::4], long]
        for block in blocks:
            paths = block(paths)
        for i in range(given.shape[1]):
            windows = [paths[0][:, :, i : i + 2], paths[1][:, :, 4 * i : 4 * i + 8]]
            assert relative(given[:, i], head(pool(windows))) < 1e-11
    assert given.shape[1] >= 5

"""How the camera moves, told from fourteen small gray frames: the demo network that ships with trained weights.

The network is an ordinary PyTorch clip network. Every temporal kernel is unpadded and undilated with stride one, so
the clip network applied to a sliding window and its step network see exactly the same frames and give the same answer
for every frame once ``CLIP_SHAPE[1]`` frames have been seen.

Frames are prepared as: BGR or RGB frame -> resize to 64 x 48 with area averaging, stretched without a crop -> gray ->
``(value / 255 - MEAN) / STD``.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

LABELS = ("still", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "roll")
"""Class names in the order of the logits. They name the camera's own movement: in a pan left, content moves right."""

CLIP_SHAPE = (1, 14, 48, 64)
"""Channels, frames, height and width of one clip; the frame count is also the network's temporal receptive field."""

FPS = 12.5
"""Design rate in frames per second; other rates work as long as the motion per frame stays in the trained range."""

MEAN = (0.45,)
"""Mean subtracted from gray values in 0..1, one number per channel."""

STD = (0.25,)
"""Standard deviation by which centred gray values are divided, one number per channel."""

WEIGHTS = Path(__file__).parent / "weights" / "camera-motion.safetensors"
"""The shipped weights in float32."""


def _block(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int, int],
    stride: int = 1,
    padding: tuple[int, int] = (1, 1),
) -> list[nn.Module]:
    """Convolution without temporal padding, batch normalisation and ReLU; ``stride`` and ``padding`` are spatial."""
    return [
        nn.Conv3d(inputs, outputs, kernel, stride=(1, stride, stride), padding=(0, *padding), bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    ]


class CameraMotion(nn.Module):
    """Clip network for eight kinds of camera motion: (B, 1, T, 48, 64) floats with T >= 7 -> (B, 8) logits.

    The first convolution sees 7 x 7 pixels over five frames, enough for oriented space-time filters that tell which way
    a pattern drifts, down to a fraction of a pixel per frame. The second follows faster motion from cell to cell of the
    coarser grid. The others look at the layout of local motion: space is never averaged, because zoom and roll differ
    from pan and tilt only in how motion varies over the frame, and the last convolution weighs the whole 3 x 4 grid.
    """

    def __init__(self, classes: int = len(LABELS)) -> None:
        """Build the network with random weights and ``classes`` outputs."""
        super().__init__()
        self.features = nn.Sequential(
            *_block(CLIP_SHAPE[0], 32, (5, 7, 7), stride=4, padding=(3, 3)),  # 48 x 64 -> 12 x 16
            *_block(32, 48, (3, 3, 3), stride=2),  # -> 6 x 8
            *_block(48, 64, (1, 3, 3)),
            *_block(64, 64, (1, 3, 3), stride=2),  # -> 3 x 4
            *_block(64, 64, (1, 3, 4), padding=(0, 0)),  # -> 1 x 1
        )
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.flatten = nn.Flatten(1)
        self.head = nn.Linear(64, classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, classes) of normalised clips (B, 1, T, 48, 64)."""
        logits: Tensor = self.head(self.flatten(self.pool(self.features(clip))))
        return logits


def camera_motion(weights: bool = True) -> CameraMotion:
    """The network in eval mode, with the shipped weights (loaded strictly) unless ``weights`` is false."""
    net = CameraMotion()
    if weights:
        net.load_state_dict(load_file(WEIGHTS), strict=True)
    return net.eval()


def normalise(frames: Tensor) -> Tensor:
    """Gray uint8 clips (B, T, H, W) -> normalised float clips (B, 1, T, H, W)."""
    return ((frames.to(torch.float32) / 255.0 - MEAN[0]) / STD[0]).unsqueeze(1)


# What a build needs to know, carried by the factory.
for _name, _value in {
    "clip": CLIP_SHAPE,
    "fps": FPS,
    "mean": MEAN,
    "std": STD,
    "colour": "gray",
    "labels": LABELS,
    "resize": "stretch",
    "interpolation": "area",
}.items():
    setattr(camera_motion, _name, _value)

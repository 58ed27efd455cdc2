"""Which digit moves, and which way: a small clip network that ships with weights learnt from real handwritten digits.

The network is an ordinary PyTorch clip network. Nothing is padded in time, so that the clip network on a sliding window
and its step network see the same frames and give the same answer.

Frames are prepared as: BGR frame -> resize to 32 x 32 with area averaging, stretched without a crop -> gray ->
``(value / 255 - MEAN) / STD``.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WAYS = ("left", "right", "up", "down")
LABELS = tuple(f"{digit} {way}" for digit in range(10) for way in WAYS)
"""A digit and a way each, digits first: class ``4 * digit + way``."""

CLIP_SHAPE = (1, 10, 32, 32)
"""Channels, frames, height and width of one clip; the frame count is also the receptive field."""

FPS = 10.0
"""Rate of the generated clips: a digit moves by 0.6 to 2.4 of the 32 pixels from frame to frame."""

MEAN, STD = (0.3,), (0.25,)
"""Of gray values in 0 … 1."""

WEIGHTS = Path(__file__).parent / "weights" / "hand-digit-motion.safetensors"


def _block(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int) -> list[nn.Module]:
    """Convolution without temporal padding, batch normalisation and ReLU."""
    padding = (0, kernel[1] // 2, kernel[2] // 2)
    return [
        nn.Conv3d(inputs, outputs, kernel, stride=(1, stride, stride), padding=padding, bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    ]


class DigitMotion(nn.Module):
    """(B, 1, T, 32, 32) floats with T >= 7 -> (B, 40) logits.

    Two heads answer, one with the digit and one with the way, and their logits are added: the softmax over the pairs is
    then the product of both heads' own, as if each were asked alone. There is one answer with a name for every pair, so
    that whatever shows or logs a class shows both, and 40 classes need no more weights than 14.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, width, (3, 5, 5), 2),  # 32 -> 16
            *_block(width, 2 * width, (3, 3, 3), 2),  # -> 8
            *_block(2 * width, 4 * width, (3, 3, 3), 2),  # -> 4
            *_block(4 * width, 4 * width, (1, 3, 3), 1),
        )
        self.mean, self.most = nn.AdaptiveAvgPool3d((None, 1, 1)), nn.AdaptiveMaxPool3d((None, 1, 1))
        self.drop = nn.Dropout(0.2)
        self.digit = nn.Linear(8 * width, 10)
        self.way = nn.Linear(8 * width, len(WAYS))

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, 40) of normalised clips (B, 1, T, 32, 32)."""
        seen = self.features(clip)
        seen = torch.cat([self.mean(seen), self.most(seen)], 1).mean((2, 3, 4))
        seen = self.drop(seen)
        pairs: Tensor = self.digit(seen).unsqueeze(2) + self.way(seen).unsqueeze(1)
        return pairs.flatten(1)


def hand_digit_motion(weights: bool = True) -> DigitMotion:
    """The network in eval mode, with the shipped weights (loaded strictly) unless ``weights`` is false."""
    net = DigitMotion()
    if weights:
        net.load_state_dict(load_file(WEIGHTS), strict=True)
    return net.eval()


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
    "start": "replicate",
}.items():
    setattr(hand_digit_motion, _name, _value)

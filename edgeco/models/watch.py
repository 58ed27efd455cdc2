"""What its wearer does, told from three seconds of a watch's motion: a small clip network that ships with weights.

A frame is six values of one moment: acceleration along x, y and z, then angular velocity about them, in the units and
axes of the data (UEA archive, BasicMotions), at ten frames per second.

Nothing is padded in time, so that the clip network on a sliding window and its step network give the same answer. A
stream begins as if its first frame had been there for ever (``start="replicate"``), and answers from it on.
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

LABELS = ("Standing", "Running", "Walking", "Badminton")

CLIP_SHAPE = (6, 30)
"""Values and frames of one clip; the frame count is also the receptive field."""

FPS = 10.0

WEIGHTS = Path(__file__).parent / "weights" / "watch-activity.safetensors"


class WatchActivity(nn.Module):
    """(B, 6, T) values with T >= 11 -> (B, 4) logits: three convolutions, and their mean over time."""

    def __init__(self, width: int = 32, classes: int = len(LABELS)) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.BatchNorm1d(CLIP_SHAPE[0]),  # the values' own scales, learnt from the data
            nn.Conv1d(CLIP_SHAPE[0], width, 5, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Conv1d(width, width, 5, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Conv1d(width, 2 * width, 3, bias=False),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(inplace=True),
        )
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, values: Tensor) -> Tensor:
        """Logits (B, classes) of recordings (B, 6, T)."""
        logits: Tensor = self.head(self.drop(self.features(values).mean(2)))
        return logits


def watch_activity(weights: bool = True) -> WatchActivity:
    """The network in eval mode, with the shipped weights (loaded strictly) unless ``weights`` is false."""
    net = WatchActivity()
    if weights:
        net.load_state_dict(load_file(WEIGHTS), strict=True)
    return net.eval()


# What a build needs to know, carried by the factory.
for _name, _value in {"clip": CLIP_SHAPE, "fps": FPS, "labels": LABELS, "start": "replicate"}.items():
    setattr(watch_activity, _name, _value)

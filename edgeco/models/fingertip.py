"""What a fingertip draws, told from sixteen of its places: a small clip network that ships with weights.

A place is (x, y) in widths and heights of the picture, as a hand tracker gives it. The network looks at how places
change from frame to frame alone, so that it does not matter where the finger is, nor from where places are counted. The
training data count them from the first of the sixteen, a live stream from the picture's corner: both are the same here.

Nothing is padded in time, so that the clip network on a sliding window and its step network give the same answer. A
stream begins as if the finger had rested at its first place (``start="replicate"``), and answers from it on.
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

LABELS = ("stop", "clockwise", "counter-clockwise", "move")

CLIP_SHAPE = (2, 16)
"""Coordinates and frames of one clip; the frame count is also the receptive field."""

FPS = 30.0
"""Rate of the camera: the data do not say theirs; hand trackers of a webcam run at about this one."""

WEIGHTS = Path(__file__).parent / "weights" / "fingertip-gesture.safetensors"

_SCALE = 50.0
"""Brings changes of place, hundredths of the picture, to about one."""


class FingertipGesture(nn.Module):
    """(B, 2, T) places with T >= 8 -> (B, 4) logits: three convolutions over the changes, and their mean over time."""

    def __init__(self, width: int = 64, classes: int = len(LABELS)) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(2, width, 3, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Conv1d(width, width, 3, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Conv1d(width, 2 * width, 3, bias=False),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(inplace=True),
        )
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, places: Tensor) -> Tensor:
        """Logits (B, classes) of tracks (B, 2, T)."""
        moved = _SCALE * (places[:, :, 1:] - places[:, :, :-1])
        logits: Tensor = self.head(self.drop(self.features(moved).mean(2)))
        return logits


def fingertip_gesture(weights: bool = True) -> FingertipGesture:
    """The network in eval mode, with the shipped weights (loaded strictly) unless ``weights`` is false."""
    net = FingertipGesture()
    if weights:
        net.load_state_dict(load_file(WEIGHTS), strict=True)
    return net.eval()


# What a build needs to know, carried by the factory.
for _name, _value in {"clip": CLIP_SHAPE, "fps": FPS, "labels": LABELS, "start": "replicate"}.items():
    setattr(fingertip_gesture, _name, _value)

"""The clip network on windows of frames, prepared as it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeco.bundle.manifest import Manifest, Preprocessing
from edgeco.runtime.frame import Frame
from edgeco.runtime.preprocess import Preprocessor
from edgeco.spec import BuildSpec
from edgeco.stages import make
from edgeco.train.data import clip_of

BATCH = 16
"""Windows that go through the network at once."""


class ClipNetwork:
    """A clip network with its weights, and how its clips are made.

    Args:
        spec: what is built. factory: makes the network.
        manifest: of the bundle that was built from it; says how pictures are prepared.

    Raises:
        ConversionError: the network cannot be made, or the weights do not fit.
    """

    def __init__(self, spec: BuildSpec, factory: Any, manifest: Manifest) -> None:
        assert spec.clip is not None
        self.net: nn.Module = make(spec, factory).net
        self.length = spec.clip[spec.time_dim - 1]
        self.time_dim = spec.time_dim
        self.shape = tuple(n for axis, n in enumerate(spec.clip, 1) if axis != spec.time_dim)
        self.preprocessing: Preprocessing | None = None
        if manifest.preprocessing is not None:
            # The graph may take the other order of colours than the network, its first convolution being turned.
            colour = spec.colour or ("gray" if spec.clip[0] == 1 else "rgb")
            self.preprocessing = msgspec.structs.replace(manifest.preprocessing, colour=colour)

    @torch.inference_mode()
    def answers(self, frames: Sequence[Frame], ends: Sequence[int]) -> NDArray[np.float64]:
        """Answers (windows, classes) to the clips that end at these frames; short ones are led by the first frame."""
        ready = self._prepared(frames)
        found = []
        for start in range(0, len(ends), BATCH):
            places = [np.maximum(np.arange(end - self.length + 1, end + 1), 0) for end in ends[start : start + BATCH]]
            clips = np.stack([clip_of(ready[p], self.preprocessing, self.time_dim) for p in places])
            found.append(_last(self.net(torch.from_numpy(clips))))
        return torch.cat(found).double().numpy()

    def _prepared(self, frames: Sequence[Frame]) -> NDArray[Any]:
        if self.preprocessing is None:
            return np.stack([frame.image.reshape(self.shape) for frame in frames])
        prepare = Preprocessor(self.preprocessing)
        return np.stack([prepare(frame.image).copy() for frame in frames])


def _last(answer: Any) -> Tensor:
    """The first answer (batch, classes), the last one in time where the network answers (batch, frames, classes)."""
    if isinstance(answer, dict):
        answer = tuple(answer.values())
    first: Tensor = answer if isinstance(answer, Tensor) else answer[0]
    return first[:, -1] if first.ndim == 3 else first.reshape(len(first), -1)

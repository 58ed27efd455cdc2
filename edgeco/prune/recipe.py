"""How a network is pruned from end to end, as one typed record, and the data it is done on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from edgeco.bundle.manifest import Preprocessing
from edgeco.errors import DataError, SpecError
from edgeco.prune.budget import Budget
from edgeco.prune.importance import NEED_DATA
from edgeco.prune.options import Options
from edgeco.prune.selection import Limits
from edgeco.spec import BuildSpec
from edgeco.train.data import Batches, Data, clip_of

Count = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PruneRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``edgeco prune`` is told besides the network and the data."""

    budget: str = "macs=50%"
    importance: str = "taylor"
    rounds: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Prunings, each a part of the way to the budget, each with recalibrated norms and training behind it."""
    train: Count = 200
    """Steps of training after each round; 0 for none."""
    batch: Annotated[int, msgspec.Meta(ge=1)] = 16
    rate: float = 1e-3
    """Greatest learning rate of a round."""
    distil: Share = 0.5
    """Share of the unpruned network's answers in the loss; 0 for labels alone."""
    ranking: Annotated[int, msgspec.Meta(ge=1)] = 8
    """Batches that importance and norms are told from."""
    protect: tuple[str, ...] = ()
    round_to: int = 1
    min_width: int = 2
    cap: float = 0.9
    per: str | None = None
    approximate: bool = False
    held_out: Share = 0.2
    """Share of the cases that accuracy is told on; they are not learned from."""
    seed: int = 0

    def options(self, budget: Budget, *, data: bool, turn: int = 0) -> Options:
        """What one round's planning is told; without data, importance is told by weights."""
        importance = self.importance if data or self.importance not in NEED_DATA else "magnitude"
        limits = Limits(self.round_to, self.min_width, self.cap)
        return Options(budget, importance, self.protect, limits, self.per, self.approximate, self.seed + turn)


@dataclass(frozen=True)
class Recordings:
    """Labelled clips for a network: batches to learn from, and clips held out.

    Attributes:
        batches: of a step's number, to learn from.
        clips: (clip, label) held out, one or more of a case.
        fingerprint: of the data.
    """

    batches: Batches
    clips: tuple[tuple[Tensor, int], ...]
    fingerprint: str

    def some(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first batches."""
        for step in range(count):
            inputs, labels = self.batches(step)
            yield torch.from_numpy(inputs), torch.from_numpy(labels)

    def accuracy(self, net: nn.Module, batch: int = 32) -> float:
        """Share of the held-out clips that a network tells rightly; where it answers every frame, by its last."""
        was = net.training
        net.eval()
        right = 0
        with torch.no_grad():
            for start in range(0, len(self.clips), batch):
                part = self.clips[start : start + batch]
                answers = logits(net(torch.stack([clip for clip, _ in part])))
                right += int((answers.argmax(1) == torch.tensor([label for _, label in part])).sum())
        net.train(was)
        return right / len(self.clips)


def logits(answer: Any) -> Tensor:
    """(batch, classes) of a network's answer; the last of a series of them."""
    first = (
        answer if isinstance(answer, Tensor) else next(iter(answer.values() if isinstance(answer, dict) else answer))
    )
    return first if first.ndim == 2 else first[:, -1] if first.ndim == 3 else first.reshape(len(first), -1)


def loss(answer: Any, labels: Tensor) -> Tensor:
    """Cross entropy of what `logits` takes."""
    return nn.functional.cross_entropy(logits(answer), labels)


def recordings_of(spec: BuildSpec, data: Data, recipe: PruneRecipe) -> Recordings:
    """Recordings as a network takes them.

    Raises:
        DataError: there are too few, or they have no labels.
    """
    assert spec.clip is not None
    preprocessing = preprocessing_of(spec)
    length = spec.clip[spec.time_dim - 1]
    held = data.prepared(preprocessing, spec.fps).held()
    if preprocessing is None:
        shape = tuple(n for axis, n in enumerate(spec.clip, 1) if axis != spec.time_dim)
        if held.frame_shape() != shape:
            raise DataError(f"The recordings have frames of {held.frame_shape()}, where the network takes {shape}.")
    learned, kept = held.split((1 - recipe.held_out, recipe.held_out), by="group", seed=recipe.seed)
    if not len(learned) or not len(kept):
        raise DataError(f"{len(held)} recordings are too few to hold {recipe.held_out:.0%} of them out.")
    batches = Batches(learned, length, recipe.batch, recipe.seed, preprocessing=preprocessing, time_dim=spec.time_dim)
    clips = tuple(
        (torch.from_numpy(clip_of(frames, preprocessing, spec.time_dim)), int(case.label))
        for case in kept
        if case.label is not None
        for frames in _whole(case.array(), length)
    )
    return Recordings(batches, clips, data.fingerprint)


def _whole(frames: np.ndarray[Any, Any], length: int) -> Iterator[np.ndarray[Any, Any]]:
    """Windows end to end, counted from the end; a short case is led by copies of its first frame."""
    for end in range(len(frames), 0, -length):
        places = np.maximum(np.arange(end - length, end), 0)
        if end < length and end != len(frames):
            return
        yield frames[places]


def preprocessing_of(spec: BuildSpec) -> Preprocessing | None:
    """How pictures become frames of the network, in its own colour order; None for arrays."""
    assert spec.clip is not None
    pictured = any(
        getattr(spec, name) is not None for name in ("mean", "std", "colour", "resize", "interpolation", "roi")
    )
    guessed = pictured or (len(spec.clip) == 4 and spec.clip[0] in (1, 3) and min(spec.clip[2:]) >= 32)
    if (spec.input or ("image" if guessed else "array")) == "array":
        return None
    if len(spec.clip) != 4:
        raise SpecError(f"An image network takes clips (channels, frames, height, width); this one takes {spec.clip}.")
    return Preprocessing(
        size=(spec.clip[2], spec.clip[3]),
        colour=spec.colour or ("gray" if spec.clip[0] == 1 else "rgb"),
        resize=spec.resize or "crop",
        interpolation=spec.interpolation or "linear",
        roi=spec.roi,
        mean=tuple(spec.mean or (0.0,)),
        std=tuple(spec.std or (1.0,)),
    )

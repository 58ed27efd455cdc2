"""The clip network is the oracle of its step network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeco.continual.answers import Answer
from edgeco.continual.program import StepProgram
from edgeco.errors import CheckFailed, ConversionError

STEP_TOLERANCE = 1e-3
"""Greatest difference between step and clip network that the build accepts, relative to the answers' magnitude."""


@dataclass
class Comparison:
    """Random recordings through a clip network and its step network.

    Args:
        net: the clip network.
        program: its step network.
        time_dim: the axis of time, batch counted.
        clip: shape of one clip, without the batch.
        make: recordings of a shape, batch counted, as a camera or a sensor gives them.
        normalised: what the clip network takes for them.
        entering: what the step network takes for them.
    """

    net: nn.Module
    program: StepProgram
    time_dim: int
    clip: tuple[int, ...]
    make: Callable[[list[int]], Tensor]
    normalised: Callable[[Tensor], Tensor]
    entering: Callable[[Tensor], Tensor]

    def difference(self) -> float:
        """The greatest difference of the step network from the clip network, relative to the answers' magnitude.

        One clip through both networks; the stream is ended as the clip network pads it, so that they must agree. A
        causal network, which sees the past where the clip network sees all of the clip, is measured and not judged.
        """
        program = self.program
        if program.exactness == "causal":
            return self._causal()
        raw = self._random(self.clip[self.time_dim - 1])
        with torch.no_grad():
            expected = self._clip_answers(raw)
            given = _tensors(program.forward_steps(self.entering(raw), pad_end=True))
        difference = max(
            _relative(_first(g, e, a), e) for g, e, a in zip(given, expected, program.answers, strict=True)
        )
        if not difference <= STEP_TOLERANCE:
            raise CheckFailed(
                f"The step network differs from the clip network by {difference:.2g} on one clip, where "
                f"{STEP_TOLERANCE:g} is accepted; nothing was written. Please report this network."
            )
        return difference

    def _causal(self) -> float:
        """The newest answers of a stream against the clip network on the frames that they describe."""
        program, time_dim = self.program, self.time_dim
        clip = self.clip[time_dim - 1]
        frames = max(clip, *(max(a.timeline.starts_at, a.timeline.delay) + 1 for a in program.answers))
        raw = self._random(frames)
        with torch.no_grad():
            given = _tensors(program.forward_steps(self.entering(raw)))
            worst = 0.0
            for at, (answer, made) in enumerate(zip(program.answers, given, strict=True)):
                described = frames - 1 - answer.timeline.delay
                start = min(frames - clip, described)
                expected = self._clip_answers(raw.narrow(time_dim, start, clip))[at]
                newest, wanted = _newest(made, expected, answer, frames - answer.timeline.starts_at, described - start)
                worst = max(worst, _relative(newest, wanted))
        return worst

    def _random(self, frames: int) -> Tensor:
        """Two recordings."""
        shape = [2, *self.clip]
        shape[self.time_dim] = frames
        return self.make(shape)

    def _clip_answers(self, raw: Tensor) -> list[Tensor]:
        """What the clip network itself answers."""
        expected = _tensors(self.net(self.normalised(raw)))
        if not all(bool(torch.isfinite(e).all()) for e in expected):
            raise ConversionError(
                "The network answers a clip of ordinary values with NaN or infinity; check its weights."
            )
        return expected


def _tensors(made: Any) -> list[Tensor]:
    found, _ = torch.utils._pytree.tree_flatten(made)
    return found


def _first(given: Tensor | None, expected: Tensor, answer: Answer) -> Tensor:
    """The stream's answer to the first clip, in the shape the clip network gives it."""
    if given is None:
        raise ConversionError("The step network gave no answer to a whole clip. Please report this network.")
    if given.shape == expected.shape:
        return given
    return given.select(answer.stack_dim, 0).reshape(expected.shape)


def _newest(given: Tensor, expected: Tensor, answer: Answer, steps: int, index: int) -> tuple[Tensor, Tensor]:
    """The last of `steps` answers, and what the clip network says in its place: its element `index` of several."""
    axis = answer.stack_dim
    if answer.folded:
        given = given.unflatten(axis - 1, (-1, steps))
        expected = expected.unflatten(axis - 1, (given.shape[axis - 1], -1))
    newest = given.select(axis, -1)
    return newest, expected.select(axis, index) if answer.per_element else expected.reshape(newest.shape)


def _relative(given: Tensor, expected: Tensor) -> float:
    given, expected = (t if t.is_floating_point() else t.double() for t in (given, expected))
    return float((given - expected).abs().max() / expected.abs().max().clamp_min(1e-12))

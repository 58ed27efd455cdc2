"""Training in the streamed meaning: the answers of every step of a recording, differentiable in the clip network.

A clip network that pads in time was trained on zeros where a stream has real frames, and that costs points of accuracy
(Hedegaard et al. lose 4 to 7 of them on X3D). `StreamForm` is what a stream computes, as one function of a recording
and of the network's own parameters; to train it trains the network.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeco.continual.convert import convert_graph, trace_network
from edgeco.continual.live import Watch, refuse_decided
from edgeco.continual.parallel import Parallel
from edgeco.continual.program import StepProgram, exact_mode
from edgeco.errors import CheckFailed, SpecError
from edgeco.graph.trace import Clip, ClipInput, TimeDims

TOLERANCE = 1e-4
"""Difference accepted between the form and the step program when it is made, relative, in float32."""


class StreamForm(nn.Module):
    """A clip network as its stream computes it: recordings in, the answers of all their steps out.

    ``forward(recording)`` gives what ``StepProgram.forward_steps`` gives from reset, and gradients for the parameters
    of ``network``, which is the network itself and no copy: adapt it, freeze parts of it, and train. Dropout is off and
    batch norms use their stored statistics, as in the stream; gammas and betas learn. Elements of all steps are
    computed at once and each only once; the memory this takes grows with the recording.

    Args:
        net: a plain clip network; it is traced in evaluation mode, once.
        clip, time_dim, window, exact, start: as `edgeco.convert` takes them.

    Raises:
        ConversionError: the network cannot be streamed, or how it is depends on numbers that are to be trained.
        CheckFailed: the form differs from the step program.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv1d(4, 1, 3))
        >>> form = StreamForm(net, torch.zeros(1, 2, 8))
        >>> answers = form(torch.randn(5, 2, 20))
        >>> answers.shape
        torch.Size([5, 1, 17])
        >>> answers.square().mean().backward()
        >>> bool(net[0].weight.grad.any())
        True
    """

    def __init__(
        self,
        net: nn.Module,
        clip: Clip,
        *,
        time_dim: TimeDims = 2,
        window: int | None = None,
        exact: bool | str = False,
        start: str = "zeros",
    ) -> None:
        super().__init__()
        if start not in ("zeros", "replicate"):
            raise SpecError(f'start is {start!r}; give "zeros" or "replicate".')
        traced = trace_network(net, clip, time_dim)
        watch = Watch({own: traced.tensors[name] for name, own in traced.names.items() if own in _tensors(net)})
        with watch:
            step = convert_graph(traced, window=window, exact=exact_mode(exact))
        refuse_decided(watch.decided, (name for name, p in net.named_parameters() if p.requires_grad))
        self.network = net
        self.weights = watch.finish(dict(step.module.named_buffers()))
        self.program = [StepProgram(net, step, start)]  # no submodule: its weights are those of the conversion
        self.inputs, self.answers, self._spec = step.clip.inputs, step.answers, step.clip.out_spec
        self.parallel = Parallel(step, self.program[0].lead)
        self._check()

    def forward(self, *frames: Tensor) -> Any:
        """The valid answers of every step from reset, stacked as `StepProgram.forward_steps` stacks them; or None.

        Args:
            frames: recordings as the clip network takes them, of any length.
        """
        clips = self.program[0]._frames(frames, {}, whole=True)
        made = self.parallel.run(self.weights(_tensors(self.network)), clips)
        stacked = [_stacked(answer, value) for answer, value in zip(self.answers, made, strict=True)]
        return pytree.tree_unflatten(stacked, self._spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> StreamForm:
        """A form of a copy of the network; how it is streamed is the same."""
        made = StreamForm.__new__(StreamForm)
        nn.Module.__init__(made)
        for name in ("program", "inputs", "answers", "_spec", "parallel"):
            setattr(made, name, getattr(self, name))
        made.network, made.weights = copy.deepcopy(self.network, memo), copy.deepcopy(self.weights, memo)
        return made

    @property
    def receptive_field(self) -> int:
        """Frames an answer depends on."""
        return self.program[0].receptive_field

    @property
    def valid_from(self) -> int:
        """Frames before the one with the first valid answer."""
        return self.program[0].valid_from

    def _check(self) -> None:
        """Hold the form against the step program over a little more than its first answers."""
        program = self.program[0]
        steps = max(program.valid_from - program.lead, 0) + 2 * len(program.schedule) + 1
        generator = torch.Generator().manual_seed(0)
        clips = [_recording(item, steps, generator) for item in self.inputs]
        like = next((p for p in self.network.parameters()), None)
        clips = [c.to(like.device) if like is not None else c for c in clips]
        program.clean_state()
        expected = pytree.tree_leaves(program.forward_steps(*clips))
        program.clean_state()
        with torch.no_grad():
            given = pytree.tree_leaves(self(*clips))
        for a, b in zip(given, expected, strict=True):
            if a is None or b is None or a.shape != b.shape:
                raise CheckFailed("The streamed form gives other answers than the steps; please report this network.")
            difference = float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) if a.numel() else 0.0
            if not difference <= TOLERANCE:
                raise CheckFailed(
                    f"The streamed form differs from the steps by {difference:.2g}; please report this network."
                )


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all their names."""
    buffers = dict(net.named_buffers(remove_duplicate=False))
    return {**dict(net.named_parameters(remove_duplicate=False)), **buffers}


def _recording(item: ClipInput, steps: int, generator: torch.Generator) -> Tensor:
    shape = list(item.shape)
    shape[0] = 2
    if item.time_dim is not None:
        shape[item.time_dim] = -(-steps // item.rate)
    made = torch.randn(shape, generator=generator)
    return made.to(item.dtype) if item.dtype.is_floating_point else torch.zeros(shape, dtype=item.dtype)


def _stacked(answer: Any, made: Tensor | None) -> Tensor | None:
    if made is None:
        return None
    moved = made.movedim(0, answer.stack_dim)
    return moved.flatten(answer.stack_dim - 1, answer.stack_dim) if answer.folded else moved

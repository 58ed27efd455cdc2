"""The step program: the torch reference runner of a converted network.

Pure underneath, with the field's verbs on top.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from edgeco.continual.answers import warm_from
from edgeco.continual.context import Exact, Note
from edgeco.continual.convert import StepGraph, convert_graph, trace_network
from edgeco.continual.history import History, Mark
from edgeco.errors import FrameError, SpecError
from edgeco.graph.timeline import worst
from edgeco.graph.trace import Clip, ClipInput, TimeDims

Elements = tuple[Tensor, ...]
"""A history's elements, newest first, each (rows, *shape)."""


@dataclass(frozen=True)
class State:
    """The past of one stream (or of a batch of them in lock-step): every history's elements, and the steps taken."""

    histories: dict[str, Elements]
    steps: int = 0


class StepProgram(nn.Module):
    """A clip network that runs one frame at a time.

    ``forward(clip)`` is the clip network itself. ``forward_step(frame)`` takes one frame (no time axis) and returns one
    answer, or None while there is no valid one. ``step(frame, state)`` is the pure form of it.

    Attributes:
        receptive_field: frames an answer depends on.
        delay: frames between a frame and the answer that describes it.
        stride: steps per answer.
        valid_from: step of the first valid answer, counted from 0.
        lead: steps that a stream takes with its first frame before it takes it; 0 unless it starts with "replicate".
        report: one note per operator that mixes time.
    """

    def __init__(self, net: nn.Module, graph: StepGraph, start: str = "zeros") -> None:
        super().__init__()
        self.clip_network = net
        self.histories: list[History] = graph.histories
        self.answers = graph.answers
        self.period = graph.period
        self.phases = graph.phases
        self.schedule = graph.schedule
        self.networks = nn.ModuleList(phase.module for phase in graph.phases)
        self.report: list[Note] = graph.report
        self.inputs = graph.clip.inputs
        self.clip_length = graph.clip.length
        self.pinned = graph.clip.pinned
        self.stride = math.lcm(*(a.timeline.rate for a in self.answers))
        self.lead = 0
        if start != "zeros":
            self.lead = -(-warm_from(self.answers) // len(self.schedule)) * len(self.schedule)
        self._spec = graph.clip.out_spec
        self._state: State | None = None
        self.eval()

    # -- time figures ------------------------------------------------------------------------------------------

    @property
    def receptive_field(self) -> int:
        return max(a.timeline.receptive_field for a in self.answers)

    @property
    def delay(self) -> int:
        return max(a.timeline.delay for a in self.answers)

    @property
    def valid_from(self) -> int:
        if self.lead:  # whole rounds, so that answers come in the same steps
            return max((a.timeline.starts_at - self.lead) % a.timeline.rate for a in self.answers)
        return max(a.timeline.starts_at for a in self.answers)

    @property
    def exactness(self) -> str:
        """What holds of every answer: exact, unpadded or causal."""
        return worst(*(a.timeline.exactness for a in self.answers))

    # -- the pure step -----------------------------------------------------------------------------------------

    def initial_state(self, rows: int) -> State:
        """The state of `rows` streams that have seen nothing: every history holds its border."""
        like = next((b for b in self.networks.buffers() if b.is_floating_point()), None)
        histories = {}
        for history in self.histories:
            shape = (rows * history.rows_per_stream, *history.shape)
            dtype, device = (history.dtype, None) if like is None else (like.dtype, like.device)
            element = torch.full(shape, history.border, dtype=dtype, device=device)
            histories[history.name] = (element,) * history.depth
        return State(histories)

    def begin(self, frames: Sequence[Tensor]) -> State:
        """The state of streams at their beginning, whose first frames these will be.

        All border; or, where they start with "replicate", as if they had shown these frames for ever: that takes
        `lead` steps, and the state counts them.
        """
        state = self.initial_state(frames[0].shape[0])
        with torch.no_grad():
            for _ in range(self.lead):
                _, state = self.step(frames, state)
        return state

    def step(
        self, frames: Sequence[Tensor], state: State, recording: int | None = None
    ) -> tuple[list[Tensor | None], State]:
        """One step: the answers (valid or not) and the new state; the old state stays as it was.

        An answer that comes every `rate` steps is None at the others.

        Args:
            frames: one tensor per input, without time axis.
            state: what `initial_state` or an earlier step returned.
            recording: frames of the whole recording, when its end is known: what lies after it then counts as border,
                as the clip network pads it.
        """
        answers: list[Tensor | None] = [None] * len(self.answers)
        number = self.schedule[state.steps % len(self.schedule)]
        if number is None:
            return answers, State(state.histories, state.steps + 1)
        phase, network = self.phases[number], self.networks[number]
        given = dict(zip((item.name for item in self.inputs), frames, strict=True))
        for history in self.histories:
            given |= _reads(history, state.histories[history.name])
        run = network if recording is None else _Ending(network, phase.marks, state, recording).run
        made, writes = run(*(given[name] for name in phase.inputs))
        for i, answer in zip(phase.answers, made, strict=True):
            answers[i] = answer
        histories = dict(state.histories)
        for i, new in zip(phase.histories, writes, strict=True):
            history = self.histories[i]
            histories[history.name] = _written(history, state, new, recording)
        return answers, State(histories, state.steps + 1)

    # -- the verbs ---------------------------------------------------------------------------------------------

    def forward(self, *clip: Any, **named: Any) -> Any:
        """The clip network's own answer to a whole clip."""
        return self.clip_network(*clip, **named)

    def forward_step(self, *frame: Any, update_state: bool = True, **named: Any) -> Any:
        """One frame in, one answer out; None in place of every answer that is not valid yet.

        Raises:
            FrameError: the frame's shape does not fit, or its batch is another than the stream's.
        """
        frames = [f.detach() for f in self._frames(frame, named)]
        state = self._state if self._state is not None else self.begin(frames)
        self._check(frames, state)
        with torch.no_grad():
            answers, after = self.step(frames, state)
        if update_state:
            self._state = after
        early = [state.steps < answer.timeline.starts_at for answer in self.answers]
        valid = [None if soon else a for a, soon in zip(answers, early, strict=True)]
        return None if not any(v is not None for v in valid) else pytree.tree_unflatten(valid, self._spec)

    def forward_steps(self, *frames: Any, pad_end: bool = False, **named: Any) -> Any:
        """Many frames in; the valid answers stacked, or None where there is none.

        Answers are stacked along the axis where the clip network's output has time, else along axis 1.

        Args:
            frames: tensors with a time axis, as the clip network takes them, of any length.
            pad_end: end the recording after the last frame, as the clip network pads it; the state is not kept.
        """
        clips = self._frames(frames, named, whole=True)
        timed = max(c.shape[i.time_dim] for c, i in zip(clips, self.inputs, strict=True) if i.time_dim and i.rate == 1)
        state = self._state
        if state is None:
            first = (_frame(c, i, 0, 0) for c, i in zip(clips, self.inputs, strict=True))
            state = self.begin(list(first)) if timed else self.initial_state(clips[0].shape[0])
        recording = state.steps + timed if pad_end else None
        kept: list[list[Tensor]] = [[] for _ in self.answers]
        with torch.no_grad():
            for step in range(timed + (self._tail(recording) if recording is not None else 0)):
                before = state.steps
                at = before - max(0, step - (timed - 1))
                one = [_frame(c, i, at, before - step) for c, i in zip(clips, self.inputs, strict=True)]
                answers, state = self.step(one, state, recording)
                for answer, made, known in zip(self.answers, answers, kept, strict=True):
                    ended = recording is not None and before >= answer.timeline.ends_at(recording)
                    if made is not None and before >= answer.timeline.starts_at and not ended:
                        known.append(made)
        self._state = self._state if pad_end or not timed else state
        return pytree.tree_unflatten([_stack(a, k) for a, k in zip(self.answers, kept, strict=True)], self._spec)

    def _tail(self, recording: int) -> int:
        return max(0, max(a.timeline.ends_at(recording) for a in self.answers) - recording)

    def clean_state(self) -> None:
        """Forget all frames."""
        self._state = None

    @property
    def state(self) -> State | None:
        """The current state (immutable), or None before the first frame. Assign one to go on from it."""
        return self._state

    @state.setter
    def state(self, state: State | None) -> None:
        self._state = state

    # -- checks ------------------------------------------------------------------------------------------------

    def _frames(self, args: Sequence[Any], named: Mapping[str, Any], whole: bool = False) -> list[Tensor]:
        found = list(args) + [named[i.name] for i in self.inputs[len(args) :] if i.name in named]
        if len(found) != len(self.inputs) or not all(isinstance(f, Tensor) for f in found):
            raise FrameError(
                f"The network takes {len(self.inputs)} tensors ({', '.join(i.name for i in self.inputs)}); "
                f"{len(found)} were given."
            )
        for tensor, item in zip(found, self.inputs, strict=True):
            expected = list(item.shape)
            if item.time_dim is not None:
                expected[item.time_dim : item.time_dim + 1] = [-1] if whole else []
            given = list(tensor.shape)
            fits = len(given) == len(expected) and all(
                e in (-1, g) for e, g in zip(expected[1:], given[1:], strict=True)
            )
            if not fits:
                shape = ", ".join(["rows", *("frames" if e == -1 else str(e) for e in expected[1:])])
                raise FrameError(
                    f"The input {item.name!r} takes ({shape}); a tensor of shape {tuple(given)} was given."
                )
        return found

    def _check(self, frames: Sequence[Tensor], state: State) -> None:
        for history in self.histories:
            rows = state.histories[history.name][0].shape[0] // history.rows_per_stream
            if rows != frames[0].shape[0]:
                raise FrameError(
                    f"The stream has {rows} rows and the frame {frames[0].shape[0]}; "
                    "call clean_state() to start another stream."
                )


def _written(history: History, state: State, new: Tensor, recording: int | None) -> Elements:
    """A history after it was written: what lies outside of a recording counts as border."""
    past, step = state.histories[history.name], state.steps
    ended = recording is not None and history.ends is not None and step >= history.ends.ends_at(recording)
    if history.before == "first":
        if step <= history.starts_at:
            return (new,) * history.depth
        return (past[0] if ended else new, *past[:-1])
    outside = ended or step < history.starts_at
    return (torch.full_like(new, history.border) if outside else new, *past[:-1])


class _Ending(fx.Interpreter):
    """Runs a step at which elements that would lie after the end of the recording count as border."""

    def __init__(self, module: nn.Module, marks: list[Mark], state: State, recording: int) -> None:
        super().__init__(module)
        self._marks, self._state, self._recording = iter(marks), state, recording

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_function(target, args, kwargs)
        if target is not torch.ops.aten.alias.default:
            return result
        mark = next(self._marks)
        if self._state.steps < mark.ends.ends_at(self._recording):
            return result
        if mark.border != "first":
            return torch.full_like(result, mark.border)
        assert mark.history is not None, "who looks for copies of the last element keeps it"
        moved = result.movedim(mark.batch, 0)
        return self._state.histories[mark.history][0].reshape(moved.shape).to(result.dtype).movedim(0, mark.batch)


def _reads(history: History, elements: Elements) -> dict[str, Tensor]:
    if history.ages:
        return {name: elements[age - 1] for name, age in zip(history.inputs, history.ages, strict=True)}
    return {history.inputs[0]: torch.stack(elements[::-1])}


def _frame(clip: Tensor, item: ClipInput, step: int, first: int) -> Tensor:
    """An input's frame at a step, of frames that begin with step `first`; between two of a slow input any will do."""
    if item.time_dim is None:
        return clip
    index = min(step // item.rate - -(-first // item.rate), clip.shape[item.time_dim] - 1)
    if index < 0:  # none has come yet, and none is due
        return clip.new_zeros([n for axis, n in enumerate(clip.shape) if axis != item.time_dim])
    return clip.select(item.time_dim, index)


def _stack(answer: Any, made: list[Tensor]) -> Tensor | None:
    if not made:
        return None
    stacked = torch.stack(made, answer.stack_dim)
    return stacked.flatten(answer.stack_dim - 1, answer.stack_dim) if answer.folded else stacked


def convert(
    net: nn.Module,
    clip: Clip,
    *,
    time_dim: TimeDims = 2,
    window: int | None = None,
    exact: bool | str = False,
    start: str = "zeros",
) -> StepProgram:
    """Turn an ordinary clip network into a step program.

    The network is copied, put into evaluation mode and traced once; it is never changed.

    Args:
        net: a plain PyTorch network that takes clips.
        clip: an example clip (batch, channels, frames, …); a tuple or mapping for several inputs. Its data are ignored.
        time_dim: the axis that counts frames; a tuple or mapping for several inputs, None for one without time.
        window: elements the final pooling over time takes; the clip's own number if None.
        exact: what to recompute over a live window of the last clip's elements. False: nothing that streams in another
            way; report and `exactness` say what differs. True or "interior": from the first place on where elements
            meet a summary of the whole clip, which streamed would see the window that ends at it; padding in time
            before it stays replaced by real frames. "clip": from the first padding in time on too, so that every
            answer is the clip network's on the last frames. What is behind such a place costs as much as in the clip.
        start: what lies before a stream's first frame. "zeros": nothing, so that each layer meets the padding it was
            trained with. "replicate": that frame, for ever, so that the first answer is valid; the first frame then
            costs a whole receptive field of steps.

    Raises:
        ConversionError: the network cannot be streamed; the message names operator, source line and a way out.
        SpecError: the arguments do not fit together.

    Example:
        >>> import torch, edgeco
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 8, 3, padding=(0, 1, 1)), torch.nn.ReLU())
        >>> program = edgeco.convert(net, torch.zeros(1, 3, 8, 16, 16))
        >>> program.receptive_field, program.delay
        (3, 2)
        >>> program.forward_step(torch.rand(1, 3, 16, 16)) is None
        True
    """
    net = copy.deepcopy(net).eval()
    mode = exact_mode(exact)
    if start not in ("zeros", "replicate"):
        raise SpecError(f'start is {start!r}; give "zeros" or "replicate".')
    return StepProgram(net, convert_graph(trace_network(net, clip, time_dim), window=window, exact=mode), start)


def exact_mode(exact: bool | str) -> Exact | None:
    """`exact` as a user gives it. Raises SpecError for what there is not."""
    modes: dict[bool | str, Exact | None] = {False: None, True: "interior", "interior": "interior", "clip": "clip"}
    if exact not in modes:
        raise SpecError(f'exact is {exact!r}; give True, "interior" or "clip", or leave it out.')
    return modes[exact]


__all__ = ["State", "StepProgram", "convert", "exact_mode"]

"""The strongest oracle there is: a stream from reset, ended as the clip network pads it, equals the clip network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import edgeco


def randomise_norms(net: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics, gamma and beta at random, for behind identity norms mistakes hide."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                with torch.no_grad():
                    tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))
    return net


def relative(given: Tensor, expected: Tensor) -> float:
    """Greatest difference relative to the greatest magnitude."""
    assert given.shape == expected.shape, f"{tuple(given.shape)} against {tuple(expected.shape)}"
    return float((given - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def recording(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """A random recording, negative values included."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def step_by_step(program: edgeco.StepProgram, frames: Tensor, time_dim: int = 2) -> list[Tensor | None]:
    """Answers of single steps."""
    program.clean_state()
    return [program.forward_step(frame) for frame in frames.unbind(time_dim)]


def assert_streams(
    net: nn.Module, clip: tuple[int, ...], *, time_dim: int = 2, more: int = 0, tolerance: float = 1e-12
) -> edgeco.StepProgram:
    """Convert a network whose output keeps time, and hold every element of a long stream against the clip network.

    Checked are all elements with the recording's end padded as the clip network pads it, and the same elements of an
    unending stream up to the right border, which only the recording has; batch 2, at least five receptive fields.
    The recording is longer than the clip by whole rounds of the network's strides and `more` frames.
    """
    net = net.double().eval()
    program = edgeco.convert(net, torch.zeros(1, *clip, dtype=torch.float64), time_dim=time_dim)
    margin = clip[time_dim - 1]  # a network may cut off its end and pad there: its border then lies that much earlier
    rounds = (5 * max(program.receptive_field, 2) + 3 + margin) // len(program.schedule) + 1
    frames = margin + rounds * len(program.schedule) + more
    shape = [2, *clip]
    shape[time_dim] = frames
    long = recording(*shape)
    with torch.no_grad():
        expected = net(long)
    ended = program.forward_steps(long, pad_end=True)
    assert relative(ended, expected) <= tolerance
    program.clean_state()
    running = program.forward_steps(long)
    axis = program.answers[0].stack_dim
    kept = running.shape[axis]
    assert kept == max(0, -(-(frames - program.valid_from) // program.stride)), "one answer every `stride` steps"
    both = min(kept, expected.shape[axis]) - (program.receptive_field + margin) // program.stride
    assert both > 0 and relative(running.narrow(axis, 0, both), expected.narrow(axis, 0, both)) <= tolerance
    return program


def assert_streams_of_any_kind(net: nn.Module, clip: tuple[int, ...]) -> None:
    """`assert_streams`, and every element for one row and four, in float64 and float32."""
    program = assert_streams(net, clip)
    frames = clip[1] + (5 * program.receptive_field // len(program.schedule) + 2) * len(program.schedule)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        net = net.to(dtype)
        program = edgeco.convert(net, torch.zeros(1, *clip, dtype=dtype))
        for rows in (1, 4):
            long = recording(rows, clip[0], frames, *clip[2:], dtype=dtype)
            program.clean_state()
            with torch.no_grad():
                assert relative(program.forward_steps(long, pad_end=True), net(long)) <= tolerance, f"{rows}, {dtype}"


def assert_answers(
    program: edgeco.StepProgram, net: nn.Module, long: Tensor, length: int, tolerance: float = 1e-12
) -> None:
    """A recording has one answer per window of `length` frames, `stride` apart: the clip network's own."""
    given = program.forward_steps(long)
    starts = range(0, long.shape[2] - length + 1, program.stride)
    assert given.shape[1] == len(starts)
    with torch.no_grad():
        for i, start in enumerate(starts):
            assert relative(given[:, i], net(long[:, :, start : start + length])) <= tolerance, f"window {i}"


def clip_answers(net: nn.Module, long: Tensor, length: int, time_dim: int = 2) -> Tensor:
    """The clip network's answers to every window of a recording, stacked along axis 1."""
    with torch.no_grad():
        return torch.stack([net(window) for window in windows(long, length, time_dim)], 1)


def windows(features: Tensor, length: int, time_dim: int = 2) -> Tensor:
    """Sliding windows (windows, …) of features along time."""
    return torch.stack([features.narrow(time_dim, i, length) for i in range(features.shape[time_dim] - length + 1)])


def assert_windows(
    net: nn.Module, clip: tuple[int, ...], *, time_dim: int = 2, tolerance: float = 1e-12, count: int = 30
) -> edgeco.StepProgram:
    """Convert a network whose answer is one per clip and exact: each answer equals the clip network on its window."""
    net = net.double().eval()
    program = edgeco.convert(net, torch.zeros(1, *clip, dtype=torch.float64), time_dim=time_dim)
    frames = max(5 * program.receptive_field, program.valid_from + count)
    shape = [2, *clip]
    shape[time_dim] = frames
    long = recording(*shape)
    answers = step_by_step(program, long, time_dim)
    assert [a is None for a in answers[: program.valid_from + 1]] == [True] * program.valid_from + [False]
    length = clip[time_dim - 1]
    behind = program.valid_from - (length - 1)  # answers may come before the clip's last frame, or after it
    for step, answer in enumerate(answers):
        first = step - program.valid_from
        if first < 0 or first + length > frames:
            continue
        with torch.no_grad():
            expected = net(long.narrow(time_dim, first, length))
        assert answer is not None and relative(answer, expected) <= tolerance, f"step {step}, {behind} behind"
    return program

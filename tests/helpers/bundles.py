"""Bundles of networks made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from engine_parity import exported
from streaming import recording
from torch import nn

from edgeco.building import _standing
from edgeco.bundle import write_bundle
from edgeco.continual.program import StepProgram
from edgeco.export.package import manifest_of, members_of
from edgeco.spec import BuildSpec


def write_network(
    path: Path, net: nn.Module, clip: tuple[int, ...], time_dim: int = 2, *, gated: bool = False, start: str = "zeros"
) -> Path:
    """A bundle of an ordinary clip network of one input, which takes arrays."""
    step, made = exported(net, clip, time_dim, gated=gated)
    program = StepProgram(net, step, start)
    spec = BuildSpec(model="m", clip=clip, time_dim=time_dim, start=start)
    manifest = manifest_of("net", spec, step, None, None, 0, 0, {})
    shape = [1, *clip]
    shape[time_dim] = max(a.timeline.starts_at for a in step.answers) + 20
    frames = recording(*shape, dtype=torch.float32).unbind(time_dim)
    state = program.begin([frames[0]])
    answers: dict[str, list[torch.Tensor | None]] = {answer.name: [] for answer in program.answers}
    with torch.no_grad():
        for frame in frames:
            given, state = program.step([frame], state)
            for answer, value in zip(program.answers, given, strict=True):
                answers[answer.name].append(None if value is None else value[0])
    golden = {name: _standing(values) for name, values in answers.items()}
    manifest, members = members_of(manifest, made, torch.cat(frames).numpy(), golden, {}, 1e-4)
    write_bundle(path, manifest, members)
    return path

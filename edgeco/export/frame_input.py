"""Camera frames enter the graph as they come: uint8, height by width by channels, in the camera's own colour order.

Scale and colour order are folded into the first convolution. The mean stays a subtraction, for a padded convolution
must still see zeros where the clip network pads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from edgeco.continual.builder import aten
from edgeco.errors import SpecError
from edgeco.export.edit import add_tensor, groups_of, known
from edgeco.graph.trace import ClipGraph


@dataclass(frozen=True)
class FrameInput:
    """How the graph takes an image: the colour order it expects and the mean (0 to 255) it subtracts per channel."""

    colour: str
    mean: tuple[float, ...]


def fold_frame(clip: ClipGraph, mean: Sequence[float], std: Sequence[float], colour: str) -> FrameInput:
    """Make the clip graph take ``pixel - 255 * mean`` instead of ``(pixel / 255 - mean) / std``; in place.

    Args:
        clip: the traced network of one image input (batch, channels, frames, height, width).
        mean, std: the network's normalisation of pixels scaled to 0 … 1, one number or one per channel.
        colour: the order the network was trained with, "rgb", "bgr" or "gray".

    Returns:
        What is left to do with a frame: its colour order and the mean to subtract.

    Raises:
        SpecError: the normalisation does not fit the channels.
    """
    node = next(n for n in clip.graph.nodes if "input" in n.meta)
    channels = clip.inputs[0].shape[1]
    means, stds = _per_channel(mean, channels, "mean"), _per_channel(std, channels, "std")
    if any(s <= 0 for s in stds):
        raise SpecError(f"std is {tuple(std)}; give positive numbers, as pixels are divided by them.")
    scale = torch.tensor([1.0 / (255.0 * s) for s in stds], dtype=torch.float64)
    readers = list(node.users)
    flip = colour == "rgb" and channels == 3 and all(groups_of(r) == 1 for r in readers)
    if readers and all(_takes_channels(clip, r, node) for r in readers):
        for reader in readers:
            _scale_kernel(clip, reader, scale, flip)
        return FrameInput("bgr" if flip else colour, tuple(255.0 * m for m in (means[::-1] if flip else means)))
    _multiply(clip, node, scale)
    return FrameInput(colour, tuple(255.0 * m for m in means))


def _per_channel(numbers: Sequence[float], channels: int, name: str) -> list[float]:
    if len(numbers) not in (1, channels):
        raise SpecError(f"{name} has {len(numbers)} numbers for {channels} channels; give one, or one per channel.")
    return list(numbers) * (channels if len(numbers) == 1 else 1)


def _takes_channels(clip: ClipGraph, reader: fx.Node, node: fx.Node) -> bool:
    return bool(groups_of(reader)) and known(clip, reader.args[1]) is not None and reader.args[0] is node


def _scale_kernel(clip: ClipGraph, reader: fx.Node, scale: torch.Tensor, flip: bool) -> None:
    place = reader.args[1]
    assert isinstance(place, fx.Node)
    kernel = clip.tensors[place.name]
    groups = groups_of(reader)
    per_group = scale.reshape(groups, -1).repeat_interleave(kernel.shape[0] // groups, 0)
    made = kernel.double() * per_group.reshape(*per_group.shape, *[1] * (kernel.ndim - 2))
    if flip:
        made = made.flip(1)
    name = f"{reader.name}_pixels"
    reader.args = (reader.args[0], add_tensor(clip, name, made.to(kernel.dtype)), *reader.args[2:])


def _multiply(clip: ClipGraph, node: fx.Node, scale: torch.Tensor) -> None:
    dtype = clip.inputs[0].dtype
    rest = len(clip.inputs[0].shape) - 2
    factor = add_tensor(clip, "pixel_scale", scale.to(dtype).reshape(-1, *[1] * rest))
    with clip.graph.inserting_after(node):
        scaled = clip.graph.call_function(aten.mul.Tensor, (node, factor))
    scaled.meta = {k: v for k, v in node.meta.items() if k == "val"}
    node.replace_all_uses_with(scaled, delete_user_cb=lambda user: user is not scaled)

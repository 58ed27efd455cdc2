"""A task's own head: the layer of another number of classes in the place of the base's."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgeco.adapters.choose import CONVOLUTIONS
from edgeco.errors import SpecError


def outputs_of(layer: nn.Module) -> int:
    """Classes that a head tells apart.

    Raises:
        SpecError: it is no linear layer and no convolution.
    """
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, CONVOLUTIONS) and not layer.transposed:
        return layer.out_channels
    raise SpecError(f"The head is a {type(layer).__name__}; name a linear layer or a convolution.")


def resize_head(net: nn.Module, name: str, outputs: int, seed: int = 0) -> None:
    """Give a layer another number of outputs, in place, with weights and biases drawn as PyTorch draws them.

    A head of that size stays as it is.

    Raises:
        SpecError: the layer cannot be a head.
    """
    layer = net.get_submodule(name)
    if outputs_of(layer) == outputs:
        return
    if isinstance(layer, CONVOLUTIONS) and layer.groups > 1:
        raise SpecError(f"The head {name} is a convolution of {layer.groups} groups; name another layer.")
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    generator = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
    made = torch.empty(outputs, *weight.shape[1:]).uniform_(-bound, bound, generator=generator)
    layer.weight = nn.Parameter(made.to(weight.device, weight.dtype))
    if layer.bias is not None:
        made = torch.empty(outputs).uniform_(-bound, bound, generator=generator)
        layer.bias = nn.Parameter(made.to(weight.device, weight.dtype))
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", outputs)

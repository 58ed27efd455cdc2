"""Networks whose norms are not those of a fresh network: untouched, the blocks of X3D would add nothing."""

from __future__ import annotations

import torch
from torch import nn


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Every norm's statistics, gamma and beta at random, always the same, and every learned share; for evaluation."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0.0, 0.2, generator=generator)
            module.running_mean.normal_(0.0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    for parameter in net.parameters():
        if parameter.ndim == 0:  # MoViNet's, zero at first: nothing would be left of its blocks
            parameter.data.uniform_(0.5, 1.0, generator=generator)
    return net.eval()

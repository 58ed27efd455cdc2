"""What a pruned network must be, told without the pruner: the whole network with the removed channels at zero."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgeco.prune import PruningPlan
from edgeco.prune.cuts import tensor_of


def grown(pruned: nn.Module, whole: nn.Module, plan: PruningPlan) -> nn.Module:
    """The whole network with the pruned one's numbers where it has any, and zero where channels were removed."""
    made = copy.deepcopy(whole)
    kept: dict[str, dict[int, Tensor]] = {}
    for cut in plan.data.cuts:
        kept.setdefault(cut.tensor, {})[cut.axis] = torch.from_numpy(cut.kept)
    for name in [n for n, _ in [*whole.named_parameters(), *whole.named_buffers()]]:
        small, large = tensor_of(pruned, name).detach(), tensor_of(made, name)
        if name not in kept:
            large.data = small.clone()
            continue
        full = torch.ones_like(large.data) if name.endswith("running_var") else torch.zeros_like(large.data)
        axes = [kept[name].get(i, torch.arange(n)) for i, n in enumerate(large.shape)]
        full[torch.meshgrid(*axes, indexing="ij")] = small.to(full.dtype)
        large.data = full
    return made


def shaken(net: nn.Module, seed: int = 0) -> nn.Module:
    """All numbers moved a little, norms' statistics and gates too, so that nothing is zero or one by chance."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)
            tensor.data = tensor.data + (noise if name.endswith("running_var") else 0.4 * noise - 0.2)
    return net


def bits(net: nn.Module) -> dict[str, bytes]:
    """Every tensor of a network, to the bit, and every size its modules hold."""
    found = {n: t.detach().contiguous().numpy().tobytes() for n, t in [*net.named_parameters(), *net.named_buffers()]}
    for path, module in net.named_modules():
        found[f"{path}:"] = repr(sorted((k, v) for k, v in vars(module).items() if isinstance(v, int))).encode()
    return found

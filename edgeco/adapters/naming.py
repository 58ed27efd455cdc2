"""How names in an adapted network's state dict follow from the base's, in both directions.

A weight ``layer.weight`` of the base is ``layer.parametrizations.weight.original`` once it has adapters, and the
tensors of its n-th adapter are ``layer.parametrizations.weight.n.…``; every other name stays. `base_state` gives the
base's names back, and an adapted network loads a base's state dict, strictly, under those: its adapters stay.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeco.adapters.delta import Delta

_BEHIND = re.compile(r"(?:^|(?<=\.))parametrizations\.(\w+)\.(original$|\d+\.)")


def base_name(name: str) -> str | None:
    """The base's name of an entry of an adapted network's state dict; None for a tensor of an adapter.

    >>> base_name("stem.parametrizations.weight.original"), base_name("stem.bias")
    ('stem.weight', 'stem.bias')
    """
    found = _BEHIND.search(name)
    if found is None:
        return name
    return name[: found.start()] + found.group(1) if found.group(2) == "original" else None


def base_state(net: nn.Module) -> dict[str, Tensor]:
    """The state dict of the base beneath an adapted network, under the base's own names."""
    ours = {
        f"{name}.parametrizations.{attribute}.".lstrip(".")
        for name, module in net.named_modules(remove_duplicate=False)
        if parametrize.is_parametrized(module)
        for attribute, chain in module.parametrizations.items()
        if any(isinstance(delta, Delta) for delta in chain)
    }
    found = {}
    for name, value in net.state_dict().items():
        plain = base_name(name) if any(name.startswith(prefix) for prefix in ours) else name
        if plain is not None:
            found[plain] = value
    return found


def state_hash(state: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and numbers of a state dict, in the order of the names.

    Counters of batches are left out: they are no part of what a network computes.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.endswith("num_batches_tracked"):
            continue
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def accept_base(module: nn.Module) -> None:
    """Let a module with adapters load the base's own names."""
    if not any(_is_ours(hook) for hook in module._load_state_dict_pre_hooks.values()):
        module.register_load_state_dict_pre_hook(_from_base)


def forget_base(module: nn.Module) -> None:
    """Undo `accept_base` on a module that has no adapters left."""
    if parametrize.is_parametrized(module):
        return
    hooks = module._load_state_dict_pre_hooks
    for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
        del hooks[key]


def _is_ours(hook: Any) -> bool:
    return getattr(hook, "hook", hook) is _from_base


def _from_base(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a module loads: the base's name of an adapted weight becomes its own, its adapters keep what they hold."""
    for attribute, chain in module.parametrizations.items():  # type: ignore[union-attr,operator]
        if prefix + attribute not in state:
            continue
        own = f"{prefix}parametrizations.{attribute}."
        state[f"{own}original"] = state.pop(prefix + attribute)
        for name, value in chain.state_dict().items():
            state.setdefault(own + name, value)

"""Adapters on a network: attach, merge, unmerge, detach, fuse.

An adapter is a parametrisation (torch.nn.utils.parametrize) of an ordinary weight: the network keeps its structure and
its modules, shared ones stay shared, and it is traced, pruned and converted as it stands. `edgeco.adapters.naming` says
how the names in its state dict follow from the base's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils import parametrize

from edgeco.adapters.choose import Weight, all_weights, chain, chosen, deltas, make_delta, make_prototypes, original
from edgeco.adapters.delta import Delta, fused
from edgeco.adapters.naming import accept_base, forget_base
from edgeco.adapters.spec import AdapterSpec
from edgeco.adapters.task import Task, task_of
from edgeco.errors import SpecError


def attach(net: nn.Module, spec: AdapterSpec | None = None, *, head: str | None = None, extend: bool = False) -> Task:
    """Put an adapter on every chosen weight of a network, in place; its answers stay as they were, bit for bit.

    Adapters take type and device of what they adapt. Nothing is frozen: see `Task.freeze`.

    Args:
        net: an ordinary network.
        spec: what to adapt and how.
        head: name of the layer that becomes the task's own as a whole, and gets no adapter; `spec.head` if None.
        extend: whether a weight that is adapted already gets one more adapter; else it is refused.

    Returns:
        What the task adds to the network: by it the rest is frozen, counted and packed.

    Raises:
        SpecError: nothing is chosen, a pattern matches nothing, or a weight is adapted already.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3), torch.nn.ReLU(), torch.nn.Conv1d(4, 4, 3))
        >>> task = attach(net, AdapterSpec(rank=2), head="2")
        >>> task.adapted, task.count(net).adapters
        (('0.weight',), 20)
    """
    spec = spec or AdapterSpec()
    head = head or spec.head
    if head is not None and head not in dict(net.named_modules()):
        raise SpecError(f"There is no layer {head!r} that could be the head; its name is one of named_modules().")
    found, skipped = chosen(net, spec, head)
    twice = next((w for w in found if deltas(w.owner, w.attribute)), None)
    if twice is not None and not extend:
        raise SpecError(
            f"{twice.name} is adapted already, and what was learned stays: fuse it first, or attach with extend=True."
        )
    prototypes = make_prototypes(spec, found[0].tensor) if found else None
    by_tensor: dict[int, Delta] = {}
    placed: set[tuple[int, str]] = set()
    for number, weight in enumerate(found):
        place = (id(weight.owner), weight.attribute)
        if place in placed:
            continue  # a module under a second name
        placed.add(place)
        tensor = weight.tensor
        if id(tensor) not in by_tensor:  # tied weights stay tied
            by_tensor[id(tensor)] = make_delta(weight, spec, spec.seed + number, prototypes)
        put(weight, [by_tensor[id(tensor)]])
    return task_of(net, spec, head, skipped)


def put(weight: Weight, more: Sequence[Delta]) -> None:
    """Add adapters to one weight."""
    _own_class(weight.owner)
    for delta in more:
        parametrize.register_parametrization(weight.owner, weight.attribute, delta)
    chain(weight.owner, weight.attribute).train(weight.owner.training)
    accept_base(weight.owner)


def _own_class(module: nn.Module) -> None:
    """Give a parametrised module a class of its own: PyTorch's is shared by its copies, which must stay as they are."""
    if parametrize.is_parametrized(module):
        shared = type(module)
        module.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))


def adapted_weights(net: nn.Module) -> list[Weight]:
    """The weights of a network that have adapters, each module once."""
    seen: set[tuple[int, str]] = set()
    found = []
    for weight in all_weights(net):
        place = (id(weight.owner), weight.attribute)
        if place not in seen and deltas(weight.owner, weight.attribute):
            seen.add(place)
            found.append(weight)
    return found


def merge(net: nn.Module) -> int:
    """Keep every W' ready, so that inference costs what the plain network does; returns how many.

    The base's tensors are untouched, and `unmerge` is exact. Training, gradients or a changed tensor compute W' anew.
    """
    found = adapted_weights(net)
    for weight in found:
        tensor = weight.tensor
        for delta in deltas(weight.owner, weight.attribute):
            delta.merge(tensor)
            tensor = fused(tensor, [delta])
    return len(found)


def unmerge(net: nn.Module) -> None:
    """Compute every W' at every call again."""
    for weight in adapted_weights(net):
        for delta in deltas(weight.owner, weight.attribute):
            delta.unmerge()


def detach(net: nn.Module) -> int:
    """Take all adapters off: the base's own tensors as they were; returns how many weights had some."""
    found = adapted_weights(net)
    for weight in found:
        _own_class(weight.owner)
        parametrize.remove_parametrizations(weight.owner, weight.attribute, leave_parametrized=False)
        forget_base(weight.owner)
    return len(found)


def fuse(net: nn.Module) -> int:
    """Make every adapted weight its W' and take the adapters off, in place: an ordinary network is left.

    Accumulated in double precision and rounded once. Returns how many weights were fused.
    """
    found = adapted_weights(net)
    made: dict[int, nn.Parameter] = {}
    keys = []
    for weight in found:
        tensor = weight.tensor
        keys.append(id(tensor))
        if id(tensor) not in made:
            value = fused(tensor, deltas(weight.owner, weight.attribute))
            made[id(tensor)] = nn.Parameter(value, tensor.requires_grad)
    detach(net)
    for weight, key in zip(found, keys, strict=True):  # a new tensor: the old one may be the base's, or an embedding's
        setattr(weight.owner, weight.attribute, made[key])
    return len(found)


__all__ = ["adapted_weights", "attach", "detach", "fuse", "merge", "original", "put", "unmerge"]

"""What a pruning takes out of a network, as plain data, and the surgery that does it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList

from edgeco.errors import SpecError


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Indices taken out of one axis of a parameter or buffer.

    Attributes:
        tensor: its name in the network.
        axis: the axis.
        size: indices the axis has before.
        removed: those taken out, ascending.
    """

    tensor: str
    axis: int
    size: int
    removed: tuple[int, ...]

    @property
    def kept(self) -> np.ndarray[Any, Any]:
        """The indices that stay, ascending."""
        return np.setdiff1d(np.arange(self.size), np.asarray(self.removed, dtype=np.int64))


class Repair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An attribute of a module that holds a size: what it is before and after."""

    module: str
    attribute: str
    before: int | tuple[int, ...]
    after: int | tuple[int, ...]


@dataclass
class Undo:
    """What was there before a cut; `back` restores it, to the same storage."""

    tensors: list[tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=list)
    attributes: list[tuple[nn.Module, str, Any]] = field(default_factory=list)

    def back(self) -> None:
        """Undo the cut."""
        for tensor, data, grad in reversed(self.tensors):
            tensor.data = data
            tensor.grad = grad
        for module, name, value in reversed(self.attributes):
            setattr(module, name, value)


def owner_of(net: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a tensor (or a submodule) of a network, and its name there.

    Raises:
        SpecError: there is none by that name.
    """
    path, _, last = name.rpartition(".")
    try:
        module = net.get_submodule(path)
    except AttributeError as error:
        raise SpecError(f"The network has no module {path!r}; the plan is of another network.") from error
    return module, last


def tensor_of(net: nn.Module, name: str) -> Tensor:
    """A parameter, buffer or other tensor that a network holds.

    Raises:
        SpecError: there is none by that name.
    """
    module, last = owner_of(net, name)
    found = getattr(module, last, None)
    if not isinstance(found, Tensor):
        raise SpecError(f"The network has no tensor {name!r}; the plan is of another network.")
    return found


def cut_network(net: nn.Module, cuts: Sequence[Cut], repairs: Sequence[Repair] = ()) -> Undo:
    """Take indices out of a network's tensors, in place, and set the sizes that its modules hold.

    Parameters stay the same objects, so that an optimiser, tied layers and a recurrent layer's flat weights still
    refer to them; their gradients are cut alike.

    Returns:
        What undoes it.

    Raises:
        SpecError: a tensor or attribute is not what the plan says; nothing is changed then.
    """
    _check(net, cuts, repairs)
    undo = Undo()
    try:
        for cut in cuts:
            tensor = tensor_of(net, cut.tensor)
            undo.tensors.append((tensor, tensor.data, tensor.grad))
            kept = torch.from_numpy(cut.kept).to(tensor.device)
            grad = tensor.grad
            tensor.grad = None
            tensor.data = tensor.data.index_select(cut.axis, kept)
            tensor.grad = None if grad is None else grad.index_select(cut.axis, kept)
        for repair in repairs:
            module = net.get_submodule(repair.module)
            undo.attributes.append((module, repair.attribute, getattr(module, repair.attribute)))
            setattr(module, repair.attribute, repair.after)
    except BaseException:
        undo.back()
        raise
    return undo


def _check(net: nn.Module, cuts: Sequence[Cut], repairs: Sequence[Repair]) -> None:
    for cut in cuts:
        shape = tuple(tensor_of(net, cut.tensor).shape)
        if cut.axis >= len(shape) or shape[cut.axis] != cut.size:
            raise SpecError(
                f"{cut.tensor!r} has the shape {shape}, where the plan has {cut.size} along axis {cut.axis}; "
                "the plan is of another network, or was applied before."
            )
    for repair in repairs:
        module, last = owner_of(net, f"{repair.module}.{repair.attribute}" if repair.module else repair.attribute)
        given = getattr(module, last, None)
        given = tuple(given) if isinstance(given, (tuple, list)) else given
        if given != repair.before:
            raise SpecError(
                f"{repair.module}.{repair.attribute} is {given}, where the plan has {repair.before}; "
                "the plan is of another network."
            )


def silence(net: nn.Module, cuts: Sequence[Cut]) -> None:
    """Zero in place what a cut would take out.

    Running statistics stay, for a variance of zero means nothing; so does the direction of a row under weight norm, for
    zero has none: the row's length, which is zeroed, silences it.
    """
    directions = _directions(net)
    for cut in cuts:
        if cut.tensor.endswith(("running_mean", "running_var")) or (cut.tensor, cut.axis) in directions:
            continue
        tensor = tensor_of(net, cut.tensor)
        removed = torch.tensor(cut.removed, device=tensor.device)
        tensor.data = tensor.data.index_fill(cut.axis, removed, 0)


def _directions(net: nn.Module) -> set[tuple[str, int]]:
    """Weights whose rows a weight norm takes to unit length, with the axis that counts the rows."""
    found: set[tuple[str, int]] = set()
    for path, module in net.named_modules():
        if isinstance(module, ParametrizationList) and isinstance(module[0], _WeightNorm):
            name = f"{path}.original1"
            found.add((name, module[0].dim % tensor_of(net, name).ndim))
    return found


def compose(first: Sequence[Cut], second: Sequence[Cut]) -> list[Cut]:
    """One cut of the first network from a cut of it and a cut of what that left."""
    kept = {(cut.tensor, cut.axis): cut for cut in first}
    made = dict(kept)
    for cut in second:
        key = (cut.tensor, cut.axis)
        if key not in kept:
            made[key] = cut
            continue
        whole = kept[key]
        left = np.delete(whole.kept, np.asarray(cut.removed, dtype=np.int64))
        gone = np.setdiff1d(np.arange(whole.size), left)
        made[key] = Cut(whole.tensor, whole.axis, whole.size, tuple(gone.tolist()))
    return list(made.values())


def compose_repairs(first: Sequence[Repair], second: Sequence[Repair]) -> list[Repair]:
    """Repairs that lead from before the first to after the second."""
    made = {(r.module, r.attribute): r for r in first}
    for repair in second:
        key = (repair.module, repair.attribute)
        before = made[key].before if key in made else repair.before
        made[key] = Repair(repair.module, repair.attribute, before, repair.after)
    return list(made.values())


def network_hash(net: nn.Module) -> str:
    """SHA-256 of what a network is but for its numbers: names, kinds and shapes of modules and tensors."""
    digest = hashlib.sha256()
    for name, module in net.named_modules():
        kind = type(module)
        digest.update(f"{name}={'parametrized' if 'Parametrized' in kind.__name__ else kind.__name__};".encode())
    tensors = [*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name}:{tuple(tensor.shape)};".encode())
    return digest.hexdigest()

"""Which weights of a network are adapted, and what becomes of each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeco.adapters.delta import Blocks, Delta, Direct, LowRank, Prototypes
from edgeco.adapters.spec import AdapterSpec, Kind
from edgeco.errors import SpecError

CONVOLUTIONS = nn.modules.conv._ConvNd
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Weight:
    """A weight that may be adapted.

    Attributes:
        name: its name in the base network's state dict.
        owner: the module that holds it, whose attribute `attribute` it is.
    """

    name: str
    module: str
    attribute: str
    owner: nn.Module

    @property
    def tensor(self) -> Tensor:
        """The base's own tensor."""
        return original(self.owner, self.attribute)

    @property
    def depthwise(self) -> bool:
        return isinstance(self.owner, CONVOLUTIONS) and self.tensor.shape[1] == 1 and self.owner.groups > 1

    @property
    def parts(self) -> int:
        """Matrices that lie one below the other in it: queries, keys and values."""
        return 3 if self.attribute == "in_proj_weight" and isinstance(self.owner, nn.MultiheadAttention) else 1


def original(module: nn.Module, attribute: str) -> Tensor:
    """The tensor behind an attribute that may be parametrised."""
    if parametrize.is_parametrized(module, attribute):
        behind: Tensor = chain(module, attribute).original
        return behind
    found = module._parameters[attribute]
    assert found is not None
    return found


def chain(module: nn.Module, attribute: str) -> parametrize.ParametrizationList:
    """What a parametrised attribute is computed by."""
    return cast(parametrize.ParametrizationList, cast(nn.ModuleDict, module.parametrizations)[attribute])


def deltas(module: nn.Module, attribute: str) -> list[Delta]:
    """The adapters on a weight, in the order in which they are added."""
    if not parametrize.is_parametrized(module, attribute):
        return []
    return [d for d in chain(module, attribute) if isinstance(d, Delta)]


def all_weights(net: nn.Module) -> Iterator[Weight]:
    """Every parameter of two axes or more, and every parametrised one, under each of its names."""
    for module_name, module in net.named_modules(remove_duplicate=False):
        if isinstance(module, parametrize.ParametrizationList | Delta | Prototypes) or _behind(module_name):
            continue
        own = [name for name, p in module._parameters.items() if p is not None and p.ndim >= 2]
        if parametrize.is_parametrized(module):
            own += list(module.parametrizations)
        for attribute in own:
            yield Weight(f"{module_name}.{attribute}".lstrip("."), module_name, attribute, module)


def _behind(name: str) -> bool:
    return "parametrizations" in name.split(".")


def chosen(net: nn.Module, spec: AdapterSpec, head: str | None) -> tuple[list[Weight], dict[str, str]]:
    """The weights to adapt, and why others that were named, or are usually adapted, are not.

    Raises:
        SpecError: a pattern matches nothing, or all that it matches cannot be adapted.
    """
    found: list[Weight] = []
    skipped: dict[str, str] = {}
    matched = dict.fromkeys(spec.modules, False)
    for weight in all_weights(net):
        if head is not None and (weight.module == head or weight.module.startswith(f"{head}.")):
            continue
        patterns = [p for p in spec.modules if _matches(p, weight)]
        matched.update(dict.fromkeys(patterns, True))
        if not (patterns if spec.modules else _usual(weight)) or any(_matches(p, weight) for p in spec.exclude):
            continue
        why = _refusal(weight, spec.kind)
        if why is None:
            found.append(weight)
        else:
            skipped[weight.name] = why
    if spec.kind == "none":
        return [], {}
    lost = [pattern for pattern, hit in matched.items() if not hit]
    if lost:
        names = [w.name for w in all_weights(net)][:6]
        raise SpecError(f"No weight is matched by {lost[0]!r}; there are {', '.join(names)} …")
    if not found:
        reason = next((f": {name} {why}" for name, why in skipped.items()), "")
        raise SpecError(f"There is nothing to adapt{reason}; name other modules or another kind of adapter.")
    return found, skipped


def _matches(pattern: str, weight: Weight) -> bool:
    return any(re.fullmatch(pattern, name) for name in (weight.module, weight.name))


def _usual(weight: Weight) -> bool:
    if isinstance(weight.owner, nn.MultiheadAttention):
        return weight.attribute in ATTENTION
    return isinstance(weight.owner, CONVOLUTIONS | nn.Linear) and weight.attribute == "weight"


def _refusal(weight: Weight, kind: Kind) -> str | None:
    if isinstance(weight.owner, nn.RNNBase):
        return "is of a recurrent layer, which reads its weights past any parametrisation"
    if parametrize.is_parametrized(weight.owner, weight.attribute):
        plain = chain(weight.owner, weight.attribute)
        if len(deltas(weight.owner, weight.attribute)) < len(plain):
            return "is parametrised already; make it plain by torch.nn.utils.parametrize.remove_parametrizations"
    if nn.parameter.is_lazy(weight.tensor):
        return "has no size yet; run the network once"
    if kind == "splopa" and weight.tensor.ndim != 2:
        return "is no matrix, of which alone splopa has blocks"
    if kind == "taps" and not weight.depthwise:
        return "is not depthwise, and taps are changes of depthwise kernels"
    if not weight.tensor.is_floating_point():
        return f"is of type {weight.tensor.dtype}"
    return None


def make_delta(weight: Weight, spec: AdapterSpec, seed: int, prototypes: Prototypes | None) -> Delta:
    """The adapter that a specification gives a weight."""
    tensor, kind = weight.tensor, spec.kind
    kernel = tensor.shape[2:]
    if kind == "full":
        return Direct(tensor, [True] * len(kernel))
    if kind == "splopa":
        assert prototypes is not None
        return Blocks(tensor, prototypes, _scale(spec, _rank(spec, min(spec.blocks))))
    if kind == "sppara" or (kind == "splora" and weight.depthwise):
        return Direct(tensor, [False] * len(kernel))
    if kind == "taps" or weight.depthwise:
        return Direct(tensor, [axis == 0 or len(kernel) < 3 for axis in range(len(kernel))])
    longest = max(kernel, default=1)
    span = {"low-rank": [True] * len(kernel), "splora": [False] * len(kernel), "axis": [k == longest for k in kernel]}
    spanned = math.prod(k for k, kept in zip(kernel, span[kind], strict=True) if kept)
    rank = _rank(spec, min(tensor.shape[0] // weight.parts, tensor.shape[1] * spanned))
    return LowRank(tensor, rank, span[kind], _scale(spec, rank), weight.parts, seed)


def make_prototypes(spec: AdapterSpec, like: Tensor) -> Prototypes | None:
    """The blocks that all adapters of one kind of network share."""
    if spec.kind != "splopa":
        return None
    return Prototypes(spec.prototypes, spec.blocks, _rank(spec, min(spec.blocks)), like, spec.seed)


def _rank(spec: AdapterSpec, most: int) -> int:
    wanted = math.ceil(spec.rank * most) if spec.rank < 1 else int(spec.rank)
    return max(1, min(wanted, most))


def _scale(spec: AdapterSpec, rank: int) -> float:
    return 1.0 if spec.alpha is None else spec.alpha / rank


def last_layer(net: nn.Module, clip: Tensor | tuple[Tensor, ...]) -> str:
    """The convolution or linear layer that is called last on a clip: the head of a classifier.

    Raises:
        SpecError: the network calls none.
    """
    called: list[str] = []
    layers = [(name, m) for name, m in net.named_modules() if isinstance(m, CONVOLUTIONS | nn.Linear) and name]
    hooks = [m.register_forward_hook(lambda *_, name=name: called.append(name)) for name, m in layers]
    flags = {m: m.training for m in net.modules()}
    try:
        net.eval()
        with torch.no_grad():
            net(*(clip if isinstance(clip, tuple) else (clip,)))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in flags.items():
            module.training = training
    if not called:
        raise SpecError("The network calls no convolution or linear layer that could be its head; name the head.")
    return called[-1]

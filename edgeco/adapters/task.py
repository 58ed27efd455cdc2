"""What a task adds to a shared base: adapters, norms, biases, a head; frozen, counted and packed by one list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from edgeco.adapters.choose import NORMS, all_weights, deltas
from edgeco.adapters.naming import base_name
from edgeco.adapters.spec import AdapterSpec

Group = Literal["norm", "statistics", "bias", "head"]


@dataclass(frozen=True)
class Learned:
    """What a task learns and stores beside the base, in numbers, and in bytes.

    Attributes:
        adapters, biases, norms, head: learned numbers; norms are gammas and betas.
        statistics: means and variances of batch norms: stored, not learned by gradients.
        mask_bits: one for every channel that the task may have removed from the base; 0 where nothing was pruned.
        bytes: all of them as they are stored, mask bits included.
    """

    adapters: int
    biases: int
    norms: int
    statistics: int
    head: int
    mask_bits: int
    bytes: int

    @property
    def parameters(self) -> int:
        """Learned numbers in all."""
        return self.adapters + self.biases + self.norms + self.head


@dataclass(frozen=True)
class Task:
    """What a task adds to a network, by names of the base.

    Attributes:
        spec: how it was attached.
        adapted: weights with adapters.
        values: tensors that the task has of its own, and what they are.
        head: the layer that is the task's own as a whole, if any.
        skipped: weights without an adapter that might have been expected to have one, and why.
    """

    spec: AdapterSpec
    adapted: tuple[str, ...]
    values: dict[str, Group]
    head: str | None
    skipped: dict[str, str] = field(default_factory=dict)

    def freeze(self, net: nn.Module) -> list[nn.Parameter]:
        """Let gradients reach what the task learns, and nothing else; returns it, every parameter once."""
        learned = {id(p) for p, _ in self._learned(net)}
        for parameter in net.parameters():
            parameter.requires_grad_(id(parameter) in learned)
        return [p for p in net.parameters() if p.requires_grad]

    def count(self, net: nn.Module, mask_bits: int = 0) -> Learned:
        """Exactly what the task learns and stores; tensors that several names share count once."""
        counts = dict.fromkeys(("adapter", "bias", "norm", "head"), 0)
        size = -(-mask_bits // 8)
        for parameter, what in self._learned(net):
            counts[what] += parameter.numel()
            size += parameter.numel() * parameter.element_size()
        statistics = 0
        for name, buffer in net.named_buffers():
            group = self.values.get(name)
            if group in ("statistics", "head"):
                statistics += buffer.numel()
                size += buffer.numel() * buffer.element_size()
        return Learned(counts["adapter"], counts["bias"], counts["norm"], statistics, counts["head"], mask_bits, size)

    def _learned(self, net: nn.Module) -> Iterator[tuple[nn.Parameter, str]]:
        for name, parameter in net.named_parameters():
            plain = base_name(name)
            if plain is None:
                yield parameter, "adapter"
            elif plain in self.values and self.values[plain] != "statistics":
                yield parameter, self.values[plain]


def task_of(net: nn.Module, spec: AdapterSpec, head: str | None, skipped: dict[str, str] | None = None) -> Task:
    """The task of a network that has its adapters."""
    adapted = [w for w in all_weights(net) if deltas(w.owner, w.attribute)]
    values: dict[str, Group] = {}
    for name, module in net.named_modules():
        if isinstance(module, NORMS) and spec.norms:
            values |= dict.fromkeys(_own(name, module._parameters), "norm")
            values |= dict.fromkeys(_own(name, module._buffers), "statistics")
    for weight in adapted if spec.biases else ():
        for attribute in ("bias", "in_proj_bias"):
            if weight.owner._parameters.get(attribute) is not None:
                values[f"{weight.module}.{attribute}".lstrip(".")] = "bias"
    if head is not None:
        layer = net.get_submodule(head)
        for name_, _ in (*layer.named_parameters(), *layer.named_buffers()):
            values[f"{head}.{name_}"] = "head"
    return Task(spec, tuple(w.name for w in adapted), values, head, skipped or {})


def _own(name: str, tensors: Mapping[str, Tensor | None]) -> list[str]:
    kept = [k for k, v in tensors.items() if v is not None and k != "num_batches_tracked"]
    return [f"{name}.{k}".lstrip(".") for k in kept]

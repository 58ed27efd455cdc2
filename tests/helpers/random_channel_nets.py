"""Networks drawn at random in which channels meet in every way: added, joined, cut, gated, grouped, shuffled."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

LENGTH = 6


@dataclass
class Op:
    """One layer: what it does, and what it reads."""

    kind: str
    reads: list[int]
    options: dict[str, int] = field(default_factory=dict)


class RandomChannels(nn.Module):
    """(B, 3, LENGTH) to (B, 4): every layer reads earlier ones, the head the last."""

    def __init__(self, ops: list[Op], widths: list[int], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.ops = ops
        layers: dict[str, nn.Module] = {}
        for i, op in enumerate(ops):
            c, o = widths[op.reads[0]], op.options
            if op.kind == "conv":
                layers[str(i)] = nn.Conv1d(c, o["out"], 3, padding=1, groups=o["groups"], bias=bool(o["bias"]))
            elif op.kind == "norm":
                layers[str(i)] = nn.BatchNorm1d(c)
            elif op.kind == "groupnorm":
                layers[str(i)] = nn.GroupNorm(o["groups"], c)
            elif op.kind == "excite":
                layers[str(i)] = nn.Sequential(nn.Linear(c, 4), nn.ReLU(), nn.Linear(4, c))
            elif op.kind == "recurrent":
                layers[str(i)] = nn.GRU(c, o["out"], batch_first=True)
        self.layers = nn.ModuleDict(layers)
        self.head = nn.Linear(widths[-1], 4)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for i, op in enumerate(self.ops):
            values.append(self._value(str(i), op, [values[r] for r in op.reads]))
        return self.head(values[-1].mean(2))

    def _value(self, name: str, op: Op, given: list[Tensor]) -> Tensor:
        x, o = given[0], op.options
        if op.kind in ("conv", "norm", "groupnorm"):
            return self.layers[name](x)
        if op.kind == "excite":
            return x * self.layers[name](x.mean(2)).sigmoid()[:, :, None]
        if op.kind == "recurrent":
            return self.layers[name](x.transpose(1, 2))[0].transpose(1, 2)
        if op.kind == "shuffle":
            return F.channel_shuffle(x[..., None], o["groups"])[..., 0]
        if op.kind == "chunk":
            a, b = x.chunk(2, 1)
            return a * b.sigmoid()
        if op.kind == "shift":
            fold = x.shape[1] // 4
            moved = F.pad(x[:, :fold], (1, 0))[:, :, :-1]
            return torch.cat([moved, x[:, fold:]], 1)
        if op.kind == "point":
            return (F.relu, torch.tanh, torch.sigmoid, lambda v: v + 1)[o["which"]](x)
        return {"cat": lambda a, b: torch.cat([a, b], 1), "add": torch.add, "mul": torch.mul}[op.kind](*given)


KINDS = ["conv", "conv", "conv", "norm", "norm", "point", "point", "groupnorm", "excite", "recurrent"]
KINDS += ["shuffle", "chunk", "shift", "cat", "add", "add", "mul"]


@st.composite
def random_channel_nets(draw: st.DrawFn, depth: int = 9) -> RandomChannels:
    """A network of up to `depth` layers, none wider than 32 channels."""
    widths, ops = [3], []
    for i in range(draw(st.integers(2, depth))):
        kind = "conv" if i == 0 else draw(st.sampled_from(KINDS))
        last = len(widths) - 1
        read = draw(st.sampled_from([last, last, draw(st.integers(0, last))]))
        c, out, op = widths[read], widths[read], Op(kind, [read])
        if kind == "conv":
            out = draw(st.sampled_from([8, 12, 16]))
            groups = draw(st.sampled_from([g for g in (1, 1, 2, 4, c) if c % g == 0 and out % g == 0]))
            op.options = {"out": out, "groups": groups, "bias": draw(st.integers(0, 1))}
        elif kind in ("groupnorm", "shuffle"):
            sizes = [g for g in (2, 4) if c % g == 0]
            if not sizes:
                continue
            op.options = {"groups": draw(st.sampled_from(sizes))}
        elif kind == "recurrent":
            out = 8
            op.options = {"out": out}
        elif kind == "chunk":
            if c % 2:
                continue
            out = c // 2
        elif kind == "shift":
            if c < 4:
                continue
        elif kind == "point":
            op.options = {"which": draw(st.integers(0, 3))}
        elif kind in ("cat", "add", "mul"):
            others = [n for n in range(last + 1) if kind == "cat" or widths[n] == c]
            op.reads.append(draw(st.sampled_from(others)))
            out = c + widths[op.reads[1]] if kind == "cat" else c
        if out < 2 or out > 32:
            continue
        ops.append(op)
        widths.append(out)
    return RandomChannels(ops, widths, draw(st.integers(0, 1000)))

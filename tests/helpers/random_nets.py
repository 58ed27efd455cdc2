"""Random clip networks over the operators that keep time, for holding every element of step against clip."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.continual.history import MAX_RATE

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
RECURRENT = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
HEADS = {
    "mean": lambda x: x.mean(2),
    "max": lambda x: x.amax(2),
    "last": lambda x: x[:, :, -1],
    "first": lambda x: x.select(2, 0),
    "weighted": lambda x: (x.softmax(2) * x).sum(2),
    "flat": lambda x: x.flatten(1),
}
"""What makes one answer of a clip's elements."""
POINTWISE = {
    "relu": F.relu,
    "silu": F.silu,
    "shifted": lambda x: x * 0.7 - 0.3,
    "abs": lambda x: x.abs() - 1.0,
    "clamp": lambda x: x.clamp(-0.5, 0.8),
    "where": lambda x: torch.where(x > 0.1, x, 0.2 * x),
    "cos": torch.cos,
}


@dataclass
class Op:
    """One layer: its kind, the values it reads, and its options."""

    kind: str
    reads: list[int]
    options: dict[str, Any] = field(default_factory=dict)


class RandomNet(nn.Module):
    """Runs a list of layers over values kept by number; returns the last one.

    Clips are (B, C, T, *space) with as many axes of space as `rank` - 1.
    """

    def __init__(self, rank: int, ops: list[Op], seed: int) -> None:
        super().__init__()
        self.rank, self.ops = rank, ops
        torch.manual_seed(seed)
        self.layers = nn.ModuleList(self._layer(op) for op in ops)

    def _layer(self, op: Op) -> nn.Module:
        o = op.options
        if op.kind == "conv":
            kernel, padding = (o["k"], *[3] * (self.rank - 1)), (o["p"], *[1] * (self.rank - 1))
            rest = [1] * (self.rank - 1)
            strides, dilations = (o["s"], *rest), (o["d"], *rest)
            return CONV[self.rank](
                o["c"], o["out"], kernel, strides, padding, dilations, groups=o["groups"], bias=o["bias"]
            )
        if op.kind == "tconv":
            size = [1] * (self.rank - 1)
            padding, strides, dilations = (o["p"], *[0] * len(size)), (o["s"], *size), (o["d"], *size)
            return CONV[self.rank](o["c"], o["c"], (o["k"], *size), strides, padding, dilations, groups=o["c"])
        if op.kind == "transposed":
            ones = [1] * (self.rank - 1)
            kernel, strides, padding = (o["k"], *ones), (o["s"], *ones), (o["p"], *[0] * len(ones))
            return TRANSPOSED[self.rank](o["c"], o["c"], kernel, strides, padding)
        if op.kind == "norm":
            return NORM[self.rank](o["c"])
        if op.kind == "recurrent":
            return RECURRENT[o["name"]](o["c"], o["c"], o["layers"], batch_first=True)
        if op.kind == "frames":
            return nn.Linear(o["c"], o["c"]) if self.rank == 1 else CONV[self.rank - 1](o["c"], o["c"], 3, padding=1)
        return nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for op, layer in zip(self.ops, self.layers, strict=True):
            values.append(self._run_layer(op, layer, [values[i] for i in op.reads]))
        return values[-1]

    def _run_layer(self, op: Op, layer: nn.Module, values: list[Tensor]) -> Tensor:
        x, o, idle = values[0], op.options, [0] * (self.rank - 1)
        if op.kind in ("conv", "tconv", "norm", "transposed"):
            return layer(x)
        if op.kind in ("up", "replicate", "running"):
            return self._along(op, x)
        if op.kind in ("recurrent", "attend", "level"):
            return self._tokens(op, layer, x.transpose(1, -1)).transpose(1, -1)
        if op.kind == "point":
            return POINTWISE[o["name"]](x)
        if op.kind == "pad":
            return F.pad(x, (*[0] * (2 * (self.rank - 1)), o["front"], o["back"]), value=o["value"])
        if op.kind == "slice":
            return x[:, :, o["front"] : x.shape[2] - o["back"] : o["s"]]
        if op.kind == "max":
            ones = [1 for _ in idle]
            return MAX[self.rank](
                x, (o["k"], *ones), (o["s"], *ones), (o["p"], *idle), (o["d"], *ones), ceil_mode=o["ceil"]
            )
        if op.kind == "avg":
            ones = [1 for _ in idle]
            return AVG[self.rank](
                x, (o["k"], *ones), (o["s"], *ones), (o["p"], *idle), o["ceil"] and not o["p"], o["counted"]
            )
        if op.kind == "excite":
            return x * torch.sigmoid(x.mean(tuple(range(3, 2 + self.rank)), keepdim=True)) if self.rank > 1 else x
        if op.kind == "frames":
            merged = x.transpose(1, 2).flatten(0, 1)
            return layer(merged).unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
        if op.kind == "difference":
            return x[:, :, 1:] - x[:, :, :-1]
        if op.kind == "shift":
            early, late = x[:, :1, 1:], x[:, 1:, :-1]
            return torch.cat([F.pad(early, (*[0] * len(idle) * 2, 0, 1)), F.pad(late, (*[0] * len(idle) * 2, 1, 0))], 1)
        if op.kind == "segments":
            groups = x[:, :, : x.shape[2] // o["s"] * o["s"]].unflatten(2, (-1, o["s"]))
            return groups.select(3, o["at"]) if o["at"] < o["s"] else groups.mean(3)
        left, right = self._cropped(values[0], values[1], o["cut"])
        return torch.cat([left, right], 1) if op.kind == "cat" else left + right if op.kind == "add" else left * right

    def _along(self, op: Op, x: Tensor) -> Tensor:
        """Upsampling, copies of the end elements, running values: what has no options but along time."""
        o, idle = op.options, [0] * (2 * (self.rank - 1))
        if op.kind == "replicate":
            return F.pad(x, (*idle, o["front"], o["back"]), mode="replicate")
        if op.kind == "running":
            count = torch.arange(1, x.shape[2] + 1, dtype=x.dtype).view(-1, *[1] * (self.rank - 1))
            return x.cummax(2).values if o["name"] == "max" else x.cumsum(2) / (count if o["name"] == "mean" else 50.0)
        if o["name"] == "repeat":
            return x.repeat_interleave(o["s"], 2)
        mode = LINEAR[self.rank] if o["name"] == "linear" else o["name"]
        return F.interpolate(x, scale_factor=(o["s"], *[1] * (self.rank - 1)), mode=mode)

    def _tokens(self, op: Op, layer: nn.Module, x: Tensor) -> Tensor:
        """Operators that want the channels last: (rows, time, channels), or any axes of space between."""
        if op.kind == "recurrent":
            return layer(x)[0]
        if op.kind == "level":
            return F.layer_norm(x, x.shape[-1:])
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril().triu(1 - op.options["span"])
        return F.scaled_dot_product_attention(x, 0.7 * x + 0.1, x, attn_mask=seen)

    def _cropped(self, a: Tensor, b: Tensor, cut: int) -> tuple[Tensor, Tensor]:
        """Both at one length: the longer loses so many elements in front (the first's if positive), the rest behind."""
        a, b = a[:, :, max(cut, 0) :], b[:, :, max(-cut, 0) :]
        length = min(a.shape[2], b.shape[2])
        return a[:, :, :length], b[:, :, :length]


LENGTH = 17
EXAMPLES = int(os.environ.get("EDGECO_EXAMPLES", "60"))
"""Networks that a test draws; more in a long run."""
KINDS = [
    "conv",
    "tconv",
    "norm",
    "point",
    "point",
    "pad",
    "slice",
    "max",
    "avg",
    "excite",
    "frames",
    "difference",
    "shift",
    "segments",
    "up",
    "up",
    "transposed",
    "replicate",
    "running",
    "level",
    "recurrent",
    "attend",
    "add",
    "add",
    "cat",
    "mul",
]


@st.composite
def random_nets(draw: st.DrawFn, depth: int = 8) -> RandomNet:
    """A network of up to `depth` layers on clips (2, LENGTH, …), none shorter than 2 elements anywhere."""
    rank = draw(st.integers(1, 3))
    channels, lengths, rates, ops = [2], [LENGTH], [1], []
    for _ in range(draw(st.integers(1, depth))):
        kind = draw(st.sampled_from(KINDS if rank == 1 else [k for k in KINDS if k not in ("recurrent", "attend")]))
        last = len(channels) - 1
        read = draw(st.sampled_from([last, last, last, draw(st.integers(0, last))]))
        op = Op(kind, [read])
        c, n, rate = channels[read], lengths[read], rates[read]
        if kind in ("conv", "tconv", "max", "avg"):
            k = draw(st.integers(1, min(6, n)))
            p = draw(st.integers(0, k // 2 if kind in ("max", "avg") else k + 1))
            d = draw(st.sampled_from([1, 1, 1, 2, 3])) if kind != "avg" else 1
            s = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
            pooled = {"ceil": draw(st.booleans()), "counted": draw(st.booleans())} if kind in ("max", "avg") else {}
            op.options = {"k": k, "p": p, "c": c, "s": s, "d": d, **pooled}
            reach = d * (k - 1)
            if n + 2 * p <= reach:
                continue
            slack = min(s - 1, reach - p) if pooled.get("ceil") and (kind == "max" or not p) else 0
            n = (n + 2 * p + slack - reach - 1) // s + 1
            rate *= s
            if kind == "conv":
                groups = draw(st.sampled_from([1, c]))
                out = draw(st.sampled_from([2, 3, 4])) if groups == 1 else c
                op.options |= {"out": out, "groups": groups, "bias": draw(st.booleans())}
                c = out
        elif kind in ("norm", "frames"):
            op.options = {"c": c}
        elif kind == "recurrent":
            op.options = {"c": c, "name": draw(st.sampled_from(sorted(RECURRENT))), "layers": draw(st.integers(1, 2))}
        elif kind == "attend":
            op.options = {"span": draw(st.integers(1, min(4, n - 1)))}
        elif kind == "point":
            op.options = {"name": draw(st.sampled_from(sorted(POINTWISE)))}
        elif kind in ("pad", "slice"):
            least = -2 if kind == "pad" else 0
            front, back = draw(st.integers(least, 3)), draw(st.integers(least, 3))
            op.options = {"front": front, "back": back, "value": draw(st.sampled_from([0.0, -1.5, 0.25]))}
            step = draw(st.sampled_from([1, 1, 1, 2])) if kind == "slice" else 1
            op.options["s"] = step
            n = n + front + back if kind == "pad" else -(-(n - front - back) // step)
            rate *= step
        elif kind == "difference":
            n -= 1
        elif kind == "segments":
            s = draw(st.sampled_from([2, 3]))
            if n % s:
                continue
            op.options = {"s": s, "at": draw(st.integers(0, s))}
            n, rate = n // s, rate * s
        elif kind in ("up", "transposed"):
            factors = [s for s in (2, 3, 4) if rate % s == 0]
            if not factors and kind == "up":
                continue
            s = draw(st.sampled_from(factors or [1]))
            k = draw(st.integers(1, 5))
            p = draw(st.integers(0, (k - 1) // 2))
            names = ["repeat", "nearest", "nearest-exact", "linear"]
            op.options = {"s": s, "name": draw(st.sampled_from(names))}
            op.options = op.options if kind == "up" else {"s": s, "k": k, "p": p, "c": c}
            n = n * s if kind == "up" else (n - 1) * s + k - 2 * p
            rate //= s
        elif kind == "replicate":
            op.options = {"front": draw(st.integers(0, 3)), "back": draw(st.integers(0, 3))}
            n += op.options["front"] + op.options["back"]
        elif kind == "running":
            op.options = {"name": draw(st.sampled_from(["mean", "sum", "max"]))}
        elif kind in ("add", "cat", "mul"):
            same = [i for i in range(last + 1) if rates[i] == rate and (kind == "cat" or channels[i] == c)]
            other = draw(st.sampled_from(same))
            op.reads = [read, other]
            more = n - lengths[other]
            op.options = {"cut": int(more * draw(st.sampled_from([0.0, 0.5, 1.0])))}
            n = min(n, lengths[other])
            c = c + channels[other] if kind == "cat" else c
        if n < 2 or c > 8 or n > 30 or rate > 12 or math.lcm(*rates, rate) > MAX_RATE:
            continue
        ops.append(op)
        channels.append(c)
        lengths.append(n)
        rates.append(rate)
    if not ops:
        ops.append(Op("point", [0], {"name": "shifted"}))
    ops.append(Op("point", [len(ops)], {"name": "shifted"}))
    return RandomNet(rank, ops, draw(st.integers(0, 1000)))


def clip_of(net: RandomNet) -> tuple[int, ...]:
    """Shape of one clip of a random network."""
    return (2, LENGTH, *[3] * (net.rank - 1))

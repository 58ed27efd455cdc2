"""Checkpoints of the zoo's networks as others name their tensors, brought to the names the networks have here.

X3D, Slow, I3D and SlowFast have the names of PySlowFast, R(2+1)D those of torchvision, the skeleton networks those of
continual-skeletons, MoViNet those of Atze00/MoViNet-pytorch: their checkpoints need no layout.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgeco.errors import WeightsError

State = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]


@dataclass
class Translated:
    """Tensors by the names that a network has for them.

    Attributes:
        state: the tensors.
        layout: whose names they had in the file; None if the network's own.
        unused: names in the file that the network has no use for.
        filled: names of what the file leaves out because it changes nothing.
    """

    state: State
    layout: str | None = None
    unused: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """How one library names the tensors of some networks.

    Attributes:
        name: of the library.
        networks: classes it is a layout of.
        mark: a pattern that some name in such a file begins with.
        heads: of these patterns the first that a name begins with is replaced.
        tails: each of these is replaced wherever it is.
        finish: changes more than names.
    """

    name: str
    networks: tuple[str, ...]
    mark: str
    heads: Rules = ()
    tails: Rules = ()
    finish: Callable[[Translated, nn.Module], None] = lambda found, net: None

    def renamed(self, name: str) -> str:
        """One name."""
        for pattern, replacement in self.heads:
            if re.match(pattern, name):
                name = re.sub(pattern, replacement, name, count=1)
                break
        for pattern, replacement in self.tails:
            name = re.sub(pattern, replacement, name)
        return name


def translate(net: nn.Module, state: State) -> Translated:
    """Bring a checkpoint's names to the network's, by the first layout that the file has the marks of.

    Raises:
        WeightsError: the file is of another form of the network.
    """
    for layout in LAYOUTS:
        if type(net).__name__ in layout.networks and any(re.match(layout.mark, name) for name in state):
            found = Translated({layout.renamed(name): value for name, value in state.items()}, layout.name)
            layout.finish(found, net)
            return found
    return Translated(state)


# ------------------------------------------------------------------------------------------------- pytorchvideo

_BLOCK: Rules = (
    (r"branch1_conv\.", "branch1."),
    (r"branch1_norm\.", "branch1_bn."),
    (r"branch2\.conv_([abc])\.", r"branch2.\1."),
    (r"branch2\.norm_b\.0\.", "branch2.b_bn."),
    (r"branch2\.norm_b\.1\.block\.0\.", "branch2.se.fc1."),
    (r"branch2\.norm_b\.1\.block\.2\.", "branch2.se.fc2."),
    (r"branch2\.norm_([abc])\.", r"branch2.\1_bn."),
)


def _stages(found: Translated, net: nn.Module) -> None:
    """Stages are numbered among all parts there, a pool without weights being one; here they follow one another."""
    numbers = sorted({int(m[1]) for name in found.state if (m := re.match(r"stage(\d+)\.", name))})
    place = {number: i + 2 for i, number in enumerate(numbers)}
    found.state = {
        re.sub(r"^stage(\d+)\.", lambda m: f"s{place[int(m[1])]}.", name): value for name, value in found.state.items()
    }


def _without_norm(found: Translated, net: nn.Module) -> None:
    """The first shortcut of X3D there has no norm, for its channels stay as many: one that changes nothing serves."""
    _stages(found, net)
    prefix = "s2.pathway0_res0.branch1_bn."
    norm = net.get_submodule(prefix[:-1])
    if isinstance(norm, nn.BatchNorm3d) and prefix + "weight" not in found.state:
        ones, zeros = torch.ones(norm.num_features), torch.zeros(norm.num_features)
        for name, value in (
            ("weight", ones * (1 + norm.eps) ** 0.5),
            ("bias", zeros),
            ("running_mean", zeros),
            ("running_var", ones),
        ):
            found.state[prefix + name] = value
            found.filled.append(prefix + name)


_X3D = Layout(
    "pytorchvideo",
    ("X3D",),
    r"blocks\.\d+\.",
    (
        (r"blocks\.0\.conv\.conv_t\.", "s1.pathway0_stem.conv_xy."),  # so called there: the one over the frame
        (r"blocks\.0\.conv\.conv_xy\.", "s1.pathway0_stem.conv."),
        (r"blocks\.0\.norm\.", "s1.pathway0_stem.bn."),
        (r"blocks\.(\d+)\.res_blocks\.(\d+)\.", r"stage\1.pathway0_res\2."),
        (r"blocks\.\d+\.pool\.pre_conv\.", "head.conv_5."),
        (r"blocks\.\d+\.pool\.pre_norm\.", "head.conv_5_bn."),
        (r"blocks\.\d+\.pool\.post_conv\.", "head.lin_5."),
        (r"blocks\.\d+\.proj\.", "head.projection."),
    ),
    _BLOCK,
    _without_norm,
)
_RESNET = Layout(
    "pytorchvideo",
    ("ResNet3d",),
    r"blocks\.\d+\.",
    (
        (r"blocks\.0\.conv\.", "s1.pathway0_stem.conv."),
        (r"blocks\.0\.norm\.", "s1.pathway0_stem.bn."),
        (r"blocks\.(\d+)\.res_blocks\.(\d+)\.", r"stage\1.pathway0_res\2."),
        (r"blocks\.\d+\.proj\.", "head.projection."),
    ),
    _BLOCK,
    _stages,
)
_SLOWFAST = Layout(
    "pytorchvideo",
    ("SlowFast",),
    r"blocks\.\d+\.",
    (
        (r"blocks\.0\.multipathway_blocks\.(\d)\.conv\.", r"s1.pathway\1_stem.conv."),
        (r"blocks\.0\.multipathway_blocks\.(\d)\.norm\.", r"s1.pathway\1_stem.bn."),
        *((rf"blocks\.{n}\.multipathway_fusion\.conv_fast_to_slow\.", f"s{n + 1}_fuse.conv_f2s.") for n in range(4)),
        *((rf"blocks\.{n}\.multipathway_fusion\.norm\.", f"s{n + 1}_fuse.bn.") for n in range(4)),
        (r"blocks\.(\d+)\.multipathway_blocks\.(\d)\.res_blocks\.(\d+)\.", r"stage\1.pathway\2_res\3."),
        (r"blocks\.\d+\.proj\.", "head.projection."),
    ),
    _BLOCK,
    _stages,
)

# --------------------------------------------------------------------------------------------------------- TSM

_FLAT: Rules = tuple((rf"^(features\.\d+)\.conv\.{a}\.{b}\.", rf"\1.conv.{3 * a + b}.") for a in (0, 1) for b in (0, 1))


def _narrowing(found: Translated, net: nn.Module) -> None:
    """torchvision groups convolution and norm, so that the last two parts of a block have other numbers."""
    state = {}
    for name, value in found.state.items():
        block, _, rest = name.partition(".conv.")
        moved = re.match(r"last(\d)\.", rest)
        if moved:  # numbers from the end: the block's own length says where that is
            length = len(net.get_submodule(f"{block}.conv"))  # type: ignore[arg-type]
            name = f"{block}.conv.{length - int(moved[1])}.{rest[moved.end() :]}"
        state[name] = value
    found.state = state


_TORCHVISION = Layout(
    "torchvision",
    ("TsmMobileNetV2",),
    r"(features\.\d+\.conv\.0\.0\.|classifier\.1\.)",
    (
        (r"(features\.1)\.conv\.1\.", r"\1.conv.last2."),  # the first block does not widen
        (r"(features\.1)\.conv\.2\.", r"\1.conv.last1."),
        (r"(features\.\d+)\.conv\.2\.", r"\1.conv.last2."),
        (r"(features\.\d+)\.conv\.3\.", r"\1.conv.last1."),
        (r"classifier\.1\.", "classifier."),
    ),
    _FLAT,
    _narrowing,
)
_TSM = Layout(
    "temporal-shift-module, in training",
    ("TsmMobileNetV2",),
    r"base_model\.",
    ((r"base_model\.", ""), (r"new_fc\.", "classifier.")),
    ((r"\.conv\.0\.net\.", ".conv.0."),),
)

# --------------------------------------------------------------------------------------------------- skeletons


def _parts(found: Translated, net: nn.Module) -> None:
    """One convolution for all parts of the neighbourhood there, one for each here; one matrix there for all layers."""
    if not getattr(net, "original", False):
        raise WeightsError(
            f"The weights are of ST-GCN as first published ({found.layout}), whose joints are mixed in another way; "
            "build that form: --set original=true."
        )
    state = found.state
    for name in [n for n in state if ".gcn.conv." in n]:
        place, kind = name.split(".gcn.conv.")
        for i, part in enumerate(state.pop(name).chunk(3)):
            state[f"{place}.gcn.g_conv.{i}.{kind}"] = part
    if "A" in state:
        shared = state.pop("A")
        state |= {f"{name}.gcn.A": shared for name in {n.split(".gcn.")[0] for n in state if ".gcn.graph_attn" in n}}
    for name in [n for n in state if n == "fc.weight"]:
        state[name] = state[name].flatten(1)


def _layer(pattern: str, names: Rules) -> Rules:
    """Rules for each of ten layers, which are numbered from 0 there and from 1 here."""
    return tuple(
        (pattern.replace("N", str(i)) + given, f"layers.layer{i + 1}." + wanted)
        for i in range(10)
        for given, wanted in names
    )


_STGCN = Layout(
    "st-gcn",
    ("SkeletonNet",),
    r"st_gcn_networks\.",
    (
        *_layer(
            r"st_gcn_networks\.N\.",
            (
                (r"gcn\.conv\.", "gcn.conv."),
                (r"tcn\.0\.", "gcn.bn."),
                (r"tcn\.2\.", "tcn.t_conv."),
                (r"tcn\.3\.", "tcn.bn."),
                (r"residual\.0\.", "residual.t_conv."),
                (r"residual\.1\.", "residual.bn."),
            ),
        ),
        *((rf"edge_importance\.{i}$", f"layers.layer{i + 1}.gcn.graph_attn") for i in range(10)),
        (r"fcn\.", "fc."),
    ),
    finish=_parts,
)
_PYSKL = Layout(
    "pyskl",
    ("SkeletonNet",),
    r"backbone\.",
    (
        *_layer(
            r"backbone\.gcn\.N\.",
            (
                (r"gcn\.PA$", "gcn.graph_attn"),
                (r"gcn\.", "gcn."),
                (r"tcn\.conv\.", "tcn.t_conv."),
                (r"tcn\.bn\.", "tcn.bn."),
                (r"residual\.conv\.", "residual.t_conv."),
                (r"residual\.bn\.", "residual.bn."),
            ),
        ),
        (r"backbone\.data_bn\.", "data_bn."),
        (r"cls_head\.(fc_cls|fc)\.", "fc."),
    ),
    finish=_parts,
)


def _graphs_unread(found: Translated, net: nn.Module) -> None:
    """Attention layers carry a graph there that nothing reads."""
    own = net.state_dict()
    for name in [n for n in found.state if n.endswith(".gcn.A") and n not in own]:
        del found.state[name]
        found.unused.append(name)


_SKELETONS = Layout(
    "continual-skeletons",
    ("SkeletonNet",),
    r"layers\.layer\d+\.",
    ((r"(layers\.layer\d+)\.0\.0\.residual\.", r"\1.residual."), (r"(layers\.layer\d+)\.0\.1\.", r"\1.")),
    finish=_graphs_unread,
)

LAYOUTS = (_X3D, _RESNET, _SLOWFAST, _TORCHVISION, _TSM, _STGCN, _PYSKL, _SKELETONS)

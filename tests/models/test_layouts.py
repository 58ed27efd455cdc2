"""Checkpoints in the layouts of the libraries that publish them: every tensor finds its place, or nothing is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from streaming import randomise_norms
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.errors import WeightsError
from edgeco.factory import load_weights
from edgeco.models.movinet import Layer, MoViNet, Size
from edgeco.models.r2plus1d import R2Plus1d
from edgeco.models.resnet3d import I3D, SLOW, ResNet3d
from edgeco.models.s_tr import s_tr
from edgeco.models.skeleton import LAYOUTS, adjacency
from edgeco.models.slowfast import FORMS, SlowFast
from edgeco.models.stgcn import st_gcn
from edgeco.models.tsm import TsmMobileNetV2
from edgeco.models.x3d import SIZES, X3D

State = dict[str, Tensor]


def tiny_movinet() -> MoViNet:
    return MoViNet(Size(32, 8, ((Layer(8, 16, 3, 3, 2), Layer(8, 16, 1, 5)),), 16), 3)


NETS: dict[str, Callable[[], nn.Module]] = {
    "x3d": lambda: X3D(SIZES["xs"], 3, pixels=32),
    "slow": lambda: ResNet3d(SLOW, 3, 32, width=8, depths=(1, 2, 1, 1)),
    "i3d": lambda: ResNet3d(I3D, 3, 32, width=8, depths=(1, 2, 1, 1)),
    "slowfast": lambda: SlowFast(FORMS["8x8"], 3, 32, width=8, depths=(1, 2, 1, 1)),
    "r2plus1d": lambda: R2Plus1d(3, 8, 6),
    "tsm": lambda: TsmMobileNetV2(3),
    "movinet": tiny_movinet,
    "st-gcn": lambda: st_gcn(3, "openpose", width=8),
    "st-gcn, original": lambda: st_gcn(3, "openpose", width=8, original=True),
    "s-tr": lambda: s_tr(3, "openpose", width=32),
}


def made(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = randomise_norms(NETS[name](), seed).eval()
    for parameter in net.parameters():
        if not parameter.ndim:  # MoViNet's shares of the inner path, which are none at first
            nn.init.constant_(parameter, 0.5)
    return net


def saved(path: Path, state: State, nest: str | None) -> Path:
    torch.save({nest: state, "epoch": 3} if nest else state, path)
    return path


def renamed(state: State, *rules: tuple[str, str]) -> State:
    """Names rewritten by all rules in turn, to what another library calls them."""
    found = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        found[name] = value
    assert len(found) == len(state)
    return found


INNER = (
    (r"branch1_bn\.", "branch1_norm."),
    (r"branch1\.weight", "branch1_conv.weight"),
    (r"branch2\.([abc])_bn\.", r"branch2.norm_\1."),
    (r"branch2\.([abc])\.weight", r"branch2.conv_\1.weight"),
)


def pytorchvideo(name: str, state: State) -> State:
    if name == "slowfast":
        rules = [
            (r"s1\.pathway(\d)_stem\.bn", r"blocks.0.multipathway_blocks.\1.norm"),
            (r"s1\.pathway(\d)_stem\.conv", r"blocks.0.multipathway_blocks.\1.conv"),
            (r"_fuse\.conv_f2s", "_fuse.multipathway_fusion.conv_fast_to_slow"),
            (r"_fuse\.bn", "_fuse.multipathway_fusion.norm"),
            *((rf"^s{i}_fuse", f"blocks.{i - 1}") for i in range(1, 5)),
            *(
                (rf"^s{i}\.pathway(\d)_res(\d+)", rf"blocks.{i - 1}.multipathway_blocks.\1.res_blocks.\2")
                for i in range(2, 6)
            ),
            (r"head\.projection", "blocks.6.proj"),
        ]
        return renamed(state, *rules, *INNER)
    behind = 1 if name == "i3d" else 0  # a pool is a block of its own there
    rules = [
        *(
            (rf"^s{i}\.pathway0_res(\d+)", rf"blocks.{i - 1 + (behind if i > 2 else 0)}.res_blocks.\1")
            for i in range(2, 6)
        ),
        (r"head\.conv_5_bn", "blocks.5.pool.pre_norm"),
        (r"head\.conv_5\.", "blocks.5.pool.pre_conv."),
        (r"head\.lin_5", "blocks.5.pool.post_conv"),
        (r"head\.projection", f"blocks.{5 + behind}.proj"),
        (r"s1\.pathway0_stem\.bn", "blocks.0.norm"),
    ]
    if name == "x3d":
        rules += [
            (r"s1\.pathway0_stem\.conv_xy", "blocks.0.conv.conv_t"),
            (r"s1\.pathway0_stem\.conv\.", "blocks.0.conv.conv_xy."),
            (r"branch2\.b_bn", "branch2.norm_b.0"),
            (r"branch2\.se\.fc1", "branch2.norm_b.1.block.0"),
            (r"branch2\.se\.fc2", "branch2.norm_b.1.block.2"),
        ]
        state = {n: v for n, v in state.items() if not n.startswith("s2.pathway0_res0.branch1_bn")}
    return renamed(state, *rules, (r"s1\.pathway0_stem\.conv", "blocks.0.conv"), *INNER)


def same(one: nn.Module, other: nn.Module) -> bool:
    given, expected = one.state_dict(), other.state_dict()
    return all(torch.equal(given[n], expected[n]) for n in expected if not n.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    ("name", "nest"),
    [
        ("x3d", "model_state"),  # PySlowFast
        ("slow", "model_state"),
        ("slowfast", "model_state"),
        ("r2plus1d", None),  # torchvision
        ("movinet", None),  # Atze00/MoViNet-pytorch
        ("st-gcn", "state_dict"),  # continual-skeletons
    ],
)
def test_names_that_are_the_networks_own(name: str, nest: str | None, tmp_path: Path) -> None:
    source, net = made(name, 1), made(name, 2)
    matched = load_weights(net, str(saved(tmp_path / "w.pyth", source.state_dict(), nest)))
    count = sum(not n.endswith("num_batches_tracked") for n in source.state_dict())
    assert same(net, source) and matched.tensors == count and not matched.unused and not matched.filled


@pytest.mark.parametrize("name", ["x3d", "slow", "i3d", "slowfast"])
def test_pytorchvideo(name: str, tmp_path: Path) -> None:
    source, net = made(name, 1), made(name, 2)
    if name == "x3d":  # there a norm is missing, which is one that changes nothing
        norm = source.get_submodule("s2.pathway0_res0.branch1_bn")
        assert isinstance(norm, nn.BatchNorm3d) and norm.running_mean is not None and norm.running_var is not None
        with torch.no_grad():
            for tensor, value in ((norm.weight, (1 + norm.eps) ** 0.5), (norm.running_var, 1.0)):
                tensor.fill_(value)
            norm.bias.zero_()
            norm.running_mean.zero_()
        x = torch.randn(2, norm.num_features, 1, 3, 3)
        torch.testing.assert_close(norm(x), x, rtol=1e-6, atol=1e-7)
    foreign = pytorchvideo(name, source.state_dict())
    assert not any(n.startswith(("s1", "s2", "s3", "head")) for n in foreign)
    matched = load_weights(net, str(saved(tmp_path / "w.pyth", foreign, "model_state")))
    assert same(net, source) and matched.layout == "pytorchvideo"
    assert len(matched.filled) == (4 if name == "x3d" else 0)
    assert matched.tensors == sum(not n.endswith("num_batches_tracked") for n in foreign)


def test_torchvision_under_tsm(tmp_path: Path) -> None:
    source, net = made("tsm", 1), made("tsm", 2)
    state = renamed(
        source.state_dict(),
        (r"^(features\.1)\.conv\.3\.", r"\1.conv.one."),
        (r"^(features\.1)\.conv\.4\.", r"\1.conv.two."),
        (r"^(features\.\d+)\.conv\.([01])\.", r"\1.conv.0.\2."),
        (r"^(features\.(?!1\.)\d+)\.conv\.3\.", r"\1.conv.1.0."),
        (r"^(features\.(?!1\.)\d+)\.conv\.4\.", r"\1.conv.1.1."),
        (r"^(features\.(?!1\.)\d+)\.conv\.6\.", r"\1.conv.2."),
        (r"^(features\.(?!1\.)\d+)\.conv\.7\.", r"\1.conv.3."),
        (r"\.one\.", ".1."),
        (r"\.two\.", ".2."),
        (r"^classifier\.", "classifier.1."),
    )
    assert {"features.1.conv.1.weight", "features.2.conv.0.0.weight", "features.17.conv.3.bias"} <= set(state)
    assert load_weights(net, str(saved(tmp_path / "w.pth", state, None))).layout == "torchvision"
    assert same(net, source)


def test_tsm_as_trained(tmp_path: Path) -> None:
    source, net = made("tsm", 1), made("tsm", 2)
    shifted = [i for i in range(1, 18) if source.features[i].residual]  # type: ignore[index, union-attr]
    state = renamed(
        source.state_dict(),
        *((rf"^features\.{i}\.conv\.0\.", f"features.{i}.conv.0.net.") for i in shifted),
        (r"^features\.", "module.base_model.features."),
        (r"^classifier\.", "module.new_fc."),
    )
    assert "module.base_model.features.3.conv.0.net.weight" in state and len(shifted) == 10
    assert "in training" in str(load_weights(net, str(saved(tmp_path / "w.pth", state, "state_dict"))).layout)
    assert same(net, source)


def joined(state: State, pattern: str, name: Callable[[int], str]) -> State:
    """The three convolutions of each layer as one, as first published."""
    found = {n: v for n, v in state.items() if ".g_conv." not in n}
    for i in range(10):
        for kind in ("weight", "bias"):
            parts = [state[pattern.format(i + 1, k) + kind] for k in range(3)]
            found[name(i) + kind] = torch.cat(parts)
    return found


def original_names(state: State, library: str) -> State:
    pattern = "layers.layer{}.gcn.g_conv.{}."
    if library == "pyskl":
        state = joined(state, pattern, lambda i: f"backbone.gcn.{i}.gcn.conv.")
        rules = [(rf"^layers\.layer{i + 1}\.", f"backbone.gcn.{i}.") for i in range(10)]
        rules += [(r"graph_attn$", "PA"), (r"\.t_conv\.", ".conv."), (r"^data_bn", "backbone.data_bn")]
        return renamed(state, *rules, (r"^fc\.", "cls_head.fc_cls."))
    state = joined(state, pattern, lambda i: f"st_gcn_networks.{i}.gcn.conv.")
    state = {n: v for n, v in state.items() if not n.endswith("gcn.A")} | {"A": state["layers.layer1.gcn.A"]}
    state["fc.weight"] = state["fc.weight"][:, :, None, None]
    rules = [(rf"^layers\.layer{i + 1}\.gcn\.graph_attn", f"edge_importance.{i}") for i in range(10)]
    rules += [(rf"^layers\.layer{i + 1}\.", f"st_gcn_networks.{i}.") for i in range(10)]
    rules += [(r"\.tcn\.t_conv\.", ".tcn.2."), (r"\.tcn\.bn\.", ".tcn.3."), (r"\.gcn\.bn\.", ".tcn.0.")]
    rules += [(r"\.residual\.t_conv\.", ".residual.0."), (r"\.residual\.bn\.", ".residual.1."), (r"^fc\.", "fcn.")]
    return renamed(state, *rules)


@pytest.mark.parametrize("library", ["st-gcn", "pyskl"])
def test_st_gcn_as_first_published(library: str, tmp_path: Path) -> None:
    source, net = made("st-gcn, original", 1), made("st-gcn, original", 2)
    path = saved(tmp_path / "w.pth", original_names(source.state_dict(), library), "state_dict")
    assert load_weights(net, str(path)).layout == library
    assert same(net, source)
    with pytest.raises(WeightsError, match="--set original=true"):
        load_weights(made("st-gcn", 3), str(path))


def test_the_original_form_is_computed_as_published() -> None:
    """Channels of all three parts by one convolution, then joints, one norm over each person's coordinates."""
    net = made("st-gcn, original", 1)
    x = torch.randn(2, 3, 12, 18, 2)
    state = original_names(net.state_dict(), "st-gcn")

    def norm(y: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        shape = (1, -1, *[1] * (y.ndim - 2))
        return (y - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt() * weight.view(shape) + bias.view(shape)

    with torch.no_grad():
        y = norm(x.permute(0, 4, 3, 1, 2).reshape(4, 54, 12), "data_bn")
        y = y.view(2, 2, 18, 3, 12).permute(0, 1, 3, 4, 2).reshape(4, 3, 12, 18)
        for i in range(10):
            place, stride = f"st_gcn_networks.{i}", 2 if i in (4, 7) else 1
            mixed = F.conv2d(y, state[f"{place}.gcn.conv.weight"], state[f"{place}.gcn.conv.bias"])
            mixed = mixed.view(4, 3, -1, *mixed.shape[2:])
            mixed = torch.einsum("nkctv,kvw->nctw", mixed, state["A"] * state[f"edge_importance.{i}"])
            z = F.relu(norm(mixed, f"{place}.tcn.0"))
            z = F.conv2d(z, state[f"{place}.tcn.2.weight"], state[f"{place}.tcn.2.bias"], (stride, 1), (4, 0))
            z = norm(z, f"{place}.tcn.3")
            if i and stride == 2:
                y = F.conv2d(y, state[f"{place}.residual.0.weight"], state[f"{place}.residual.0.bias"], (2, 1))
                y = norm(y, f"{place}.residual.1")
            y = F.relu(z + y if i else z)
        expected = F.conv2d(y.mean((2, 3)).view(2, 2, -1, 1, 1).mean(1), state["fcn.weight"], state["fcn.bias"])
        torch.testing.assert_close(net(x), expected.flatten(1), rtol=1e-4, atol=1e-5)


def test_continual_skeletons(tmp_path: Path) -> None:
    """Their continual form nests blocks, and attention layers carry a graph that nothing reads."""
    source, net = made("s-tr", 1), made("s-tr", 2)
    state = renamed(
        source.state_dict(),
        (r"^(layers\.layer[58])\.residual\.", r"\1.0.0.residual."),
        (r"^(layers\.layer(?!1\.)\d+)\.(gcn|tcn)\.", r"\1.0.1.\2."),
    )
    graph = adjacency(LAYOUTS["openpose"])
    state |= {f"layers.layer{i}.0.1.gcn.A": graph for i in range(4, 11)}
    matched = load_weights(net, str(saved(tmp_path / "w.pt", state, "state_dict")))
    assert same(net, source) and matched.unused == [f"layers.layer{i}.gcn.A" for i in range(4, 11)]


def test_what_does_not_fit_is_refused_and_named(tmp_path: Path) -> None:
    source, net = made("slow", 1), made("slow", 2)
    before = {n: v.clone() for n, v in net.state_dict().items()}
    whole = pytorchvideo("slow", source.state_dict())
    cases = {
        "lacks 's2.pathway0_res0.branch2.a.weight'": {
            n: v for n, v in whole.items() if n != "blocks.1.res_blocks.0.branch2.conv_a.weight"
        },
        "has 'blocks.7.proj2.weight'": {**whole, "blocks.7.proj2.weight": torch.zeros(1)},
        r"'head.projection.weight' is \(7, 256\) in the file": {**whole, "blocks.5.proj.weight": torch.zeros(7, 256)},
    }
    for said, state in cases.items():
        with pytest.raises(WeightsError, match=said) as caught:
            load_weights(net, str(saved(tmp_path / "w.pyth", state, "model_state")))
        assert "pytorchvideo" in str(caught.value)
    assert all(torch.equal(v, net.state_dict()[n]) for n, v in before.items())


def test_a_users_own_network_is_left_alone(tmp_path: Path) -> None:
    net = nn.ModuleDict({"blocks": nn.Linear(2, 2)})
    path = saved(tmp_path / "w.pt", {n: v + 1 for n, v in net.state_dict().items()}, None)
    matched = load_weights(net, str(path))
    assert (matched.layout, matched.tensors) == (None, 2)

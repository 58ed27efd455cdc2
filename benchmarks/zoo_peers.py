"""Networks of the zoo in `continual-inference`, with the same weights: the step networks that edgeco is held against.

That library's own zoo lies in repositories of its own (CoX3D, continual-skeletons, …), which are no packages and need
other versions of it. Here the same networks are put together of its operators, as they are there: a `co.Conv` for
every convolution over time, `co.BroadcastReduce` for the shortcuts, `co.forward_stepping` for all that sees one frame.
Whatever a network computes besides is the clip network's own module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import continual as co
import torch
from torch import Tensor, nn

from edgeco.models import resnet3d, skeleton, transformer, x3d

NONE = {
    "r2plus1d-18": "the library has no R(2+1)D, and steps of its strided convolutions are wrong",
    "slowfast-4x16": "the library has no SlowFast, nor values of unequal rate",
    "slowfast-8x8": "the library has no SlowFast, nor values of unequal rate",
    "movinet-a0": "the library has no running means",
    "movinet-a1": "the library has no running means",
    "movinet-a2": "the library has no running means",
    "tsm-mobilenetv2": "the library has no temporal shift",
    **dict.fromkeys(
        ("camera-motion", "fingertip-gesture", "watch-activity", "hand-digit-motion"), "a network of edgeco's own"
    ),
    "st-gcn": "steps of its strided blocks are wrong (a convolution of one tap ignores its stride)",
    "agcn": "steps of its strided blocks are wrong (a convolution of one tap ignores its stride)",
    "s-tr": "steps of its strided blocks are wrong (a convolution of one tap ignores its stride)",
    "oad-deep": "the library has no encoder whose layers look back only",
}
"""Why a network has no peer."""


def peer(net: nn.Module) -> Any:
    """The step network of a clip network of the zoo; its weights are copied. Raises TypeError where there is none."""
    net = copy.deepcopy(net).eval()
    for kind, make in _MAKERS.items():
        if isinstance(net, kind):
            return make(net).eval()
    raise TypeError(f"no step network of a {type(net).__name__} is known")


def state_bytes(net: nn.Module) -> int:
    """Bytes of everything that the library's modules keep from step to step."""
    kept = (m._buffers[name] for m in net.modules() for name in m._non_persistent_buffers_set)
    return sum(t.numel() * t.element_size() for t in kept if t is not None)


# -- video ---------------------------------------------------------------------------------------------------------


def _layer(module: nn.Module) -> nn.Module:
    """One layer: continual where it looks over time, itself where it does not."""
    if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
        return co.Conv3d.build_from(module)  # type: ignore[no-any-return]
    if isinstance(module, nn.MaxPool3d) and module.kernel_size[0] > 1:
        return co.MaxPool3d.build_from(module)  # type: ignore[no-any-return]
    if isinstance(module, nn.AvgPool3d):
        return co.AvgPool3d(module.kernel_size, stride=1)
    return co.forward_stepping(module)  # type: ignore[no-any-return]


def _chain(*modules: nn.Module) -> Any:
    return co.Sequential(*(m if isinstance(m, co.CoModule) else _layer(m) for m in modules))


def _branch(branch: nn.Module) -> Any:
    between = nn.SiLU if isinstance(branch, x3d.Branch) else nn.ReLU
    gate = [branch.se] if isinstance(getattr(branch, "se", None), x3d.SqueezeExcite) else []
    first = (branch.a, branch.a_bn, nn.ReLU(), branch.b, branch.b_bn)
    return _chain(*first, *gate, between(), branch.c, branch.c_bn)  # type: ignore[arg-type]


def _block(block: Any) -> Any:
    main = _branch(block.branch2)
    shortcut = _chain(block.branch1, block.branch1_bn) if hasattr(block, "branch1") else co.Delay(main.delay)
    return co.Sequential(co.BroadcastReduce(shortcut, main, reduce="sum"), co.forward_stepping(nn.ReLU()))


def _x3d(net: x3d.X3D) -> Any:
    stem: Any = net.s1.pathway0_stem
    blocks = [_block(block) for stage in (net.s2, net.s3, net.s4, net.s5) for block in stage.children()]
    head = net.head
    return co.Sequential(
        _chain(stem.conv_xy, stem.conv, stem.bn, nn.ReLU()),
        *blocks,
        _chain(head.conv_5, head.conv_5_bn, nn.ReLU(), head.pool, head.lin_5, nn.ReLU()),
        co.Lambda(lambda x: head.projection(x.flatten(1))),
    )


def _resnet(net: resnet3d.ResNet3d) -> Any:
    stem: Any = net.s1.pathway0_stem
    parts: list[Any] = [_chain(stem.conv, stem.bn, nn.ReLU(), stem.pool)]
    for name, part in net.named_children():
        if name == "pathway0_pool":
            parts.append(_layer(part))
        elif name not in ("s1", "head"):
            parts += [_block(block) for block in part.children()]
    head = net.head
    return co.Sequential(*parts, _layer(head.pools[0]), co.Lambda(lambda x: head.projection(x.flatten(1))))


# -- skeletons -----------------------------------------------------------------------------------------------------


def _skeleton(net: skeleton.SkeletonNet) -> Any:
    norm = net.data_bn

    def enter(x: Tensor) -> Tensor:
        """(B, C, V, M) to (B M, C, V), normed."""
        b, c, v, m = x.shape
        x = norm(x.permute(0, 3, 2, 1).reshape(b, -1))
        return x.reshape(b, m, v, c).transpose(2, 3).reshape(b * m, c, v)

    def pooled(x: Tensor) -> Tensor:
        """(B M, C, V) to (B, C)."""
        return x.unflatten(0, (-1, skeleton.PERSONS)).mean((1, 3))

    blocks = [_skeleton_block(block) for block in net.layers.values()]
    length = skeleton.FRAMES - len(blocks) * (skeleton.TAPS - 1)
    mean = co.AvgPool1d(length, stride=1)
    return co.Sequential(co.Lambda(enter), *blocks, co.Lambda(pooled), mean, co.Lambda(lambda x: net.fc(x)))


def _skeleton_block(block: Any) -> Any:
    main = co.Sequential(
        co.forward_stepping(block.gcn),
        co.Conv2d.build_from(block.tcn.t_conv),
        co.forward_stepping(block.tcn.bn),
    )
    if not hasattr(block, "residual"):
        return co.Sequential(main, co.forward_stepping(nn.ReLU()))
    shortcut: Any = co.Delay(main.delay // 2, auto_shrink="centered")
    if not isinstance(block.residual, nn.Identity):
        shortcut = co.Sequential(shortcut, co.forward_stepping(block.residual))
    both = co.BroadcastReduce(shortcut, main, reduce="sum", auto_delay=False)
    return co.Sequential(both, co.forward_stepping(nn.ReLU()))


# -- transformers --------------------------------------------------------------------------------------------------


def _tokens(net: transformer.TokenNet) -> Any:
    """Encoders whose every layer attends to all of the window: of 64 tokens, or 120 by their learned positions."""
    layers: list[Any] = list(net.layers)
    if layers[0].span is not None:
        raise TypeError(NONE["oad-deep"])
    window = transformer.OAD_TOKENS if net.embed.in_features != transformer.AUDIO_FEATURES else transformer.AUDIO_TOKENS
    width, inner = layers[0].linear1.in_features, layers[0].linear1.out_features
    factory = co.TransformerEncoderLayerFactory(width, layers[0].heads, inner, 0.0, nn.GELU(), sequence_len=window)
    encoder = co.TransformerEncoder(factory, len(layers))
    for layer, made in zip(layers, _encoder_layers(encoder), strict=True):
        _copy_layer(layer, made)
    table = net.positions.table
    positions = co.RecyclingPositionalEncoding(width, len(table), learned=True, forward_update_index_steps=0)
    positions.pe.weight.data.copy_(table)
    return co.Sequential(
        co.Lambda(lambda x: net.embed(x)), positions, encoder, co.Lambda(lambda x: net.head(net.norm(x)))
    )


def _encoder_layers(encoder: Any) -> list[nn.Module]:
    """What holds the parameters of each layer, by the first part of their names."""
    names = dict.fromkeys(name.split(".")[1] for name, _ in encoder.named_parameters())
    return [encoder.layers[int(name)] for name in names]


def _copy_layer(layer: Any, made: nn.Module) -> None:
    """Our names end as the library's do, but for the projections in one and their missing bias."""
    given = {
        "in_proj_weight": torch.cat([layer.query.weight, layer.key_value.weight]),
        "in_proj_bias": None,
        "out_proj.weight": layer.out.weight,
        "out_proj.bias": layer.out.bias,
        **{f"{n}.{p}": getattr(getattr(layer, n), p) for n in ("linear1", "linear2", "norm1", "norm2") for p in _BOTH},
    }
    for name, parameter in made.named_parameters():
        value = given[next(end for end in given if name.replace(".fn", "").endswith(end))]
        parameter.data.zero_() if value is None else parameter.data.copy_(value)


_BOTH = ("weight", "bias")
_MAKERS: dict[type[nn.Module], Callable[[Any], Any]] = {
    x3d.X3D: _x3d,
    resnet3d.ResNet3d: _resnet,
    skeleton.SkeletonNet: _skeleton,
    transformer.TokenNet: _tokens,
}

"""Multiply-accumulates that a new frame costs: counted, not timed. See README.md beside this file.

The peer, `continual-inference`, converts sequences of layers and not whole networks, so that its steps are counted
convolution by convolution, on the frames that each sees in the network; what is no temporal convolution costs it the
same as edgeco.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import edgeco
from edgeco.continual.convert import convert_graph, trace_network
from edgeco.export.onnx import propagate
from edgeco.export.package import step_macs
from edgeco.graph.cost import total_macs
from edgeco.models import camera_motion, x3d

STEPS = 8
"""Steps the peer is counted over, after as many that fill its past."""


def stack() -> nn.Module:
    """Three dense convolutions with norms, 16, 32 and 32 channels."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv3d(before, after, 3, padding=(0, 1, 1)), nn.BatchNorm3d(after), nn.ReLU()]
    return nn.Sequential(*layers)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "three dense convolutions, 56x56, 7 frames": (stack, (3, 7, 56, 56)),
    "camera-motion": (camera_motion.camera_motion, camera_motion.camera_motion.clip),  # type: ignore[attr-defined]
    "X3D-S, 160x160": (x3d.x3d_s, x3d.x3d_s.clip),  # type: ignore[attr-defined]
    "X3D-M, 224x224": (x3d.x3d_m, x3d.x3d_m.clip),  # type: ignore[attr-defined]
    "X3D-L, 312x312": (x3d.x3d_l, x3d.x3d_l.clip),  # type: ignore[attr-defined]
}


def macs(run: Callable[[], object]) -> float:
    """Multiply-accumulates that PyTorch executes."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def temporal(net: nn.Module, clip: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
    """Every convolution over more than one frame, and a frame of what it reads (batch, channels, height, width)."""
    seen: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda m, given, _: seen.append((m, given[0][:, :, 0].clone())))
        for module in net.modules()
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1
    ]
    with torch.no_grad():
        net(clip)
    for hook in hooks:
        hook.remove()
    yield from seen


def own(layer: Any, frame: Tensor) -> float:
    """What the taps of one convolution cost a frame."""
    window = frame.unsqueeze(2).expand(-1, -1, layer.kernel_size[0], -1, -1)
    padding = (0, *layer.padding[1:])
    weights = (layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)
    return macs(lambda: nn.functional.conv3d(window, *weights)) / layer.stride[0]


def peers(layer: Any, frame: Tensor) -> float:
    """What the same convolution executes in the peer's step."""
    import continual

    step = continual.Conv3d.build_from(layer)

    def run() -> None:
        for _ in range(STEPS):
            step.forward_step(frame)

    with torch.no_grad():
        run()
    return macs(run) / STEPS


def count(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> dict[str, float]:
    """Figures of one network."""
    net, clip = make().eval(), torch.zeros(1, *shape)
    graph = convert_graph(trace_network(net, clip))
    propagate(graph.module, graph)
    for phase in graph.phases:
        propagate(phase.module, graph)
    layers = list(temporal(net, clip))
    step = step_macs(graph)
    figures = {"clip": total_macs(graph.clip.graph, graph.clip.batch), "edgeco": step}
    try:
        more = sum(peers(layer, frame) - own(layer, frame) for layer, frame in layers)
    except ImportError:
        return figures
    return {**figures, "continual-inference": step + more}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    found = {name: count(make, shape) for name, (make, shape) in NETWORKS.items()}
    if arguments.json:
        print(json.dumps({"edgeco": edgeco.__version__, "torch": torch.__version__, "macs": found}, indent=1))
        return
    print("| millions of multiply-accumulates | clip network | continual-inference, a step | edgeco, a step |")
    print("|---|---|---|---|")
    for name, figures in found.items():
        peer = figures.get("continual-inference")
        cells = [figures["clip"], peer, figures["edgeco"]]
        print(f"| {name} | {' | '.join('not installed' if c is None else f'{c / 1e6:.0f}' for c in cells)} |")


if __name__ == "__main__":
    main()

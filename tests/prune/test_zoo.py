"""Networks of the zoo, at reduced size, each pruned to half its multiply-accumulates and still a stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pruned import shaken
from torch import nn

from edgeco import building, prune
from edgeco.continual.convert import trace_network
from edgeco.models import agcn, movinet, r2plus1d, resnet3d, stgcn, transformer, x3d
from edgeco.prune.figures import state_bytes


def skeleton(make: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    return lambda: make(width=16, classes=7)


ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any], float]] = {
    "x3d-s": (lambda: x3d.x3d_s(pixels=64, classes=7), (3, 13, 64, 64), {}, 0.5),
    "i3d-r50": (lambda: resnet3d.i3d_r50(classes=7, pixels=64), (3, 8, 64, 64), {}, 0.5),
    "r2plus1d-18": (lambda: r2plus1d.r2plus1d_18(classes=7), (3, 16, 48, 48), {}, 0.5),
    "st-gcn": (skeleton(stgcn.st_gcn), (3, 60, 25, 2), {}, 0.5),
    "st-gcn-star": (skeleton(stgcn.st_gcn_star), (3, 90, 25, 2), {}, 0.5),
    "agcn": (skeleton(agcn.agcn), (3, 60, 25, 2), {}, 0.5),
    "movinet-a0": (lambda: movinet.movinet_a0(classes=7), (3, 8, 64, 64), {}, 0.5),
    "oad": (lambda: transformer.oad_b1(features=64, width=64), (64, 64), {"time_dim": 1}, 0.7),
}
"""How each is made, a clip, what its build is told, and the share of multiply-accumulates it is pruned to."""


def made(name: str) -> nn.Module:
    """The network with weights of its own, for the build's factory."""
    torch.manual_seed(2)
    return shaken(ZOO[name][0]().eval())


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_half_the_work_and_still_a_stream(name: str, tmp_path: Path) -> None:
    """Pruned, converted, exported: the build's gates hold step against clip network and export against step network."""
    _, clip, options, share = ZOO[name]
    net = made(name)
    traced = trace_network(net, torch.zeros(1, *clip), options.get("time_dim", 2))
    before = state_bytes(net, traced)
    plan = prune.plan(net, torch.zeros(1, *clip), share, importance="magnitude", **options)
    assert plan.data.difference is not None and plan.data.difference <= 1e-12
    assert plan.data.after.macs <= share * plan.data.before.macs
    plan.save(tmp_path / "plan.json")
    factory = tmp_path / "factory.py"
    here = Path(__file__).parent
    factory.write_text(
        f"import sys\nsys.path[:0] = [{str(here)!r}, {str(here.parent / 'helpers')!r}]\n"
        f"import test_zoo\ndef make():\n    return test_zoo.made({name!r})\n"
    )
    fields = {
        "model": f"{factory}:make",
        "clip": clip,
        "plan": str(tmp_path / "plan.json"),
        "input": "array",
        **options,
    }
    report = building.build(fields, tmp_path / "pruned.edgeco")
    after = state_bytes(plan.apply(), traced)
    print(
        f"{name}: MACs {plan.data.after.macs / plan.data.before.macs:.3f}, parameters "
        f"{plan.data.after.parameters / plan.data.before.parameters:.3f}, state {before} -> {after} bytes, "
        f"oracle {plan.data.difference:.1e}, step {report.step_difference:.1e}, engine {report.engine_difference:.1e}"
    )
    assert report.step_difference <= 1e-4 and report.engine_difference <= 1e-4
    assert after < before or name in ("oad", "x3d-s")
    assert report.pruning is not None and report.clip_macs <= share * plan.data.before.macs


@pytest.mark.slow
def test_the_width_of_a_transformer_only_as_approximate() -> None:
    """Heads and the feed-forward width go exactly; its own width, under layer norms, only where asked for."""
    clip = torch.zeros(1, 64, 64)
    exact = prune.plan(made("oad"), clip, 0.7, time_dim=1, importance="magnitude").data
    free = {g.name for g in exact.groups if g.blocked is None}
    assert free == {"layers.0.query", "layers.0.linear1"} and not exact.approximate
    near = prune.plan(made("oad"), clip, 0.4, time_dim=1, importance="magnitude", approximate=True)
    assert near.data.approximate and any(g.removed for g in near.data.groups if g.name == "embed")
    near.apply()

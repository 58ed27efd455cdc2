"""Pruning from end to end: norms taken anew, rounds that can be stopped and resumed, reports, the command."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from channel_nets import Excite
from click.testing import CliRunner
from pruned import bits, shaken
from streaming import recording
from torch import nn

from edgeco import building
from edgeco.cli import main
from edgeco.errors import SpecError
from edgeco.prune.job import PruneJob
from edgeco.prune.norms import recalibrate
from edgeco.prune.page import page
from edgeco.prune.recipe import PruneRecipe
from edgeco.prune.rounds import Watch

FACTORY = """
import torch
from torch import nn

def make(width=24):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(6, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Conv1d(width, 32, 3, padding=1), nn.BatchNorm1d(32), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 3),
    )

make.clip, make.input = (6, 16), "array"
"""
RECIPE = {"budget": "macs=40%", "rounds": 2, "train": 30, "ranking": 4}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a factory and labelled series: three kinds of waves."""
    (tmp_path / "net.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    kinds = np.arange(90) % 3
    t = np.arange(16)[:, None]
    waves = [np.sin((0.3 + 0.4 * k) * t + rng.uniform(0, 6, 6)) + 0.4 * rng.standard_normal((16, 6)) for k in kinds]
    np.savez(tmp_path / "data.npz", x=np.stack(waves).astype(np.float32), y=kinds)
    return tmp_path


def job(place: Path, name: str = "out", **recipe: Any) -> PruneJob:
    fields = {"model": f"{place / 'net.py'}:make"}
    return PruneJob(fields, PruneRecipe(**{**RECIPE, **recipe}), place / "data.npz", place / f"{name}.safetensors")


def test_norms_are_the_mean_of_what_they_see() -> None:
    """A cumulative average over batches, each counting alike; nothing else changes, modes neither."""
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Conv1d(4, 2, 1)).train()
    before = bits(net)
    data = [(recording(8, 4, 5, seed=i).float() * (i + 1), None) for i in range(3)]
    assert recalibrate(net, data) == 1
    mean = torch.stack([x.mean((0, 2)) for x, _ in data]).mean(0)
    variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x, _ in data]).mean(0)
    assert torch.allclose(net[0].running_mean, mean, atol=1e-6)
    assert torch.allclose(net[0].running_var, variance, atol=1e-5)
    after = bits(net)
    assert {k for k in before if before[k] != after[k]} == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
    assert net.training and net[0].training and net[0].momentum == 0.1
    assert recalibrate(Excite(), []) == 0


def test_recalibration_mends_what_pruning_moved() -> None:
    """A network whose statistics are wrong by a pruning answers as one whose norms were told anew."""
    net = shaken(Excite().eval())
    moved = copy.deepcopy(net)
    data = [(recording(8, 3, 6, 4, 4, seed=i).float(), None) for i in range(4)]
    recalibrate(net, data)
    for name, buffer in moved.named_buffers():
        if name.endswith("running_mean"):
            buffer += 3
    recalibrate(moved, data)
    assert bits(moved) == bits(net)


def test_a_run_writes_what_can_be_built(place: Path) -> None:
    """Weights, plan and report; the factory's network is rebuilt from them by a build, smaller and still a stream."""
    report = job(place).run(timed=False)
    assert report is not None and not (place / "out.run").exists()
    figures = report["figures"]
    assert (report["budget"], report["seed"]) == ("macs=40%", 0)
    assert figures["macs"][1] <= 0.4 * figures["macs"][0] and figures["state_bytes"][1] < figures["state_bytes"][0]
    assert figures["latency_seconds"] is None and figures["accuracy"] is not None
    assert (
        all(r["raw"] is not None and r["trained"] is not None for r in report["rounds"]) and len(report["rounds"]) == 2
    )
    assert sum(layer["macs"][1] for layer in report["layers"]) == figures["macs"][1]
    assert sum(h["bytes"][1] for h in report["histories"]) == figures["state_bytes"][1]
    model = f"{place / 'net.py'}:make"
    fields = {"model": model, "plan": str(place / "out.plan.json"), "weights": str(place / "out.safetensors")}
    built = building.build(fields, place / "out.edgeco")
    assert built.clip_macs == figures["macs"][1] and built.pruning is not None
    assert json.loads((place / "out.report.json").read_bytes()) == json.loads(json.dumps(report))
    text = (place / "out.report.html").read_text()
    assert "<svg" in text and "http" not in text and "unavailable" in text
    with pytest.raises(SpecError, match="another network"):
        building.build({**fields, "arguments": {"width": 16}}, place / "other.edgeco")


def test_a_stopped_run_goes_on_to_the_same_bits(place: Path) -> None:
    whole = job(place, "whole").run(timed=False)
    assert whole is not None
    said: list[str] = []
    for stop_after in (3, 9, 14):  # within a round, in its training, in the next round
        count = iter(range(10**6))
        watch = Watch(said.append, stop=lambda count=count, last=stop_after: next(count) >= last)  # type: ignore[misc]
        assert job(place, "parts").run(watch, timed=False) is None
    parts = job(place, "parts").run(timed=False)
    assert parts is not None and parts["rounds"] == whole["rounds"]
    assert (place / "parts.safetensors").read_bytes() == (place / "whole.safetensors").read_bytes()
    plans = [json.loads((place / f"{name}.plan.json").read_bytes()) for name in ("parts", "whole")]
    assert plans[0]["cuts"] == plans[1]["cuts"] and plans[0]["repairs"] == plans[1]["repairs"]


def test_the_folder_of_another_run_is_refused(place: Path) -> None:
    count = iter(range(10**6))
    assert job(place).run(Watch(stop=lambda: next(count) >= 3), timed=False) is None
    with pytest.raises(SpecError, match="another run"):
        job(place, budget="macs=60%").run()


def test_a_run_that_came_to_nothing_stands_in_nobodys_way(place: Path) -> None:
    """Told that its budget is out of reach, a user gives another."""
    with pytest.raises(SpecError, match=r"macs=0\.1% is out of reach"):
        job(place, budget="macs=0.1%", rounds=1).run(timed=False)
    assert job(place).run(timed=False) is not None


def test_sensitivity_is_kept_from_run_to_run(place: Path) -> None:
    from edgeco.prune.sensitivity import sensitivity

    one = job(place)
    calls = []

    def score(net: nn.Module) -> float:
        calls.append(1)
        return float(sum(p.numel() for p in net.parameters()))

    cache = place / "curves.json"
    curves = sensitivity(one._planner(one.recordings(), Watch()), score, cache=cache, key="a")
    assert set(curves) == {"0", "3"} and len(calls) == 6
    assert all(sorted(c.values(), reverse=True) == [c[k] for k in ("0.25", "0.5", "0.75")] for c in curves.values())
    assert sensitivity(one._planner(one.recordings(), Watch()), score, cache=cache, key="a") == curves
    assert len(calls) == 6
    sensitivity(one._planner(one.recordings(), Watch()), score, cache=cache, key="b")
    assert len(calls) == 12


def test_the_command(place: Path) -> None:
    """A dry run writes nothing; a run without data prunes by the weights; mistakes are told in a sentence."""
    model, out = f"{place / 'net.py'}:make", str(place / "cli.safetensors")
    dry = CliRunner().invoke(main, ["prune", model, "-o", out, "--dry-run", "--json"])
    assert dry.exit_code == 0, dry.output
    told = json.loads(dry.stdout)
    assert told["figures"]["macs"][1] <= 0.5 * told["figures"]["macs"][0] and not Path(out).exists()
    assert any(group["blocked"] for group in told["groups"])
    run = CliRunner().invoke(main, ["prune", model, "-o", out, "--no-timing", "--round-to", "8"])
    assert run.exit_code == 0, run.output
    assert "Before and after" in run.stdout and Path(out).exists()
    report = json.loads((place / "cli.report.json").read_bytes())
    assert report["figures"]["accuracy"] is None and report["importance"] == "magnitude"
    assert all(g["channels"][1] % 8 == 0 or g["channels"][0] == g["channels"][1] for g in report["groups"])
    wrong = CliRunner().invoke(main, ["prune", model, "-o", out, "--budget", "watts=3"])
    assert wrong.exit_code == 2 and "not known" in wrong.output


def test_the_page_escapes_names() -> None:
    report = {
        "name": "<b>", "budget": "macs=50%", "importance": "x", "seed": 0, "difference": 0.0, "approximate": False,
        "figures": {
            "macs": [2, 1], "parameters": [2, 1], "filters": [2, 1], "state_bytes": [2, 1], "latency_seconds": None,
            "accuracy": None,
        },
        "rounds": [], "layers": [], "histories": [], "unknown": {"<i>": "<u>"}, "curves": {"<a>": {"0.5": 0.5}},
        "groups": [{"name": "<s>", "channels": [2, 1], "macs_per_unit": 1, "blocked": None, "approximate": None}],
    }  # fmt: skip
    text = page(report)
    assert not any(tag in text for tag in ("<b>", "<i>", "<u>", "<a>", "<s>"))

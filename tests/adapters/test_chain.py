"""The whole chain once, on a small network: train, prune by half, adapt to a second task, fuse, convert, run."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from tasks import SOURCE, make_base, swings
from torch import nn

import edgeco
from edgeco import prune
from edgeco.adapters.pack import read_pack
from edgeco.bundle import open_bundle
from edgeco.cli import main
from edgeco.prune.norms import recalibrate
from edgeco.prune.plan import load_plan
from edgeco.train.loop import Options, train
from edgeco.train.objective import supervised
from edgeco.train.schedule import Schedule

CLASSES = ("slow", "middle", "fast")


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips of the first task: how fast the first number swings."""
    recordings, classes = swings(32, 12, seed=100 + step)
    order = np.random.default_rng(step).permutation(32)
    return torch.from_numpy(recordings[order]).transpose(1, 2), torch.from_numpy(classes[order])


def accuracy(net: nn.Module) -> float:
    clips, classes = batch(9999)
    with torch.no_grad():
        return float((net.eval()(clips).argmax(1) == classes).float().mean())


def learn(net: nn.Module, steps: int) -> None:
    train(net, batch, supervised(nn.functional.cross_entropy), Schedule(steps, 2e-2), Options(), report_every=0)
    net.eval()


def second_task(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether what swings does so in the first number or in the second."""
    recordings, _ = swings(60, 24, seed)
    which = np.arange(60) % 2
    recordings[which == 1] = recordings[which == 1][:, :, ::-1]
    return recordings, which


def test_from_a_first_training_to_a_running_bundle_of_a_second_task(tmp_path: Path) -> None:
    # Train the base on its own task.
    base = make_base(3)
    learn(base, 150)
    assert accuracy(base) >= 0.9
    # Prune it by half, recalibrate, train on.
    pruned = copy.deepcopy(base)
    plan = prune.plan(pruned, torch.zeros(1, 2, 12), 0.5, batches=[batch(i) for i in range(4)])
    plan.apply()
    recalibrate(pruned, [batch(i) for i in range(8)])
    learn(pruned, 80)
    assert accuracy(pruned) >= 0.85
    assert plan.data.after.macs <= 0.5 * plan.data.before.macs
    # What lies on the disk: the plan, the pruned weights, recordings of the second task.
    (tmp_path / "net.py").write_text(SOURCE)
    plan.save(tmp_path / "half.json")
    save_file(pruned.state_dict(), tmp_path / "half.safetensors")
    recordings, which = second_task(1)
    np.savez(tmp_path / "second.npz", x=recordings, y=which, labels=np.array(["first", "second"]))
    # Adapt, fuse, convert, export.
    model = [f"{tmp_path / 'net.py'}:make", "--set", "classes=3", "--weights", str(tmp_path / "half.safetensors")]
    model += ["--plan", str(tmp_path / "half.json")]
    pack, bundle = tmp_path / "second.safetensors", tmp_path / "second.edgeco"
    adapt = ["adapt", model[0], str(tmp_path / "second.npz"), *model[1:], "-o", str(pack), "--rank", "2"]
    result = CliRunner().invoke(main, [*adapt, "--steps", "120", "--peak", "0.02", "--torch-device", "cpu"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, ["build", *model, "--pack", str(pack), "-o", str(bundle)])
    assert result.exit_code == 0, result.output
    # The pack knows the pruned network alone; its bundle is that of the network fused by hand.
    again = load_plan(tmp_path / "half.json").apply(make_base(3))
    again.load_state_dict(pruned.state_dict())
    fused = read_pack(pack).fuse(again).eval()
    whole = tmp_path / "whole.edgeco"
    edgeco.build({"model": f"{tmp_path / 'net.py'}:make", "arguments": {"classes": 3}}, whole)
    one, other = open_bundle(bundle).manifest, open_bundle(whole).manifest
    assert one.costs.state_bytes < other.costs.state_bytes and one.costs.step_macs < other.costs.step_macs
    assert one.labels == ("first", "second")
    # Run: every step is the fused network's stream, and it knows the task.
    program = edgeco.convert(fused, torch.zeros(1, 2, 12))
    unseen, truth = second_task(2)
    expected = program.forward_steps(torch.from_numpy(unseen.copy()).transpose(1, 2))
    right = 0
    with edgeco.load(bundle).stream() as stream:
        for recording, label, answers in zip(unseen, truth, expected, strict=True):
            stream.reset()
            results = [stream.step(frame) for frame in np.ascontiguousarray(recording)]
            given = np.stack([r.outputs["output"] for r in results if r.valid]).reshape(len(answers), -1)
            np.testing.assert_allclose(given, answers.numpy(), rtol=1e-3, atol=1e-4)
            right += results[-1].top(1)[0].label == ("first", "second")[label]
    assert right / len(truth) >= 0.9

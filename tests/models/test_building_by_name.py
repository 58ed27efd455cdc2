"""`edgeco build NAME`: the bundle of a named network, with the weights of a checkpoint, answers as the network does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import edgeco
from edgeco.building import build
from edgeco.cli import main
from edgeco.models.transformer import audio_transformer

SOME = ("st-gcn", "agcn-star", "s-tr", "slow-r50", "slowfast-8x8", "r2plus1d-18", "movinet-a0", "tsm-mobilenetv2")


def test_a_bundle_with_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(5)
    net = audio_transformer().eval()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "w.pt")
    out, weights = tmp_path / "audio.edgeco", str(tmp_path / "w.pt")
    ran = CliRunner().invoke(main, ["build", "audio_transformer", "-o", str(out), "--weights", weights, "--json"])
    assert ran.exit_code == 0, ran.output
    matched = json.loads(ran.stdout)["weights"]
    assert matched == {"tensors": len(net.state_dict()), "layout": None, "unused": [], "filled": []}
    recorded = torch.randn(120, 128)
    with edgeco.load(out, threads=1).stream() as stream:
        for i, frame in enumerate(recorded):
            result = stream.step(frame.numpy())
            assert result.valid == (i == 119)
    with torch.no_grad():
        expected = net(recorded[None])[0].numpy()
    given = result.outputs["output"]
    assert np.abs(given - expected).max() <= 1e-4 * np.abs(expected).max()
    shown = CliRunner().invoke(main, ["inspect", str(out)])
    assert f"{len(net.state_dict())} tensors, every one matched" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_it_builds_at_its_full_size(name: str, tmp_path: Path) -> None:
    report = build({"model": name, "golden": 3}, tmp_path / "net.edgeco")
    assert report.step_difference < 1e-4 and report.engine_difference < 1e-4

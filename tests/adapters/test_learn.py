"""From a base and recordings to a pack: what is learned, in both regimes, stopped and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tasks import SPEC, make_base, swinging
from torch import nn

import edgeco
from edgeco import prune
from edgeco.adapters import AdapterSpec
from edgeco.adapters.learn import Adaptation, AdaptRecipe
from edgeco.adapters.page import page
from edgeco.errors import DataError, SpecError
from edgeco.spec import make_spec

QUICK = {"steps": 80, "peak": 2e-2, "validate_every": 40}


def adaptation(**changes: object) -> Adaptation:
    spec = AdapterSpec(**{"rank": 2, **changes.pop("spec", {})})  # type: ignore[dict-item]
    recipe = AdaptRecipe(**{**QUICK, **changes.pop("recipe", {})})  # type: ignore[dict-item]
    return Adaptation(SPEC, make_base(), swinging(), spec, recipe, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("regime", ["clip", "stream"])
def test_a_task_is_learned_and_its_pack_gives_it_back(regime: str, tmp_path: Path) -> None:
    made = adaptation(recipe={"regime": regime})
    outcome = made.run()
    pack = made.pack("swings")
    report = made.report(pack, outcome, "swings.npz")
    assert (report.after.step if regime == "stream" else report.after.clip) >= 0.9 > 0.6 > report.before.clip
    fused = pack.fuse(make_base())
    clip = torch.randn(4, 2, 12)
    assert torch.allclose(fused(clip), made.net(clip), rtol=1e-5, atol=1e-6)
    program = edgeco.convert(fused, torch.zeros(1, 2, 12))
    long = torch.randn(2, 2, 40)
    if regime == "stream":
        assert torch.allclose(program.forward_steps(long), made.form(long), rtol=1e-4, atol=1e-5)
    assert report.learned.parameters == sum(p.numel() for p in made.net.parameters() if p.requires_grad)
    assert report.learned == pack.count(pack.apply(make_base())) and report.labels == ["slow", "middle", "fast"]
    told = report.to_json()
    assert told["learned"]["parameters"] == report.learned.parameters and told["curve"][-1][0] == 80
    shown = page(report)
    assert "0.weight" in shown and f"{report.after.step:.1%}" in shown and "polyline" in shown


def test_the_streamed_regime_betters_the_streams_answers_and_leaves_the_statistics() -> None:
    made = adaptation(recipe={"regime": "stream", "steps": 160, "frames": 30})
    recordings, labels = (torch.from_numpy(x) for x in made.batches(999))
    assert recordings.shape == (16, 2, 30)

    def loss() -> float:
        program = edgeco.convert(made.net, torch.zeros(1, 2, 12))
        answers = program.forward_steps(recordings)
        return float(nn.functional.cross_entropy(answers.flatten(0, 1), labels.repeat_interleave(answers.shape[1])))

    before = loss()
    made.run()
    assert loss() < 0.8 * before
    norms = [m.running_mean for m in made.net.modules() if isinstance(m, nn.BatchNorm1d)]
    base = [m.running_mean for m in make_base().modules() if isinstance(m, nn.BatchNorm1d)]
    assert all(torch.equal(a, b) for a, b in zip(norms, base, strict=True))


@pytest.mark.parametrize("regime", ["clip", "stream"])
def test_a_stopped_run_goes_on_to_the_same_bits(regime: str, tmp_path: Path) -> None:
    recipe = {"regime": regime, "steps": 30, "validate_every": 10}
    whole = adaptation(recipe=recipe)
    whole.run()
    first = adaptation(recipe=recipe)
    assert first.run(checkpoint=tmp_path / "kept", until=14).ended == "stopped"
    second = adaptation(recipe=recipe)
    second.run(checkpoint=tmp_path / "kept", resume=True)
    expected, given = whole.net.state_dict(), second.net.state_dict()
    assert all(torch.equal(expected[name], given[name]) for name in expected)


def test_norms_that_are_the_bases_stay_so() -> None:
    made = adaptation(spec={"norms": False, "biases": False}, recipe={"steps": 10})
    made.run()
    pack = made.pack("swings")
    assert set(pack.info.values) == {"8.weight", "8.bias"}


def test_a_pruned_task_keeps_its_channels_in_the_pack() -> None:
    base = make_base()
    plan = prune.plan(base, torch.zeros(1, 2, 12), 0.5)
    made = adaptation(plan=plan, recipe={"steps": 20})
    outcome = made.run()
    pack = made.pack("swings")
    report = made.report(pack, outcome, "swings.npz")
    assert report.learned.mask_bits == 16 and report.parameters < sum(p.numel() for p in base.parameters())
    fused = pack.fuse(make_base())
    assert fused[0].out_channels < 8
    clip = torch.randn(4, 2, 12)
    assert torch.allclose(fused(clip), made.net(clip), rtol=1e-5, atol=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("regime", ["stream", "clip"])
def test_the_base_teaches_where_it_knows_the_classes(regime: str) -> None:
    recipe = AdaptRecipe(**QUICK | {"steps": 40, "regime": regime, "distill": 1.0})
    teacher = make_base(3)
    with torch.no_grad():
        teacher[8].weight *= 8
    made = Adaptation(SPEC, teacher, swinging(), AdapterSpec(rank=2), recipe)
    with torch.no_grad():
        for p in made.training.parameters:
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))

    def distance() -> float:
        clips = torch.from_numpy(made.batches(999)[0][:, :, :12])
        made.net.eval()
        with torch.no_grad():
            return float((made.net(clips).softmax(1) - teacher(clips).softmax(1)).abs().mean())

    before = distance()
    made.training.options.validate = None
    made.run()
    assert distance() < 0.6 * before
    with pytest.raises(SpecError, match="leave distill out"):
        adaptation(recipe={"distill": 0.5})


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match="name the head"):
        adaptation(spec={"head": "0"})
    wide, net = make_spec({"model": "base", "clip": (3, 12)}), make_base()
    net[0] = nn.Conv1d(3, 8, 3, padding=1)
    with pytest.raises(DataError, match="clips of"):
        Adaptation(wide, net, swinging(), AdapterSpec(rank=2), AdaptRecipe(**QUICK))

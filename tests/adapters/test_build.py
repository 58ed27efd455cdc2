"""Packs in bundles: k tasks on one base give the k bundles of the k networks, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from tasks import SOURCE, SPEC, make_base, swinging, swings

import edgeco
from edgeco.adapters import AdapterSpec
from edgeco.adapters.learn import Adaptation, AdaptRecipe
from edgeco.adapters.pack import read_pack
from edgeco.bundle import open_bundle
from edgeco.cli import main
from edgeco.errors import PackError

KINDS = ("low-rank", "splora", "full")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base's source and weights, and a pack of every kind."""
    made = tmp_path_factory.mktemp("tasks")
    (made / "net.py").write_text(SOURCE)
    save_file(make_base().state_dict(), made / "base.safetensors")
    for number, kind in enumerate(KINDS):
        recipe = AdaptRecipe(steps=6, seed=number)
        adaptation = Adaptation(SPEC, make_base(), swinging(), AdapterSpec(kind=kind, rank=2), recipe)
        adaptation.run()
        adaptation.pack(kind).save(made / f"{kind}.safetensors")
    return made


def built(folder: Path, out: str, **fields: object) -> Path:
    path = folder / out
    edgeco.build({"model": f"{folder / 'net.py'}:make", **fields}, path)
    return path


def test_packs_give_the_bundles_of_the_networks_fused_by_themselves(folder: Path) -> None:
    for kind in KINDS:
        pack = folder / f"{kind}.safetensors"
        own = read_pack(pack).fuse(make_base())
        save_file(own.state_dict(), folder / "own.safetensors")
        labels = ("slow", "middle", "fast")
        packed = built(folder, "packed.edgeco", weights=str(folder / "base.safetensors"), pack=str(pack))
        plain = built(
            folder, "plain.edgeco", weights=str(folder / "own.safetensors"), arguments={"classes": 3}, labels=labels
        )
        one, other = open_bundle(packed), open_bundle(plain)
        assert one.manifest.labels == other.manifest.labels == labels
        assert one.manifest.histories == other.manifest.histories and one.manifest.timeline == other.manifest.timeline
        names = [n for n in one.manifest.members if n != "report.json"]
        assert len(names) > 2 and all(one.manifest.members[n] == other.manifest.members[n] for n in names), kind


def test_a_pack_on_other_weights_is_refused(folder: Path) -> None:
    with pytest.raises(PackError, match="another base"):
        built(folder, "x.edgeco", pack=str(folder / "full.safetensors"))
    assert not (folder / "x.edgeco").exists()


def test_the_commands_from_recordings_to_a_running_bundle(folder: Path, tmp_path: Path) -> None:
    import numpy as np

    recordings, classes = swings()
    np.savez(tmp_path / "swings.npz", x=recordings, y=classes, labels=np.array(["slow", "middle", "fast"]))
    model, weights = f"{folder / 'net.py'}:make", str(folder / "base.safetensors")
    pack, bundle = tmp_path / "task.safetensors", tmp_path / "task.edgeco"
    run = CliRunner()
    adapt = ["adapt", model, str(tmp_path / "swings.npz"), "-o", str(pack), "--weights", weights, "--rank", "2"]
    quick = ["--steps", "150", "--peak", "0.02", "--regime", "stream", "--json", "--torch-device", "cpu"]
    result = run.invoke(main, adapt + quick)
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "task.json").read_text())
    assert told["after"]["step"] >= 0.9 and told["labels"] == ["slow", "middle", "fast"]
    assert "<svg" in (tmp_path / "task.html").read_text()
    assert not (tmp_path / "task.safetensors.checkpoint").exists()
    build = ["build", model, "--weights", weights, "--pack", str(pack), "-o", str(bundle)]
    assert run.invoke(main, build).exit_code == 0
    model_ = edgeco.load(bundle)
    right = 0
    with model_.stream() as stream:
        for recording, label in zip(recordings, classes, strict=True):
            stream.reset()
            result_ = [stream.step(frame) for frame in recording][-1]
            right += result_.top(1)[0].label == ("slow", "middle", "fast")[label]
    assert right / len(classes) >= 0.9
    refused = run.invoke(main, [*adapt, "--rank", "1.5"])
    assert refused.exit_code == 2 and "rank" in refused.output + (refused.stderr or "")


def test_a_run_that_is_stopped_says_how_to_go_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import contextlib

    import edgeco.show.adapt as front

    asked = iter([False] * 5)
    monkeypatch.setattr(front, "stop_on_signal", lambda: contextlib.nullcontext(lambda: next(asked, True)))
    torch.manual_seed(0)
    import numpy as np

    recordings, classes = swings()
    np.savez(tmp_path / "swings.npz", x=recordings, y=classes, labels=np.array(["slow", "middle", "fast"]))
    command = [
        "adapt", f"{folder / 'net.py'}:make", str(tmp_path / "swings.npz"), "-o", str(tmp_path / "t.safetensors"),
        "--weights", str(folder / "base.safetensors"), "--steps", "12", "--torch-device", "cpu",
    ]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 130 and "--resume" in result.output + (result.stderr or "")
    assert (tmp_path / "t.safetensors.checkpoint").exists() and not (tmp_path / "t.safetensors").exists()
    monkeypatch.undo()
    assert CliRunner().invoke(main, [*command, "--resume"]).exit_code == 0
    assert (tmp_path / "t.safetensors").exists() and not (tmp_path / "t.safetensors.checkpoint").exists()

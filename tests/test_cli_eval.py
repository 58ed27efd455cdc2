"""``edgeco eval`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgeco.cli import main
from edgeco.models.fingertip import LABELS


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Circles of both ways, and a finger at rest: class, then sixteen places."""
    lines = []
    rng = np.random.default_rng(0)
    for i in range(24):
        label = i % 3
        turn = np.arange(16) * 2 * np.pi / 16 * (0, 1, -1)[label] + rng.uniform(0, 6)
        places = 0.07 * np.stack([np.cos(turn), np.sin(turn)], 1) + rng.normal(0, 1e-4, (16, 2))
        lines.append(",".join([str(label), *(f"{value:.6f}" for value in places.ravel())]))
    path = tmp_path_factory.mktemp("tracks") / "tracks.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "f.edgeco"
    assert run("build", "fingertip-gesture", "-o", path).exit_code == 0
    return path


def test_a_network_by_name(tracks: Path) -> None:
    ran = run("eval", "fingertip-gesture", tracks)
    assert ran.exit_code == 0, ran.output
    for text in ("clip network", "step network", "counter-clockwise", "By frames seen", "24 cases"):
        assert text in ran.output


def test_json_of_a_network_with_its_bundle(tracks: Path, bundle: Path) -> None:
    ran = run("eval", "fingertip-gesture", tracks, "--bundle", bundle, "--json", "--cases", 12)
    told = json.loads(ran.stdout)
    assert told["cases"] == 12 and told["labels"] == list(LABELS) and told["agreement"] == 1.0
    assert told["clip"]["accuracy"] == told["step"]["accuracy"] >= 0.9 and told["difference"] < 1e-4
    assert [point["frames"] for point in told["frames_seen"]] == list(range(1, 17))
    assert told["clip"]["recall"]["move"] is None


def test_a_bundle_alone(tracks: Path, bundle: Path) -> None:
    ran = run("eval", bundle, tracks, "--json")
    told = json.loads(ran.stdout)
    assert ran.exit_code == 0 and told["clip"] is None and told["step"]["accuracy"] >= 0.9


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["{bundle}", "{tracks}", "--weights", "x.pt"], 2, "--weights is for a network that is built"),
        (["{bundle}", "nowhere"], 2, "no such file or folder"),
        (["{bundle}", "{tracks}", "--shape", "16,x"], 2, "is not a list of whole numbers"),
        (["{bundle}", "{tracks}", "--shape", "15,2"], 2, "32 values beside the class"),
        (["{bundle}", "{tracks}", "--cases", "99"], 2, "cannot be drawn from 24"),
        (["{bundle}", "{tracks}", "--precision", "int8"], 2, "int8"),
        (["nothing", "{tracks}"], 2, "is no zoo network"),
        (["none.edgeco", "{tracks}"], 5, "none.edgeco"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    arguments: list[str], code: int, told: str, tracks: Path, bundle: Path
) -> None:
    ran = run("eval", *(text.format(tracks=tracks, bundle=bundle) for text in arguments))
    assert ran.exit_code == code and told in ran.output and ran.output.count("error:") == 1


def test_data_are_looked_for_before_a_network_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeco.building.build", lambda *_: pytest.fail("it was built"))
    ran = run("eval", "fingertip-gesture", "nowhere")
    assert ran.exit_code == 2 and "nowhere: no such file or folder" in ran.output


def test_a_form_is_evaluated_as_it_runs(tracks: Path, bundle: Path, tmp_path: Path) -> None:
    """Half precision is for a GPU; INT8 runs on any processor, and its answers are not FP32's."""
    rows = tmp_path / "rows.csv"
    np.savetxt(rows, np.cumsum(np.random.default_rng(0).normal(0, 0.02, (400, 2)), 0), delimiter=",")
    small = tmp_path / "int8.edgeco"
    ran = run("build", "fingertip-gesture", "-o", small, "--precision", "int8", "--calibrate", rows)
    assert ran.exit_code == 0, ran.output
    asked = ("eval", "fingertip-gesture", tracks, "--bundle", small, "--json")
    told = json.loads(run(*asked, "--precision", "int8").stdout)
    assert "int8" in told["engine"] and told["step"]["accuracy"] >= 0.9
    assert told["difference"] > 10 * json.loads(run(*asked, "--precision", "fp32").stdout)["difference"]


def test_rows_without_stamps_are_at_the_networks_rate(tmp_path: Path) -> None:
    """A run of a slower network steps with every row of a file that does not say its rate."""
    built = tmp_path / "w.edgeco"
    assert run("build", "watch-activity", "-o", built).exit_code == 0
    rows = np.random.default_rng(0).normal(size=(40, 6))
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",")
    ran = run("run", built, "--source", tmp_path / "rows.csv", "--jsonl", tmp_path / "lines.jsonl", "--json")
    assert ran.exit_code == 0, ran.output
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert sum(line["stepped"] for line in lines) == 40 and lines[-1]["stamp"] == pytest.approx(3.9)
    stamped = "\n".join(f"{i / 30},{','.join(map(str, row))}" for i, row in enumerate(rows))
    (tmp_path / "rows.csv").write_text("t,a,b,c,d,e,f\n" + stamped)
    ran = run("run", built, "--source", tmp_path / "rows.csv", "--jsonl", tmp_path / "lines.jsonl", "--json")
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert 13 <= sum(line["stepped"] for line in lines) <= 14

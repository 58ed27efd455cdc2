"""What is run on a processor unless told: what was timed as the faster, and only where that timing holds."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from quant_nets import Mobile

import edgeco
from edgeco.building import build
from edgeco.bundle import open_bundle
from edgeco.bundle.manifest import Preference
from edgeco.calibration.calibrating import calibrate_bundle
from edgeco.calibration.speed import preferred
from edgeco.cli import main
from edgeco.engines import selection
from edgeco.export.exported import Exported
from edgeco.export.tensorrt_forms import Form

NETS = Path(__file__).resolve().parents[1] / "helpers" / "quant_nets.py"


TIMED = {"fp32": 2.0, "int8": 1.0}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of which a step took so long."""
    folder = tmp_path_factory.mktemp("preferred")
    rng = np.random.default_rng(0)
    cases = rng.standard_normal((2, 40, *Mobile.clip[:1], *Mobile.clip[2:])).astype(np.float32)
    np.savez(folder / "cases.npz", x=cases, y=np.zeros(2, np.int64))
    fields = {"model": f"{NETS}:Mobile", "clip": list(Mobile.clip), "precision": ["fp32", "int8"]}
    out = folder / "mobile.edgeco"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeco.calibration.forms.step_milliseconds", lambda forms: TIMED)
        build({**fields, "calibrate": [str(folder / "cases.npz")]}, out)
    return out


def test_the_faster_one_is_run_and_said(quick: Path) -> None:
    told = open_bundle(quick).manifest.preferred
    assert told == {"cpu": Preference(variant="int8", machine=platform.machine(), milliseconds=TIMED)}
    model = edgeco.load(quick, engine="onnxruntime")
    assert model.variant == "int8" and "the faster when they were timed" in model.why
    assert "fp32 2 ms a step, int8 1 ms a step" in model.why
    assert edgeco.load(quick, engine="onnxruntime", precision="fp16").variant == "fp32"
    assert edgeco.load(quick, engine="onnxruntime", precision="fp32").variant == "fp32"
    assert edgeco.load(quick, engine="onnxruntime", variant="fp32").variant == "fp32"


def timed(small: float) -> list[Form]:
    nothing = Exported((), (), {})
    return [Form("int8", nothing, 0.0, 0.1, False, told={"milliseconds": {"fp32": 2.0, "int8": small}})]


@pytest.mark.parametrize(("took", "variant"), [(2.1, "fp32"), (1.99, "fp32"), (1.91, "fp32"), (1.89, "int8")])
def test_what_is_not_clearly_faster_is_not_preferred(took: float, variant: str) -> None:
    assert preferred(timed(took))["cpu"].variant == variant
    assert preferred([replace(timed(took)[0], told={})]) == preferred([]) == {}


def test_another_architecture_runs_fp32_and_says_why(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection.platform, "machine", lambda: "riscv64")
    model = edgeco.load(quick, engine="onnxruntime")
    assert model.variant == "fp32" and "and this is riscv64" in model.why


def test_a_new_calibration_times_anew(quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeco.calibration.forms.step_milliseconds", lambda forms: {"fp32": 1.0, "int8": 3.0})
    ranges = open_bundle(quick).ranges()
    assert ranges is not None
    calibrate_bundle(quick, ranges, tmp_path / "again.edgeco")
    model = edgeco.load(tmp_path / "again.edgeco", engine="onnxruntime")
    assert model.variant == "fp32" and "int8 was not clearly faster" in model.why
    assert edgeco.load(tmp_path / "again.edgeco", engine="onnxruntime", precision="int8").variant == "int8"


def test_inspect_and_run_say_it(quick: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["inspect", str(quick)]).output
    assert "Run on cpu" in shown and "int8, unless another is asked for" in shown and "fp32 2 ms, int8 1 ms" in shown
    assert "2.00 times faster" in " ".join(shown.split())
    rows = tmp_path / "rows.csv"
    wide = int(np.prod([*Mobile.clip[:1], *Mobile.clip[2:]]))
    np.savetxt(rows, np.random.default_rng(1).standard_normal((30, wide)), delimiter=",")
    told = {}
    for precision in ("auto", "fp32"):
        options = ["--engine", "onnxruntime", "--precision", precision, "--fps", "0", "--jsonl"]
        ran = CliRunner().invoke(main, ["run", str(quick), "--source", str(rows), *options, str(tmp_path / precision)])
        assert ran.exit_code == 0, ran.output
        told[precision] = ran.stderr
    assert "variant int8 (the faster when" in told["auto"] and "variant" not in told["fp32"]


def test_bench_takes_the_preferred_one(quick: Path) -> None:
    options = ["--engine", "onnxruntime", "--steps", "3", "--energy", "0", "--json"]
    for asked, variant in ((["--precision", "auto"], "int8"), ([], "int8"), (["--precision", "fp32"], "fp32")):
        ran = CliRunner().invoke(main, ["bench", str(quick), *options, *asked])
        assert json.loads(ran.stdout)["variant"] == variant

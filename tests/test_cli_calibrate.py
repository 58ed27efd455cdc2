"""``edgeco calibrate``, ``edgeco inspect --ranges`` and ``edgeco build --calibrate``, as a user calls them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeco.bundle import open_bundle
from edgeco.calibration.ranges import Ranges, load_ranges
from edgeco.cli import main
from edgeco.command import one_line

pytest.importorskip("onnx", reason="calibration is of the build side")

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from builders import SensorNet, written
from bundles import write_network
from picturenet import write_picturenet

ROOT = Path(__file__).parents[1]
BARS = "pattern://bars?size=10x8&frames=6&fps=10"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_picturenet(tmp_path_factory.mktemp("bundle") / "mean.edgeco")


@pytest.fixture(scope="module")
def sensor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("bundle") / "sensor.edgeco", SensorNet(), SensorNet.clip)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def said(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("edgeco: error: ")]
    assert len(lines) == 1 and one_line(lines[0]) == lines[0]
    return lines[0]


def rows(path: Path, count: int, seed: int = 0, scale: float = 1.0) -> Path:
    text = "\n".join(",".join(f"{((i * 7 + j * 3 + seed) % 11 - 5) * scale:g}" for j in range(4)) for i in range(count))
    return written(path, text)


def test_a_bundle_is_calibrated_again_without_its_network(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "calibrated.edgeco"
    result = call("calibrate", pictures, "--source", BARS, "-o", out)
    assert result.exit_code == 0, result.output
    assert "6 of 1 stream, never reset" in result.stdout and "INT8 to" in result.stdout
    before, after = open_bundle(pictures), open_bundle(out)
    ranges = after.ranges()
    assert before.ranges() is None and ranges is not None and ranges.frames == 6 and set(ranges.histories) == {"h000"}
    kept = [name for name in before.manifest.members if name != "report.json"]
    assert {name: after.read(name) for name in kept} == {name: before.read(name) for name in kept}
    assert after.report() == {**(before.report() or {}), "calibration": (after.report() or {})["calibration"]}
    assert call("verify", out).exit_code == 0
    shown = call("inspect", "--ranges", out)
    assert shown.exit_code == 0 and "█" in shown.stdout and ranges.data in shown.stdout
    assert json.loads(call("inspect", "--ranges", "--json", out).stdout)["frames"] == 6
    assert "was not calibrated; do so with: edgeco calibrate" in said(call("inspect", "--ranges", pictures), 1)


def test_the_bundle_itself_is_written_anew_where_nothing_else_is_named(sensor: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.edgeco"
    copy.write_bytes(sensor.read_bytes())
    recordings = [rows(tmp_path / f"{name}.csv", 30, name) for name in (1, 2, 3)]
    named = [argument for path in recordings for argument in ("--source", path)]
    options = ("--method", "percentile", "--percentile", 99.5, "--streams", 2, "--frames", 25, "--reset", 20, "--json")
    told = json.loads(call("calibrate", copy, *named, *options).stdout)
    assert (told["frames"], told["streams"], told["reset"], told["method"]) == (50, 2, 20, "percentile")
    ranges = open_bundle(copy).ranges()
    assert ranges is not None and (ranges.percentile, ranges.data) == (99.5, told["data"])
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".csv"] == ["copy.edgeco"]


def test_ranges_travel_as_a_file_to_the_same_network_only(sensor: Path, pictures: Path, tmp_path: Path) -> None:
    kept = tmp_path / "ranges.json"
    assert call("calibrate", sensor, "--source", rows(tmp_path / "r.csv", 30), "-o", kept).exit_code == 0
    assert load_ranges(kept).frames == 30
    out = tmp_path / "out.edgeco"
    assert call("calibrate", sensor, "--ranges", kept, "-o", out).exit_code == 0
    assert open_bundle(out).ranges() == load_ranges(kept)
    refused = call("calibrate", pictures, "--ranges", kept, "-o", tmp_path / "foreign.edgeco")
    assert "ranges are of another network" in said(refused, 1)
    assert not (tmp_path / "foreign.edgeco").exists()


def test_what_cannot_be_done_is_said_before_anything_is_written(sensor: Path, tmp_path: Path) -> None:
    good = rows(tmp_path / "r.csv", 30)
    out = tmp_path / "out.edgeco"
    cases = (
        (("--source", rows(tmp_path / "short.csv", 4)), 1, "too short"),
        (("--source", written(tmp_path / "wide.csv", "1,2\n3,4")), 2, "takes 4 values"),
        (("--source", tmp_path / "none.csv"), 4, "no such file"),
        (("--source", good, "--reset", 2), 1, "too short"),
        (("--ranges", tmp_path / "none.json"), 1, "cannot be read"),
    )
    for arguments, code, message in cases:
        assert message in said(call("calibrate", sensor, *arguments, "-o", out), code)
    assert "would be overwritten while it is read" in said(call("calibrate", sensor, "--source", good, "-o", good), 2)
    nowhere = tmp_path / "no" / "out.edgeco"
    assert "folder does not exist" in said(call("calibrate", sensor, "--source", good, "-o", nowhere), 1)
    for arguments in ((), ("--source", good, "--ranges", good), ("--source", good, "--method", "minmax")):
        assert call("calibrate", sensor, *arguments, "-o", out).exit_code == 2
    assert not out.exists()


@pytest.mark.slow
def test_an_interrupted_calibration_goes_on_when_it_is_called_again(sensor: Path, tmp_path: Path) -> None:
    """Ctrl-C keeps what was seen; the result is that of one that was never interrupted."""
    tape, out = rows(tmp_path / "long.csv", 60_000), tmp_path / "out.json"
    command = [sys.executable, "-m", "edgeco.cli", "calibrate", str(sensor), "--source", str(tape), "-o", str(out)]
    with subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()  # the first line of progress: frames have been taken
        assert "stream 1 of 1, long.csv: frame" in line
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130 and "the same command goes on from there" in rest
    assert not out.exists() and (tmp_path / "out.json.calibrating").exists()
    resumed = subprocess.run([*command, "--frames", "1"], capture_output=True, text=True, check=False)
    assert resumed.returncode == 1 and "other options" in resumed.stderr
    began = time.monotonic()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert time.monotonic() - began < 300
    whole = tmp_path / "whole.json"
    assert call("calibrate", sensor, "--source", tape, "-o", whole).exit_code == 0
    assert out.read_bytes() == whole.read_bytes() and not (tmp_path / "out.json.calibrating").exists()


NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 5, 2), nn.AdaptiveAvgPool1d(1), nn.Flatten())

make.clip = (4, 10)
"""


DEEPER = NET.replace("8", "32").replace("nn.ReLU(), ", "nn.ReLU(), nn.Conv1d(32, 32, 3), nn.ReLU(), ")


def test_a_build_calibrates_before_it_writes(tmp_path: Path) -> None:
    net, tape = written(tmp_path / "net.py", NET), rows(tmp_path / "tape.csv", 40)
    out = tmp_path / "net.edgeco"
    result = call("build", f"{net}:make", "-o", out, "--calibrate", tape, "--calibration-method", "mse")
    assert result.exit_code == 0, result.output
    assert "40 of 1 stream" in result.stdout and "Ranges of histories" in result.stdout
    bundle = open_bundle(out)
    ranges, report = bundle.ranges(), bundle.report()
    assert ranges is not None and ranges.method == "mse" and report is not None
    assert bundle.manifest.provenance["spec"]["calibrate"] == ["tape.csv"], "without the folders of the workstation"
    assert report["calibration"]["data"] == ranges.data and report["calibration"]["half"]["beyond"] == []
    assert "Calibration" in call("inspect", out).stdout
    again = tmp_path / "again.json"
    options = ("--source", tape, "--method", "mse", "-o", again)
    assert call("calibrate", out, *options).exit_code == 0
    assert load_ranges(again) == ranges, "the bundle's own graph gives what the build found"


def test_int8_is_built_verified_and_made_again_from_new_ranges(tmp_path: Path) -> None:
    net, tape = written(tmp_path / "net.py", NET.replace("8", "32")), rows(tmp_path / "tape.csv", 300)
    out = tmp_path / "net.edgeco"
    result = call("build", f"{net}:make", "-o", out, "--calibrate", tape, "--precision", "int8")
    assert result.exit_code == 0, result.output
    first = open_bundle(out)
    assert set(first.manifest.variants) == {"fp32", "int8"} and "from FP32 relative" in result.stdout
    assert call("verify", out).exit_code == 0
    report = first.report()
    assert report is not None and set(report["forms"]) == {"int8"} == set(report["drifts"])
    other = rows(tmp_path / "other.csv", 300, scale=1.7)
    result = call("calibrate", out, "--source", other, "--method", "entropy")
    assert result.exit_code == 0 and "int8: " in result.stdout, result.output
    second = open_bundle(out)
    assert set(second.manifest.members) == set(first.manifest.members)
    member = second.manifest.variants["int8"].graphs[0]
    assert second.read(member) != first.read(member), "the form rests on the new ranges"
    assert second.read("weights.safetensors") == first.read("weights.safetensors")
    assert call("verify", out).exit_code == 0


def test_int8_is_added_to_a_bundle_and_leaves_alone_what_it_is_told_to(tmp_path: Path) -> None:
    net, tape = written(tmp_path / "net.py", NET.replace("8", "32")), rows(tmp_path / "tape.csv", 300)
    plain, out = tmp_path / "net.edgeco", tmp_path / "int8.edgeco"
    assert call("build", f"{net}:make", "-o", plain).exit_code == 0
    options = ("--source", tape, "--precision", "int8", "--keep-float", "h000", "-o", out)
    result = call("calibrate", plain, *options)
    assert result.exit_code == 0, result.output
    variant = open_bundle(out).manifest.variants["int8"]
    assert variant.histories and "h000" not in variant.histories
    assert set(open_bundle(plain).manifest.variants) == {"fp32"}


def test_a_budget_is_kept_by_leaving_in_float_what_costs_most(tmp_path: Path) -> None:
    shipped = ROOT / "edgeco" / "models" / "bundles" / "camera-motion.edgeco"
    ranges, out = tmp_path / "ranges.json", tmp_path / "int8.edgeco"
    scene = ("--source", "pattern://motion?size=64x48&fps=12.5", "--fps", 0, "--frames", 80)
    assert call("calibrate", shipped, *scene, "-o", ranges).exit_code == 0
    asked = ("calibrate", shipped, "--ranges", ranges, "--precision", "int8", "-o", out)
    told = json.loads(call(*asked, "--json", "--sensitivity").stdout)
    costs = [(one["error"], one["gain"], one["name"]) for one in told["sensitivities"]]
    assert costs[0][1] > 0 and [one[0] for one in costs] == sorted(one[0] for one in costs) and not told["kept_float"]
    result = call(*asked, "--budget", f"{costs[0][0] * 1.001:g}")
    assert f"left in float to keep the budget: {costs[0][2]}" in result.stdout, result.output
    out.unlink()
    assert "and the budget is 1e-09" in said(call(*asked, "--budget", "1e-9"), 1)
    assert "give a mean relative error above 0" in said(call(*asked, "--budget", "2"), 2)
    assert "are of INT8; add --precision int8" in said(call(*asked[:4], "-o", out, "--sensitivity"), 2)
    assert not out.exists()


def test_what_was_left_in_float_stays_so_until_it_is_forgotten(tmp_path: Path) -> None:
    """What ``--keep-float`` and a budget chose is in the bundle, and a calibration afresh leaves it alone as well."""
    net, tape = written(tmp_path / "net.py", DEEPER), rows(tmp_path / "tape.csv", 300)
    out = tmp_path / "net.edgeco"
    asked = ("--calibrate", tape, "--precision", "int8", "--keep-float", "h001")
    result = call("build", f"{net}:make", "-o", out, *asked, "--float-budget", 1e-9)
    assert result.exit_code == 0, result.output
    first = open_bundle(out).report()
    assert first is not None
    kept = first["forms"]["int8"]["kept_float"]
    assert "h001" in kept and len(kept) > 1, "asked for, and chosen for the budget"
    result = call("calibrate", out, "--source", tape, "--method", "mse")
    assert result.exit_code == 0, result.output
    told = f"left in float as asked, now or before: {', '.join(sorted(kept))}; --forget-float ends it"
    assert told in one_line(result.stdout)
    again = open_bundle(out).report()
    assert again is not None and again["forms"]["int8"]["kept_float"] == kept
    assert "h001" not in open_bundle(out).manifest.variants["int8"].histories
    result = call("calibrate", out, "--source", tape, "--forget-float")
    assert result.exit_code == 0 and "left in float" not in result.output, result.output
    assert "h001" in open_bundle(out).manifest.variants["int8"].histories


def test_a_build_keeps_its_float_budget(tmp_path: Path) -> None:
    """``--float-budget`` leaves nothing in float where INT8 is within it, and something where it is not."""
    net, tape = written(tmp_path / "net.py", NET.replace("8", "32")), rows(tmp_path / "tape.csv", 300)
    out = tmp_path / "net.edgeco"
    asked = ("build", f"{net}:make", "-o", out, "--calibrate", tape, "--precision", "int8", "--float-budget")
    kept, errors = [], []
    for budget in (0.9, 1e-9):
        result = call(*asked, budget)
        assert result.exit_code == 0, result.output
        report = open_bundle(out).report()
        assert report is not None
        kept.append(report["forms"]["int8"]["kept_float"])
        errors.append(report["forms"]["int8"]["drift"][0]["mean_error"])
    assert kept[0] == [] and kept[1] and errors[1] < 1e-5 < errors[0]
    assert "float_budget" in said(call(*asked, 0), 2)


def test_the_least_cosine_of_a_form_can_be_set(tmp_path: Path) -> None:
    net, tape = written(tmp_path / "net.py", NET.replace("8", "32")), rows(tmp_path / "tape.csv", 300)
    out = tmp_path / "net.edgeco"
    asked = ("--calibrate", tape, "--precision", "int8", "--least-cosine")
    assert "below 1. " in said(call("build", f"{net}:make", "-o", out, *asked, 1), 1) and not out.exists()
    assert call("build", f"{net}:make", "-o", out, *asked, 0.9).exit_code == 0
    assert "below 1. " in said(call("calibrate", out, "--source", tape, "--least-cosine", 1), 1)


def test_fp16_keeps_in_fp32_what_was_seen_beyond_it(tmp_path: Path) -> None:
    """A network whose first layer reaches far beyond 65504, and comes back."""
    text = NET.replace("nn.ReLU(), nn.Conv1d(8", "Scale(1e6), nn.ReLU(), Scale(1e-6), nn.Conv1d(8")
    scale = "class Scale(nn.Module):\n    def __init__(self, by):\n        super().__init__()\n        self.by = by\n"
    scale += "    def forward(self, x):\n        return x * self.by\n\n"
    net = written(tmp_path / "net.py", text.replace("def make", scale + "def make"))
    tape, out = rows(tmp_path / "tape.csv", 60), tmp_path / "net.edgeco"
    result = call("build", f"{net}:make", "-o", out, "--calibrate", tape, "--precision", "fp16")
    assert result.exit_code == 0, result.output
    bundle = open_bundle(out)
    report = bundle.report()
    assert report is not None and report["calibration"]["half"]["beyond"] and "cannot hold" in result.stdout
    assert {"trt-fp32", "trt-fp16"} <= set(bundle.manifest.variants) and report["drifts"]["trt-fp16"] < 0.01
    refused = call("build", f"{net}:make", "-o", out, "--precision", "fp16")
    assert "trt-fp16 differs from FP32" in said(refused, 1), "without a calibration nobody knows what to keep"


def test_fp16_is_written_anew_where_new_ranges_reach_beyond_it(tmp_path: Path) -> None:
    """A bundle built on quiet recordings meets loud ones: what FP16 cannot hold now stays in FP32."""
    net = written(tmp_path / "net.py", NET)
    quiet, loud = rows(tmp_path / "quiet.csv", 60), rows(tmp_path / "loud.csv", 60, scale=1e5)
    out = tmp_path / "net.edgeco"
    assert call("build", f"{net}:make", "-o", out, "--calibrate", quiet, "--precision", "fp16").exit_code == 0
    before = open_bundle(out)
    assert call("calibrate", out, "--source", quiet, "--method", "mse").exit_code == 0
    same = open_bundle(out)
    assert call("calibrate", out, "--source", loud).exit_code == 0
    after = open_bundle(out)
    member = before.manifest.variants["trt-fp16"].graphs[0]
    assert before.read(member) == same.read(member) != after.read(member)
    report = after.report()
    assert report is not None and report["calibration"]["half"]["beyond"]


def test_wishes_that_cannot_be_met_are_told_before_anything_is_read(sensor: Path, tmp_path: Path) -> None:
    tape, out, ranges = rows(tmp_path / "r.csv", 30), tmp_path / "out.edgeco", tmp_path / "out.json"
    read = ("calibrate", sensor, "--source", tape)
    for arguments, message in (
        ((*read, "--precision", "int8", "--keep-float", "h00O", "-o", out), "no layer or history 'h00O' .* as in h00"),
        ((*read, "--keep-float", "h000", "-o", out), "are of INT8; add --precision int8"),
        ((*read, "--precision", "int8", "--budget", "7", "-o", out), "give a mean relative error above 0"),
        ((*read, "--precision", "int8", "-o", ranges), "holds ranges and no form"),
        (("calibrate", sensor, "--source", "", "-o", out), "A source has no name"),
        ((*read, "--shape", "3,x", "-o", out), "not a list of whole numbers"),
    ):
        assert re.search(message, said(call(*arguments), 2))
        assert [path.name for path in tmp_path.iterdir()] == ["r.csv"], "no half-made file, no interrupted calibration"
    assert call(*read, "-o", ranges).exit_code == 0
    refused = call("calibrate", sensor, "--ranges", ranges, "--frames", 3, "-o", out)
    assert refused.exit_code == 2 and "--frames is of what is read from --source" in refused.stderr


def test_cases_in_the_lines_of_a_csv_are_streams(sensor: Path, tmp_path: Path) -> None:
    lines = (f"{case % 2}," + ",".join(f"{(case * 7 + j) % 11 - 5}" for j in range(80)) for case in range(6))
    tape, out = written(tmp_path / "cases.csv", "\n".join(lines)), tmp_path / "r.json"
    told = json.loads(call("calibrate", sensor, "--source", tape, "--shape", "20,4", "-o", out, "--json").stdout)
    assert (told["frames"], told["streams"]) == (120, 6)


def test_int8_is_not_built_on_nothing(tmp_path: Path) -> None:
    net = written(tmp_path / "net.py", NET)
    out = tmp_path / "net.edgeco"
    tape = rows(tmp_path / "tape.csv", 40)
    named = call("build", f"{net}:make", "-o", out, "--calibrate", tape, "--precision", "int8", "--keep-float", "none")
    assert "no layer or history 'none'" in said(named, 2)
    assert "name recordings to calibrate on with --calibrate" in said(
        call("build", f"{net}:make", "-o", out, "--precision", "int8"), 2
    )
    assert not out.exists()


def test_calibration_loads_no_torch(sensor: Path, tmp_path: Path) -> None:
    """It works on the exported graphs, and starts as fast as they are read."""
    tape = rows(tmp_path / "r.csv", 30)
    code = (
        "import sys\nfrom edgeco.cli import main\n"
        f"try: main(['calibrate', {str(sensor)!r}, '--source', {str(tape)!r}, '-o', {str(tmp_path / 'o.json')!r}])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
    assert isinstance(load_ranges(tmp_path / "o.json"), Ranges)


def test_the_commands_defaults_are_the_librarys() -> None:
    """Spelled out in the command, which must not import the build side to tell its help."""
    from edgeco.calibration.drift import LEAST_COSINE
    from edgeco.calibration.methods import METHOD, PERCENTILE
    from edgeco.cli.calibrate import calibrate

    given = {option.name: option.default for option in calibrate.params}
    assert (given["method"], given["percentile"], given["least_cosine"]) == (METHOD, PERCENTILE, LEAST_COSINE)

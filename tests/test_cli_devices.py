"""The commands about devices: ``devices`` and ``doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeco.cli import main
from edgeco.devices import doctor as library
from edgeco.devices.catalogue import profiles
from edgeco.devices.child import Outcome


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_devices() -> None:
    result = call("devices")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "This device" in result.stdout and "jetson-orin-nano-8gb" in result.stdout
    facts = json.loads(call("devices", "--json").stdout)
    assert [entry["name"] for entry in facts["devices"]] == [profile.name for profile in profiles()]
    assert facts["this"]["threads"] >= 1


def test_one_device() -> None:
    result = call("devices", "Orin NX")
    assert result.exit_code == 0 and "Jetson Orin NX 16 GB" in result.stdout
    facts = json.loads(call("devices", "thor", "--json").stdout)
    assert facts["name"] == "jetson-thor-t5000" and facts["rates"]["fp16"]["basis"] == "derived"


def test_an_unknown_device_is_2() -> None:
    result = call("devices", "jetson-orin-nanno")
    assert result.exit_code == 2
    assert "There is no device 'jetson-orin-nanno'; did you mean jetson-orin-nano" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_doctor_on_this_machine() -> None:
    """The tests run here, so numpy and ONNX Runtime at least are well."""
    result = call("doctor", "--json")
    facts = json.loads(result.stdout)
    states = {finding["subject"]: finding["state"] for finding in facts["findings"]}
    assert states["numpy"] == "well" and states["ONNX Runtime"] in ("well", "note")
    assert result.exit_code == (0 if facts["passed"] else 4)


def test_doctor_ends_with_4_where_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Outcome({"present": True}, "it crashes (SIGSEGV)")
    monkeypatch.setattr(library, "run_probe", lambda name: broken if name == "cv2" else Outcome({"present": False}))
    result = call("doctor")
    assert result.exit_code == 4
    assert "it crashes (SIGSEGV)" in result.stdout and "→" in result.stdout
    assert result.stderr.startswith("edgeco: error: something is wrong with ") and "OpenCV" in result.stderr
    as_json = call("doctor", "--json")
    assert as_json.exit_code == 4 and json.loads(as_json.stdout)["passed"] is False


SHIPPED = str(Path(__file__).parents[1] / "edgeco" / "models" / "bundles" / "camera-motion.edgeco")


class TestEstimate:
    def test_the_shipped_network_on_a_board_that_is_not_here(self) -> None:
        result = call("bench", SHIPPED, "--estimate", "--device", "orin-nano", "--streams", "4")
        assert (result.exit_code, result.stderr) == (0, "")
        shown = " ".join(result.stdout.split())
        assert "camera_motion on jetson-orin-nano-8gb: floor of a step" in shown
        for part in ("fp32 1", "fp16 4", "int8 2", "Dearest of", "Assumed", "68 GB/s (stated by the vendor)"):
            assert part in shown, part

    def test_json(self) -> None:
        given = ("bench", SHIPPED, "--estimate", "--device", "thor", "--streams", "8", "--launch", "5", "--json")
        facts = json.loads(call(*given).stdout)
        assert facts["launch"] == pytest.approx(5e-6)
        assert [f["streams"] for f in facts["floors"] if f["precision"] == "fp16"] == [1, 2, 4, 8]
        assert sum(kernel["macs"] for kernel in facts["kernels"]["fp16"]) == 5_315_072

    def test_a_device_alone_is_a_usage_error(self) -> None:
        result = call("bench", SHIPPED, "--device", "thor")
        assert result.exit_code == 2 and "--device is for --estimate" in result.stderr

    @pytest.mark.parametrize("name", ["xavier", "cpu", "none-such"])
    def test_what_cannot_be_estimated_is_one_sentence(self, name: str) -> None:
        result = call("bench", SHIPPED, "--estimate", "--device", name)
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1


def test_building_for_a_device_that_cannot_be_served(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="building needs torch")
    result = call("build", "camera-motion", "-o", str(tmp_path / "net.edgeco"), "--device", "tx2")
    assert result.exit_code == 2 and "Nothing can be built for Jetson TX2" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())

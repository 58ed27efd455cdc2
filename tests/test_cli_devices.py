"""The commands about devices: ``devices`` and ``doctor``."""

from __future__ import annotations

import json

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

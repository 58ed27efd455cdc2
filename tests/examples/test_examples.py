"""Every example does what its README says, on the shipped network and a scene whose camera motion is known."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from running import EXAMPLES, MOTION, NETWORK, run, start


def test_every_example_is_run_here_and_explained() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for folder in sorted(EXAMPLES.iterdir()):
        assert re.fullmatch(r"\d\d_[a-z_]+", folder.name), f"{folder.name} is not of the form NN_name"
        assert f'"{folder.name}' in tests, f"{folder.name} is run by no test"
        assert (folder / "README.md").read_text(encoding="utf-8").count("```") == 2
        named = set(re.findall(r"\w+\.py", (folder / "README.md").read_text(encoding="utf-8")))
        assert named == {path.name for path in folder.glob("*.py")}


def test_robot_loop_of_15_lines() -> None:
    said = run("01_robot_loop/robot.py", str(NETWORK), MOTION).splitlines()
    assert [line.split(": ")[1] for line in said] == ["still", "pan left", "zoom in"]
    lines = (EXAMPLES / "01_robot_loop/robot.py").read_text().splitlines()
    assert sum(bool(line) for line in lines) <= 15


def test_a_robot_with_a_faster_camera_looks_back_as_long() -> None:
    """13 frames at the network's 12.5 per second are 26 of a camera that gives 25."""
    faster = MOTION.replace("fps=12.5", "fps=25").replace(":20", ":40")
    said = run("01_robot_loop/robot.py", str(NETWORK), faster).splitlines()
    assert float(said[0].split(" s: ")[0]) >= 13 / 12.5


def test_two_cameras() -> None:
    other = MOTION.replace("pan-left:20", "tilt-up:30")
    said = run("02_two_cameras/two_cameras.py", str(NETWORK), MOTION, other).splitlines()
    alone = [run("02_two_cameras/two_cameras.py", str(NETWORK), uri).splitlines() for uri in (MOTION, other)]
    for camera in (0, 1):
        mine = [line.split(", ", 1)[1] for line in said if line.startswith(f"camera {camera},")]
        assert mine == [line.split(", ", 1)[1] for line in alone[camera]]
    assert Counter(line[:8] for line in said) == {"camera 0": 60 - 13, "camera 1": 70 - 13}


def test_cameras_of_unequal_rates_are_stepped_at_the_networks() -> None:
    faster = MOTION.replace("fps=12.5", "fps=25")
    said = run("02_two_cameras/two_cameras.py", str(NETWORK), MOTION, faster).splitlines()
    assert Counter(line[:8] for line in said) == {"camera 0": 60 - 13, "camera 1": 30 - 13}


def test_a_camera_that_ends_is_a_failure_too() -> None:
    """A live source has no end of its own."""
    ends = "pattern://motion?size=64x48&fps=50&script=still:5&live=1"
    endless = MOTION.replace("zoom-in:20", "zoom-in:1000000")
    process = start("02_two_cameras/two_cameras.py", str(NETWORK), endless, ends)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (1, f"camera 1 ended ({ends})\n")


def test_a_camera_that_fails_ends_them_all_with_its_sentence() -> None:
    process = start("02_two_cameras/two_cameras.py", str(NETWORK), MOTION, "absent.mp4")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("absent.mp4: no such file") and "Traceback" not in errors


def test_a_stream_goes_on_after_a_stop(tmp_path: Path) -> None:
    arguments = (str(NETWORK), MOTION.replace("still:20", "still:2000"), str(tmp_path / "state.snapshot"))
    process = start("03_restart/resumable.py", *arguments)
    assert process.stdout is not None
    for _ in range(17):
        process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()  # communicate() would lose what readline() has read ahead
    assert (process.wait(60), process.stderr.read() if process.stderr else "") == (0, "")
    process = start("03_restart/resumable.py", *arguments, OLDEST="600")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.kill()
    process.communicate()
    assert first["index"] == 17 + len(rest.splitlines()), "the next frame follows the last"
    assert first["valid"], "without its past the network would say nothing"


def test_answers_after_a_restart_are_those_without_one(tmp_path: Path) -> None:
    """The snapshot taken every 50 frames is what a power cut leaves behind."""
    state = tmp_path / "state.snapshot"
    whole = run("03_restart/resumable.py", str(NETWORK), MOTION, str(state)).splitlines()
    rest = run("03_restart/resumable.py", str(NETWORK), MOTION, str(state), OLDEST="600").splitlines()
    assert rest == whole[50:]
    assert run("03_restart/resumable.py", str(NETWORK), MOTION, str(state), OLDEST="0").splitlines() == whole
    state.write_bytes(b"another network's")
    assert run("03_restart/resumable.py", str(NETWORK), MOTION, str(state), OLDEST="600").splitlines() == whole


def test_the_unit_file_is_one_that_systemd_takes() -> None:
    path = EXAMPLES / "04_systemd" / "edgeco-camera.service"
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(path)
    service = unit["Service"]
    assert service["Type"] == "notify" and service["Restart"] == "always"
    assert int(service["WatchdogSec"]) < int(service["TimeoutStartSec"])
    if shutil.which("systemd-analyze"):
        ran = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
        complaints = [line for line in ran.stderr.splitlines() if path.name in line and "not executable" not in line]
        assert not complaints


@pytest.mark.parametrize("name", ["01_robot_loop", "02_two_cameras", "03_restart", "04_systemd"])
def test_examples_use_public_names_only(name: str) -> None:
    for path in (EXAMPLES / name).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"edgeco\.\w+\._|import _|stream\._|model\._", text)

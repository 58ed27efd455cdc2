"""The bench report: every figure there, and plausible."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest
from picturenet import write_picturenet
from stepnets import mixed, write_stepnet

from edgeco.devices.telemetry import Telemetry
from edgeco.engines.session import Session
from edgeco.errors import SpecError
from edgeco.runtime.bench import bench
from edgeco.runtime.model import load

NET = mixed(valid_from=3, receptive_field=6)


@pytest.mark.parametrize("rows", [1, 3])
def test_every_figure_is_there(tmp_path: Path, rows: int) -> None:
    path = write_stepnet(tmp_path / "net.edgeco", NET)
    report = bench(path, threads=1, rows=rows, steps=50, warm_up=5)
    assert report.telemetry.unavailable == {"telemetry": "it was not asked for"}
    assert (report.engine, report.variant, report.threads, report.rows, report.steps) == (
        "onnxruntime",
        "fp32",
        1,
        rows,
        50,
    )
    for summary in (report.step, report.run):
        assert summary.count == 50
        assert 0 < summary.p50 <= summary.p90 <= summary.p99 <= summary.max < 10
        assert 0 < summary.mean <= summary.max
    assert report.load > 0
    assert report.first_step > 0
    # Whole step and engine alone are neighbours in time: the difference is what a stream adds.
    assert 0 < report.overhead < report.step.max
    assert report.run.p50 < report.step.p50
    assert report.step_macs == 100
    assert report.macs_per_second == pytest.approx(100 * rows / report.step.p50)
    with load(path, threads=1).stream(rows) as stream:
        assert report.state_bytes == stream.state_bytes
    assert report.peak_rss is None or report.peak_rss > 2**20
    assert json.loads(json.dumps(report.to_json()))["step"]["p99"] == report.step.p99


def test_the_engine_alone_goes_through_all_phases(tmp_path: Path) -> None:
    with mock.patch("edgeco.runtime.bench.Session.advance", autospec=True, side_effect=Session.advance) as advance:
        bench(write_stepnet(tmp_path / "net.edgeco", NET), threads=1, steps=20, warm_up=3)
    assert [call.args[0].steps for call in advance.call_args_list[-2:]] == [24, 23]


def test_pictures_too(tmp_path: Path) -> None:
    assert bench(write_picturenet(tmp_path / "pictures.edgeco"), threads=1, steps=3, warm_up=0, rows=2).steps == 3


class Watts:
    """A sensor that always says ten watts."""

    name, covers = "stand-in", "board"

    def watts(self) -> float:
        return 10.0

    def joules(self) -> None:
        return None


@pytest.mark.parametrize("rows", [1, 3])
def test_energy_of_a_frame(tmp_path: Path, rows: int) -> None:
    path = write_stepnet(tmp_path / "net.edgeco", NET)
    report = bench(path, threads=1, rows=rows, steps=5, warm_up=0, energy=0.1, telemetry=Telemetry([Watts()]))
    found = report.telemetry
    (sensor,) = found.sensors
    assert found.frames is not None and found.frames > rows and found.frames % rows == 0
    assert sensor.watts == pytest.approx(10.0) and sensor.idle_watts == pytest.approx(10.0)
    assert sensor.joules is not None and sensor.per_frame == pytest.approx(sensor.joules / found.frames)
    assert sensor.above_idle_per_frame == pytest.approx(0.0, abs=1e-9)


def test_energy_without_a_sensor_is_unavailable_and_takes_no_time(tmp_path: Path) -> None:
    path = write_stepnet(tmp_path / "net.edgeco", NET)
    report = bench(path, threads=1, steps=5, warm_up=0, energy=3600.0, telemetry=Telemetry([]))
    assert report.telemetry.sensors == () and "no power sensor" in report.telemetry.unavailable["power"]
    assert json.loads(json.dumps(report.to_json()))["telemetry"]["unavailable"]["power"]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"warm_up": -1}, {"rows": 0}, {"variant": "none"}])
def test_nothing_to_measure_is_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(SpecError):
        bench(write_stepnet(tmp_path / "net.edgeco", NET), threads=1, **wrong)

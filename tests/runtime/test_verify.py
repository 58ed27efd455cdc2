"""Verification by golden frames."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save
from stepnets import StepNet, members, mixed, write_stepnet

from edgeco.bundle import open_bundle
from edgeco.errors import CheckFailed, EngineError, SpecError
from edgeco.runtime.verify import VariantCheck, VerifyFailed, VerifyReport, relative_difference, verify

NET = mixed(valid_from=3, receptive_field=6)


def golden(**changes: np.ndarray) -> bytes:
    tensors = load_tensors(members(NET)["golden.safetensors"])
    return save({**tensors, **changes})


def test_a_sound_bundle_verifies(tmp_path: Path) -> None:
    path = write_stepnet(tmp_path / "net.edgeco", NET)
    report = verify(path, threads=1)
    assert report.passed
    (check,) = report.variants
    assert (check.variant, check.engine, check.passed, check.skipped) == ("fp32", "onnxruntime", True, None)
    assert [(output.output, output.difference, output.worst_step) for output in check.outputs] == [
        (f"y{number}", 0.0, None) for number in range(5)
    ]
    assert report.steps == NET.manifest.golden.steps
    assert report.sha256 == open_bundle(path).sha256
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["passed"] is True
    assert verify(open_bundle(path), threads=1) == report


def test_a_difference_is_found_where_it_is(tmp_path: Path) -> None:
    answers = NET.oracle(NET.frames(NET.manifest.golden.steps))["y3"]
    answers[9, 0, 1, 0] += np.abs(answers[3:]).max() / 4
    scale = np.abs(answers[3:]).max()
    path = write_stepnet(tmp_path / "net.edgeco", NET, golden=golden(**{"answer.y3": answers}))
    with pytest.raises(VerifyFailed, match=r"output 'y3' at step 9, and 1e-05 is allowed") as caught:
        verify(path, threads=1)
    assert isinstance(caught.value, CheckFailed)
    report = caught.value.report
    assert not report.passed
    worst = report.variants[0].outputs[3]
    assert worst.worst_step == 9
    assert worst.difference == pytest.approx(float(scale / 5 / scale), rel=0.3)
    assert [output.difference for output in report.variants[0].outputs if output.output != "y3"] == [0.0] * 4


def test_answers_before_the_first_valid_one_do_not_count(tmp_path: Path) -> None:
    answers = NET.oracle(NET.frames(NET.manifest.golden.steps))["y0"]
    answers[:3] = 1e6
    assert verify(
        write_stepnet(tmp_path / "net.edgeco", NET, golden=golden(**{"answer.y0": answers})), threads=1
    ).passed


def test_a_nan_where_none_belongs_fails(tmp_path: Path) -> None:
    answers = NET.oracle(NET.frames(NET.manifest.golden.steps))["y0"]
    answers[7, 0, 0, 0] = math.nan
    path = write_stepnet(tmp_path / "net.edgeco", NET, golden=golden(**{"answer.y0": answers}))
    with pytest.raises(VerifyFailed) as caught:
        verify(path, threads=1)
    assert math.isinf(caught.value.report.variants[0].outputs[0].difference)
    record = json.loads(json.dumps(caught.value.report.to_json(), allow_nan=False))
    assert record["variants"][0]["outputs"][0] == {"output": "y0", "difference": None, "worst_step": 7}


def broken(net: StepNet) -> StepNet:
    """A second variant whose graph no engine takes."""
    variants = {
        **net.manifest.variants,
        "odd": msgspec.structs.replace(net.manifest.variants["fp32"], graphs=("graphs/odd.onnx",)),
    }
    return StepNet(msgspec.structs.replace(net.manifest, variants=variants), net.model)


def write_broken(path: Path) -> Path:
    from edgeco.bundle import write_bundle

    net = broken(NET)
    contents = members(net)
    odd = contents["graphs/fp32.onnx"].replace(b"Reshape", b"Nothing", 1)
    write_bundle(path, net.manifest, {**contents, "graphs/odd.onnx": odd})
    return path


def test_a_variant_the_engine_cannot_run_is_skipped_with_its_reason(tmp_path: Path) -> None:
    report = verify(write_broken(tmp_path / "net.edgeco"), threads=1)
    assert report.passed
    assert [check.variant for check in report.variants] == ["fp32", "odd"]
    assert "refuses the graph" in (report.variants[1].skipped or "")
    assert not report.variants[1].passed


def test_nothing_to_run_is_no_success(tmp_path: Path) -> None:
    path = write_broken(tmp_path / "net.edgeco")
    with pytest.raises(EngineError, match=r"no variant of .* can be run here"):
        verify(path, threads=1, variants=["odd"])
    with pytest.raises(EngineError, match="none was named"):
        verify(path, threads=1, variants=[])
    with pytest.raises(SpecError, match="no variant 'int8'"):
        verify(path, threads=1, variants=["int8"])


def test_a_report_of_nothing_is_not_passed() -> None:
    skipped = VariantCheck("fp32", "onnxruntime", 1e-5, skipped="no engine")
    assert not VerifyReport("net.edgeco", "0", 4, (skipped,)).passed
    assert not VerifyReport("net.edgeco", "0", 4, ()).passed
    assert VerifyReport("net.edgeco", "0", 4, (skipped, VariantCheck("half", "onnxruntime", 1e-3))).passed


def test_relative_difference() -> None:
    golden_answers = np.array([[1.0, -4.0], [2.0, 0.0]], np.float32)
    assert relative_difference(golden_answers, golden_answers) == (0.0, None)
    given = golden_answers.copy()
    given[1, 0] += 1
    assert relative_difference(given, golden_answers) == (0.25, 1)
    both = np.array([[math.inf, math.nan]])
    assert relative_difference(both, both) == (0.0, None)
    assert relative_difference(-both, both) == (math.inf, 0)
    assert relative_difference(np.ones((1, 1)), np.zeros((1, 1))) == (math.inf, 0)
    assert relative_difference(np.ones((0, 1)), np.zeros((0, 1))) == (0.0, None)

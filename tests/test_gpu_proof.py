"""The GPU proof runs from end to end where there is only a fake GPU; its figures mean nothing there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HELPERS = Path(__file__).parent / "helpers"
FAKES = os.pathsep.join([str(HELPERS / "fake_gpu"), str(HELPERS / "fake_cuda"), os.environ.get("PYTHONPATH", "")])

WITHOUT_TORCH = """
import importlib.util, runpy, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "torch" else real(name, *more)
sys.modules["torch"] = None
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script as a Python without torch would."""


def run(*arguments: str, folder: Path, torch: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGECO_CACHE": str(folder / "cache"), **more}
    script = [str(ROOT / "benchmarks" / "gpu_proof.py"), "--bundles", str(folder), *arguments]
    command = [sys.executable, *([] if torch else ["-c", WITHOUT_TORCH]), *script]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part that needs torch, and no GPU."""
    pytest.importorskip("torch", reason="bundles are built here")
    folder = tmp_path_factory.mktemp("proof")
    ran = run("--prepare", "--networks", "camera-motion", folder=folder)
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in folder.iterdir()} == {
        "camera-motion.edgeco", "camera-motion.trt-fp32.stacked.onnx", "camera-motion.trt-fp16.stacked.onnx"
    }  # fmt: skip
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("version", ["8.6.1", "10.16.1.11"])
@pytest.mark.parametrize("package", ["cuda.bindings", "pycuda"])
def test_it_proves_prepared_networks_without_torch(prepared: Path, version: str, package: str) -> None:
    ran = run(
        "--networks", "camera-motion", "--rows", "1", "2", "--tactic", "JIT_CONVOLUTIONS", folder=prepared,
        torch=False, PYTHONPATH=FAKES, EDGECO_FAKE_TRT=version, EDGECO_CUDA=package,
    )  # fmt: skip
    assert f"Fake GPU, TensorRT {version}, {package}" in ran.stdout, ran.stderr
    assert "not measured: torch is not installed" in ran.stdout
    report = json.loads((prepared / "gpu_proof.json").read_text())
    assert report["empty kernel us"] > 0
    facts = report["networks"][0]
    assert not facts["failed"] and not report["not made"]
    for precision in ("fp32", "fp16", "int8"):
        found = facts[precision]
        assert found["check"]["passed"] and found["check"]["steps"] > 300 and not found["missing"]
        assert [times["rows"] for times in found["rows"]] == [1, 2]
        assert found["layers"] > 5 and found["rows"][0]["plain"] is None and "runner" in found
        assert found["rows"][0]["gpu"]["p50"] == 1000 and found["rows"][0]["queued"]["p50"] > 0
        assert ("stacked" in found) == (precision != "int8")
        assert f"camera-motion   {precision}" in ran.stdout
    assert "variant trt-int8" in facts["int8"]["why"] and "float-states" not in facts["int8"]["why"]
    assert facts["fp16"]["floor"] == report["empty kernel us"] * facts["fp16"]["layers"]
    targets = report["targets"]
    assert {name.split(": ")[1][:8] for name in targets} == {"an FP16 ", "less tha"}
    assert ran.returncode == (0 if all(verdict["met"] for verdict in targets.values()) else 1)


@pytest.mark.slow
def test_a_form_that_fails_is_a_line_of_the_table(prepared: Path, tmp_path: Path) -> None:
    ran = run(
        "--networks", "camera-motion", "--rows", "1", "--tactic", "UNKNOWN", "--out", str(tmp_path / "out.json"),
        folder=prepared, torch=False, PYTHONPATH=FAKES, EDGECO_CACHE=str(tmp_path),
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stdout.count("FAILED: EngineError: TensorRT 10.3.0 has no tactic source 'UNKNOWN'") == 3
    assert set(json.loads((tmp_path / "out.json").read_text())["networks"][0]["failed"]) == {"fp32", "fp16", "int8"}


@pytest.mark.slow
def test_what_fails_keeps_nothing_else_from_being_measured(prepared: Path, tmp_path: Path) -> None:
    """A network that is not there, more streams than there is memory for, INT8 states that are refused."""
    ran = run(
        "--networks", "x3d_s", "camera-motion", "--rows", "1", "64", "128", "--out", str(tmp_path / "out.json"),
        folder=prepared, torch=False, PYTHONPATH=FAKES, EDGECO_CACHE=str(tmp_path), EDGECO_FAKE_MEMORY="2500000",
        EDGECO_FAKE_INT8_ENDS="no",
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    absent, there = json.loads((tmp_path / "out.json").read_text())["networks"]
    assert all("x3d_s.edgeco" in absent["failed"][p] and f"x3d_s {p} FAILED" in ran.stdout for p in ("fp32", "int8"))
    for precision in ("fp32", "fp16", "int8"):
        found = there[precision]
        assert found["check"]["passed"] and "runner" in found and found["layers"] > 5
        assert [times["rows"] for times in found["rows"]] == [1]
        assert list(found["missing"]) == ["64 streams"] and "no GPU memory" in found["missing"]["64 streams"]
        assert f"camera-motion {precision}, 64 streams: EngineError" in ran.stdout
    assert "float-states" in there["int8"]["why"]


@pytest.mark.slow
def test_a_form_that_takes_its_process_along(prepared: Path, tmp_path: Path) -> None:
    ran = run(
        "--networks", "camera-motion", "--rows", "1", "--out", str(tmp_path / "out.json"),
        folder=prepared, torch=False, PYTHONPATH=FAKES, EDGECO_CACHE=str(tmp_path), EDGECO_FAKE_DIES="INT8",
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    facts = json.loads((tmp_path / "out.json").read_text())["networks"][0]
    assert facts["failed"] == {"int8": "its process ended with SIGSEGV"} and "int8" not in facts
    assert facts["fp32"]["check"]["passed"] and facts["fp16"]["check"]["passed"]
    assert "camera-motion int8 FAILED: its process ended with SIGSEGV" in ran.stdout
    assert [path.name for path in tmp_path.glob("out*")] == ["out.json"]


def test_verdicts_and_failures_of_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from gpu_report import failures, verdicts

    times = {"step": {"p50": 50.0}, "engine": {"p50": 40.0}}
    half = {
        "rows": [times],
        "runner": 5.0,
        "layers": 10,
        "best frames per second": 1e6,
        "missing": {"64 streams": "no"},
    }
    right = {"passed": True, "difference": 0.0, "tolerance": 0.1}
    peers = {
        "clip, TensorRT": {"p50": 40.0, "best": 15.0},
        "step, continual-inference, the layer": {"p50": 300.0},
    }
    wrong = {"passed": False, "difference": 0.5, "tolerance": 0.1}
    facts = {
        "network": "x3d_s", "failed": {"fp32": "EngineError: none"}, "fp16": {**half, "check": right},
        "int8": {"check": wrong, "rows": [times]}, "peers": {"times": peers, "missing": {}},
    }  # fmt: skip
    said = verdicts([facts, {"network": "other", "failed": {}, "fp16": {"rows": []}}], 3.0)
    found = {name.split(": ")[1].split(" ")[-1]: (v["met"], v["ratio"]) for name, v in said.items()}
    assert found == {
        "engine": (True, 0.25), "floor": (True, 40 / 30), "network": (False, 0.8), "streams": (True, 15.0),
        "step": (True, 6.0),
    }  # fmt: skip
    assert failures({"not made": {"encoder, INT8": "drift"}, "networks": [facts]}) == [
        "encoder, INT8 could not be made: drift",
        "x3d_s fp32 FAILED: EngineError: none",
        "x3d_s fp16, 64 streams: no",
        "x3d_s int8 is WRONG: it differs from the torch runner by 5.00e-01, where 1.00e-01 is allowed",
    ]


@pytest.mark.slow
def test_other_networks_are_prepared_too(tmp_path: Path) -> None:
    """X3D-S takes minutes to build and the most room; its two neighbours stand for it here."""
    pytest.importorskip("torch", reason="bundles are built here")
    ran = run("--prepare", "--networks", "st_gcn_star", "encoder", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "st_gcn_star.trt-fp16.stacked.onnx").exists()
    assert not list(tmp_path.glob("encoder.*.onnx"))  # it has no slots
    from edgeco.bundle import open_bundle

    for name in ("st_gcn_star", "encoder"):
        assert {"trt-fp16", "trt-int8", "trt-int8-typed"} <= open_bundle(
            tmp_path / f"{name}.edgeco"
        ).manifest.variants.keys()


def test_without_tensorrt_it_says_so_in_one_line(tmp_path: Path) -> None:
    ran = run(folder=tmp_path, torch=False)
    assert ran.returncode == 4
    assert ran.stderr.startswith("gpu_proof: TensorRT is not installed") and ran.stderr.count("\n") == 1


def test_bundles_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the fake TensorRT reads graphs with the onnx package")
    ran = run(folder=tmp_path, torch=False, PYTHONPATH=FAKES, EDGECO_CUDA="cuda.bindings")
    assert ran.returncode == 4
    assert "camera-motion.edgeco is not there; make it where torch is" in ran.stderr and ran.stderr.count("\n") == 1
    asked = run("--prepare", folder=tmp_path, torch=False)
    assert asked.returncode == 4 and "built with torch and onnx" in asked.stderr

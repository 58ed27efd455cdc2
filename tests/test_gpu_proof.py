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
    for precision in ("fp32", "fp16"):
        found = facts[precision]
        assert found["check"]["passed"] and found["check"]["steps"] > 300
        assert [times["rows"] for times in found["rows"]] == [1, 2]
        assert found["layers"] > 5 and found["stacked"]["p50"] > 0 and found["rows"][0]["plain"] is None
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
    assert ran.stdout.count("FAILED: EngineError: TensorRT 10.3.0 has no tactic source 'UNKNOWN'") == 2
    assert set(json.loads((tmp_path / "out.json").read_text())["networks"][0]["failed"]) == {"fp32", "fp16"}


@pytest.mark.slow
def test_other_networks_are_prepared_too(tmp_path: Path) -> None:
    """X3D-S takes minutes to build and the most room; its two neighbours stand for it here."""
    pytest.importorskip("torch", reason="bundles are built here")
    ran = run("--prepare", "--networks", "st_gcn_star", "encoder", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "st_gcn_star.trt-fp16.stacked.onnx").exists()
    assert not list(tmp_path.glob("encoder.*.onnx"))  # it has no slots


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

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


def run(*arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGECO_CACHE": str(folder / "cache"), **more}
    command = [sys.executable, ROOT / "benchmarks" / "gpu_proof.py", "--bundles", folder, *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_it_proves_a_network_on_a_fake_gpu(tmp_path: Path) -> None:
    path = os.pathsep.join([str(HELPERS / "fake_gpu"), str(HELPERS / "fake_cuda"), os.environ.get("PYTHONPATH", "")])
    ran = run(
        "--networks", "camera-motion", "--rows", "1", "2", "--no-peers", folder=tmp_path, PYTHONPATH=path,
        EDGECO_FAKE_TRT="10.16.1.11",
    )  # fmt: skip
    report = json.loads((tmp_path / "gpu_proof.json").read_text())
    assert "Fake GPU, TensorRT 10.16.1.11" in ran.stdout, ran.stderr
    facts = report["networks"][0]
    for precision in ("fp32", "fp16"):
        assert facts[precision]["check"]["passed"] and facts[precision]["check"]["steps"] > 300
        assert [times["rows"] for times in facts[precision]["rows"]] == [1, 2]
        assert facts[precision]["layers"] > 5


def test_without_tensorrt_it_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "camera-motion.edgeco").write_text("")
    (tmp_path / "x3d_s.edgeco").write_text("")
    (tmp_path / "encoder.edgeco").write_text("")
    ran = run(folder=tmp_path)
    assert ran.returncode == 4
    assert ran.stderr.startswith("gpu_proof: TensorRT is not installed") and ran.stderr.count("\n") == 1

"""A stream that runs for long: the short form of ``benchmarks/soak.py``, without its limits of time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="networks are run by ONNX Runtime")
pytest.importorskip("onnx", reason="networks for tests are made with the onnx package")

from stepnets import history, stepnet, write_stepnet

from edgeco.runtime.model import load

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and descriptors are read from /proc")
def test_fifty_thousand_steps(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("soak_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules["soak_script"] = script
    spec.loader.exec_module(script)
    stores = [history(kind, 3, number=number) for number, kind in enumerate(("slots", "ring", "mirror"))]
    net = stepnet(*stores, receptive_field=4)
    report = script.soak(load(write_stepnet(tmp_path / "net.edgeco", net), threads=1), 50_000)
    assert report["steps"] == 50_000 and len(report["tenths"]) == 10
    assert script.verdicts(report, timing=False) == []

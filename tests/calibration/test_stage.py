"""The stage of a build that makes other precisions."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeco.building import build
from edgeco.calibration import stage
from edgeco.calibration.recordings import Recording
from edgeco.errors import CheckFailed

CAMERA = "pattern://bars?size=64x48&fps=50&live=1"


def fields(**more: object) -> dict[str, object]:
    asked = {"model": "camera-motion", "calibrate": (CAMERA,), "calibration_frames": 20, "tensorrt": True}
    return {**asked, "precision": ("fp32", "fp16", "int8"), **more}


def test_a_camera_is_opened_once_for_all_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[list[Recording]] = []
    real = stage.recordings_of
    monkeypatch.setattr(stage, "recordings_of", lambda *given: opened.append(real(*given)) or opened[-1])
    build(fields(least_cosine=0.5), tmp_path / "net.edgeco")
    assert len(opened) == 1 and opened[0][0].live


def test_fp16_keeps_the_limit_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"trt-fp16 drifts .* below 1"):
        build(fields(precision=("fp32", "fp16"), least_cosine=1.0), tmp_path / "net.edgeco")

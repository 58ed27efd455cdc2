"""The networks that have a name, and what is known of each without making it. Nothing here needs PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NETWORKS = {
    "camera-motion": "edgeco.models.camera_motion:camera_motion",
    "fingertip-gesture": "edgeco.models.fingertip:fingertip_gesture",
    "watch-activity": "edgeco.models.watch:watch_activity",
    "hand-digit-motion": "edgeco.models.digit_motion:hand_digit_motion",
    "x3d-xs": "edgeco.models.x3d:x3d_xs",
    "x3d-s": "edgeco.models.x3d:x3d_s",
    "x3d-m": "edgeco.models.x3d:x3d_m",
    "x3d-l": "edgeco.models.x3d:x3d_l",
    "slow-r50": "edgeco.models.resnet3d:slow_r50",
    "i3d-r50": "edgeco.models.resnet3d:i3d_r50",
    "r2plus1d-18": "edgeco.models.r2plus1d:r2plus1d_18",
    "slowfast-4x16": "edgeco.models.slowfast:slowfast_4x16",
    "slowfast-8x8": "edgeco.models.slowfast:slowfast_8x8",
    "movinet-a0": "edgeco.models.movinet:movinet_a0",
    "movinet-a1": "edgeco.models.movinet:movinet_a1",
    "movinet-a2": "edgeco.models.movinet:movinet_a2",
    "tsm-mobilenetv2": "edgeco.models.tsm:tsm_mobilenetv2",
    "st-gcn": "edgeco.models.stgcn:st_gcn",
    "st-gcn-star": "edgeco.models.stgcn:st_gcn_star",
    "agcn": "edgeco.models.agcn:agcn",
    "agcn-star": "edgeco.models.agcn:agcn_star",
    "s-tr": "edgeco.models.s_tr:s_tr",
    "s-tr-star": "edgeco.models.s_tr:s_tr_star",
    "oad-b1": "edgeco.models.transformer:oad_b1",
    "oad-b2": "edgeco.models.transformer:oad_b2",
    "oad-deep": "edgeco.models.transformer:oad_deep",
    "audio-transformer": "edgeco.models.transformer:audio_transformer",
}
"""From name to the factory that makes it; an underscore in a name stands for a hyphen."""

FIGURES = Path(__file__).with_name("figures.json")
"""Written by ``benchmarks/zoo_figures.py``, held against the networks by the tests."""


def target_of(name: str) -> str | None:
    """The factory of a named network, or None if there is none by that name."""
    return NETWORKS.get(name, NETWORKS.get(name.replace("_", "-")))


def known() -> list[dict[str, Any]]:
    """What is known of each network, in the order of `NETWORKS`.

    Each has ``name``, ``factory``, ``input`` (a clip's shape without the batch), ``time_dim``, ``fps``,
    ``parameters``, ``receptive_field``, ``delay``, ``valid_from`` and ``rate`` (all in steps), ``exactness``, ``exact``
    (what it is built with), ``clip_macs``, ``step_macs`` (the mean of a step) and ``state_bytes`` (of one stream).
    """
    found: list[dict[str, Any]] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found

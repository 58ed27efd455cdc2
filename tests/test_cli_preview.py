"""``edgeco run`` with a preview, and what it says of the device's sensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("aiohttp", reason="the preview is an extra")

from edgeco.cli import main

BUNDLE = str(Path(__file__).parents[1] / "edgeco/models/bundles/camera-motion.edgeco")
RUN = ("run", BUNDLE, "--source", "pattern://bars?size=64x48&frames=5", "--json")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_the_address_goes_to_standard_error_and_sensors_into_the_summary() -> None:
    result = call(*RUN, "--preview", "0")
    assert result.exit_code == 0, result.output
    assert "preview at http://127.0.0.1:" in result.stderr and "token" not in result.stderr
    report = json.loads(result.stdout)
    assert report["telemetry"]["frames"] == report["stepped"]
    assert report["telemetry"]["sensors"] or report["telemetry"]["unavailable"]["power"]


def test_a_new_token_is_not_written_into_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGECO_PREVIEW_TOKEN", raising=False)
    result = call(*RUN, "--preview", "0", "--preview-host", "0.0.0.0")
    assert result.exit_code == 2 and "EDGECO_PREVIEW_TOKEN" in result.stderr
    monkeypatch.setenv("EDGECO_PREVIEW_TOKEN", "a-token-of-some-length")
    result = call(*RUN, "--preview", "0", "--preview-host", "0.0.0.0")
    assert result.exit_code == 0 and "a-token-of-some-length" not in result.output

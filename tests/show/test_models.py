"""``edgeco models``: the table and the JSON, without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys

from click.testing import CliRunner

from edgeco.cli import main
from edgeco.models.catalogue import NETWORKS, known

FIELDS = {
    *("name", "factory", "input", "time_dim", "fps", "parameters", "receptive_field", "delay", "valid_from", "rate"),
    *("exactness", "exact", "clip_macs", "step_macs", "state_bytes"),
}


def test_json_is_a_list_of_objects() -> None:
    ran = CliRunner().invoke(main, ["models", "--json"])
    listed = json.loads(ran.stdout)
    assert ran.exit_code == 0 and [entry["name"] for entry in listed] == list(NETWORKS)
    assert listed == known() and all(set(entry) == FIELDS for entry in listed)
    for entry in listed:
        assert entry["receptive_field"] > entry["delay"] >= 0 and 1 <= entry["rate"] <= 16
        assert 0 < entry["step_macs"] <= entry["clip_macs"] and entry["state_bytes"] > 0 < entry["parameters"]


def test_the_table_names_every_network() -> None:
    ran = CliRunner().invoke(main, ["models"])
    assert ran.exit_code == 0
    for entry in known():
        (line,) = [line for line in ran.stdout.splitlines() if line.split()[:1] == [entry["name"]]]
        assert line.split()[1] == "x".join(map(str, entry["input"])) and entry["exactness"] in line
    assert max(map(len, ran.stdout.splitlines())) <= 140


def test_listing_needs_no_torch() -> None:
    code = "import sys; from edgeco.models.catalogue import known; known(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""What a build says at its end."""

from __future__ import annotations

from pathlib import Path

from edgeco.bundle.manifest import Input
from edgeco.show.build import run_command

PICTURES = Input(name="frame", shape=(48, 64, 3), dtype="uint8", kind="image")
VALUES = Input(name="values", shape=(6,), dtype="float32", kind="array")


def test_it_names_a_source_that_the_network_takes() -> None:
    out = Path("net.edgeco")
    assert run_command(out, [PICTURES]) == "edgeco run net.edgeco --source VIDEO"
    assert run_command(out, [VALUES]) == "edgeco run net.edgeco --source FILE.csv"
    assert run_command(out, [PICTURES, VALUES]) == "edgeco run net.edgeco --source VIDEO --pre FILE.py:NAME"

"""The toy bundle as a fixture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # toy_bundle is imported whatever import mode pytest runs in

from toy_bundle import Toy, toy_manifest, toy_members

from edgeco.bundle import write_bundle


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    manifest, members = toy_manifest(), toy_members()
    path = tmp_path / "toy.edgeco"
    write_bundle(path, manifest, members)
    return Toy(path, manifest, members)

"""Makes the helpers importable, and gives the shipped network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "helpers"))

import edgeco
from edgeco.runtime.model import Model


@pytest.fixture(scope="session")
def model() -> Model:
    """Camera motion: pictures of 64 x 48 in gray, trained at 12.5 frames per second, 14 of them seen."""
    shipped = Path(edgeco.__file__).parent / "models" / "bundles" / "camera-motion.edgeco"
    return edgeco.load(shipped, threads=1)

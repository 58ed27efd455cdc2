"""Makes the hand-made networks importable, and gives the recordings' folder."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from gpu_fixtures import fake, one  # noqa: F401  (fixtures, found by their names)


@pytest.fixture(scope="session")
def recordings() -> list[Path]:
    """Every recording of the test data, or a skip."""
    folder = os.environ.get("EDGECO_TEST_DATA")
    if not folder:
        pytest.skip("EDGECO_TEST_DATA does not name the folder of recordings")
    found = sorted(path for path in (Path(folder) / "video").iterdir() if path.suffix in (".mp4", ".mkv"))
    assert found, f"no recordings in {folder}/video"
    return found

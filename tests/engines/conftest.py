"""Makes the hand-made step networks importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from gpu_fixtures import fake, one  # noqa: F401  (fixtures, found by their names)

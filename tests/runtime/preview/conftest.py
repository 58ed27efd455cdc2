"""A told run and previews of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "helpers"))

pytest.importorskip("aiohttp", reason="the preview is an extra")

from told_run import ToldRun

from edgeco.runtime.preview import Preview


@pytest.fixture
def told() -> ToldRun:
    return ToldRun()


@pytest.fixture
def show(told: ToldRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Preview]]:
    """Open a preview of the told run; all are closed at the end."""
    monkeypatch.delenv("EDGECO_PREVIEW_TOKEN", raising=False)
    opened: list[Preview] = []

    def preview(**options: Any) -> Preview:
        opened.append(Preview(0, **options))
        opened[-1].watch(told)
        return opened[-1]

    yield preview
    for made in opened:
        made.close()

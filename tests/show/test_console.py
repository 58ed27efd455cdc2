"""Figures for people."""

from __future__ import annotations

import pytest

from edgeco.show.console import share_text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, ""), (1e-5, "<0.1%"), (0.9873, "98.7%"), (0.9985, "99.9%"), (0.99996, ">99.9%"), (1.0, "100%")],
)
def test_a_share_is_never_rounded_up_to_all_or_down_to_nothing(share: float, text: str) -> None:
    assert share_text(share) == text

"""Physical cores, by affinity and quota."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeco.engines import threads
from edgeco.engines.threads import MOST, default_threads


def machine(root: Path, siblings: list[str]) -> Path:
    for cpu, text in enumerate(siblings):
        folder = root / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text + "\n")
    return root


def test_sibling_threads_are_one_core(tmp_path: Path) -> None:
    root = machine(tmp_path, ["0,2", "1,3", "0,2", "1,3"])
    assert threads._cores(frozenset(range(4)), root) == 2
    assert threads._cores(frozenset({0, 2}), root) == 1
    assert threads._cores(frozenset({0, 1}), root) == 2


def test_without_topology_every_processor_is_a_core(tmp_path: Path) -> None:
    assert threads._cores(frozenset(range(3)), tmp_path) == 3


@pytest.mark.parametrize(("text", "expected"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 9), ("", 9)])
def test_a_container_quota(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert threads._quota(9, tmp_path / "cpu.max") == expected
    assert threads._quota(9, tmp_path / "missing") == 9


def test_never_more_than_a_step_network_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_cores", lambda allowed: 64)
    monkeypatch.setattr(threads, "_quota", lambda otherwise: 64)
    assert default_threads() == MOST
    monkeypatch.setattr(threads, "_quota", lambda otherwise: 0)
    assert default_threads() == 1


def test_here() -> None:
    assert 1 <= default_threads() <= MOST

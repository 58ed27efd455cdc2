"""Strongly connected components against a definition that is slow and plain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeco.graph.cycles import components


@given(st.integers(1, 9).flatmap(lambda n: st.lists(st.sets(st.integers(0, n - 1)), min_size=n, max_size=n)))
def test_groups_are_what_reaches_each_other_and_come_after_what_they_need(edges: list[set[int]]) -> None:
    n = len(edges)
    reach = [set(e) for e in edges]
    for _ in range(n):
        reach = [r | {far for near in r for far in reach[near]} for r in reach]
    found = components(range(n), lambda i: sorted(edges[i]))
    assert sorted(i for group, _ in found for i in group) == list(range(n))
    seen: set[int] = set()
    for group, cyclic in found:
        assert all((b in reach[a] and a in reach[b]) for a in group for b in group if a != b)
        assert cyclic == any(i in reach[i] for i in group)
        seen |= set(group)
        assert all(edges[i] <= seen for i in group)

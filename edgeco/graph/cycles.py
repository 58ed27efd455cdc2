"""Strongly connected components, in an order in which each comes after what it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def components(items: Iterable[Item], before: Callable[[Item], Sequence[Item]]) -> list[tuple[list[Item], bool]]:
    """Groups of items that depend on each other, and whether they do; a group comes after those it depends on.

    Tarjan's algorithm, without recursion, since graphs of networks are deep.

    Args:
        items: all items.
        before: what an item depends on, all of it items.

    >>> components([1, 2, 3, 4], {1: [2], 2: [3], 3: [2], 4: [4]}.__getitem__)
    [([3, 2], True), ([1], False), ([4], True)]
    """
    number: dict[Item, int] = {}
    lowest: dict[Item, int] = {}
    open_: list[Item] = []
    standing: set[Item] = set()
    found: list[tuple[list[Item], bool]] = []
    for root in items:
        if root in number:
            continue
        work = [(root, iter(before(root)))]
        number[root] = lowest[root] = len(number)
        open_.append(root)
        standing.add(root)
        while work:
            item, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[item])
                if lowest[item] == number[item]:
                    at = open_.index(item)
                    group = open_[at:][::-1]
                    del open_[at:]
                    standing.difference_update(group)
                    found.append((group, len(group) > 1 or item in before(item)))
            elif following not in number:
                number[following] = lowest[following] = len(number)
                open_.append(following)
                standing.add(following)
                work.append((following, iter(before(following))))
            elif following in standing:
                lowest[item] = min(lowest[item], number[following])
    return found

"""Which cases go where: numbers alone, of labels and groups, so that nothing here knows what a case is.

Every function takes the cases' classes and gives places in them, in their order; the same seed gives the same places.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from edgeco.errors import DataError

Places = list[int]


def shares(count: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers in these proportions, by largest remainders: all of ``count`` where the fractions make 1.

    Example:
        >>> shares(10, (0.75, 0.25)), shares(3, (0.5, 0.5)), shares(10, (0.5, 0.2))
        ([8, 2], [2, 1], [5, 2])
    """
    total = round(count * min(1.0, sum(fractions)))
    exact = [count * fraction for fraction in fractions]
    given = [int(share + 1e-9) for share in exact]
    nearest = sorted(range(len(exact)), key=lambda i: (given[i] - exact[i], i))
    for i in nearest[: total - sum(given)]:
        given[i] += 1
    return given


def by_class(classes: Sequence[Hashable]) -> list[Places]:
    """The places of every class, classes in the order in which they first come."""
    found: dict[Hashable, Places] = {}
    for place, label in enumerate(classes):
        found.setdefault(label, []).append(place)
    return list(found.values())


def subset(classes: Sequence[Hashable], count: int, seed: int) -> Places:
    """So many places, of every class in proportion."""
    rng = np.random.default_rng(seed)
    strata = by_class(classes)
    chosen = []
    for places, number in zip(strata, shares(count, [len(p) / len(classes) for p in strata]), strict=True):
        chosen += [places[i] for i in rng.permutation(len(places))[:number]]
    return sorted(chosen)


def cases(classes: Sequence[Hashable], fractions: Sequence[float], seed: int) -> list[Places]:
    """Each case by itself, every class in proportion."""
    rng = np.random.default_rng(seed)
    parts: list[Places] = [[] for _ in fractions]
    for places in by_class(classes):
        order = [places[i] for i in rng.permutation(len(places))]
        for part, number in zip(parts, shares(len(places), fractions), strict=True):
            part += order[:number]
            del order[:number]
    return [sorted(part) for part in parts]


def groups(
    classes: Sequence[Hashable], members: Sequence[Hashable], fractions: Sequence[float], seed: int
) -> list[Places]:
    """Groups as a whole, those of the same classes in proportion to their cases."""
    wholes = by_class(members)
    kinds = [tuple(sorted({str(classes[place]) for place in whole})) for whole in wholes]
    return _dealt(wholes, kinds, fractions, seed)


def blocks(
    classes: Sequence[Hashable],
    members: Sequence[Hashable],
    fractions: Sequence[float],
    seed: int,
    number: int,
    gap: int = 0,
) -> list[Places]:
    """Contiguous runs of a class's cases as a whole, so that neighbours stay together; no run tears a group apart.

    Of a run whose neighbour before it went to another part, the first ``gap`` cases are in no part.
    """
    wholes: list[Places] = []
    kinds: list[tuple[Hashable, ...]] = []
    for places in by_class(classes):
        made = _runs(places, members, number)
        wholes += made
        kinds += [(classes[places[0]],)] * len(made)
    parts = _dealt(wholes, kinds, fractions, seed)
    where = {place: number for number, part in enumerate(parts) for place in part}
    dealt = dict(where)
    for i in range(1, len(wholes)):
        before, after = wholes[i - 1], wholes[i]
        if kinds[i - 1] == kinds[i] and dealt.get(before[-1]) != dealt.get(after[0]):
            for place in after[:gap]:
                where.pop(place, None)
    return [[place for place in part if place in where] for part in parts]


def _runs(places: Places, members: Sequence[Hashable], number: int) -> list[Places]:
    """So many runs of equal length, each end put off to where the next group begins."""
    ends = [round(len(places) * (i + 1) / number) for i in range(number)]
    made: list[Places] = []
    begin = 0
    for end in ends:
        while 0 < end < len(places) and members[places[end]] == members[places[end - 1]]:
            end += 1
        if end > begin:
            made.append(places[begin:end])
            begin = end
    return made


def _dealt(wholes: list[Places], kinds: Sequence[Hashable], fractions: Sequence[float], seed: int) -> list[Places]:
    """Wholes of each kind dealt in random order, each to the part that lacks most of its share."""
    rng = np.random.default_rng(seed)
    parts: list[Places] = [[] for _ in fractions]
    kept = 1.0 - sum(fractions)
    for places in by_class(kinds):
        total = sum(len(wholes[i]) for i in places)
        lacking = [fraction * total for fraction in (*fractions, max(0.0, kept))]
        for i in rng.permutation(len(places)):
            whole = wholes[places[i]]
            most = int(np.argmax(lacking))
            lacking[most] -= len(whole)
            if most < len(parts):
                parts[most] += whole
    return [sorted(part) for part in parts]


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises DataError unless these are two or more parts of one whole, or one part of it."""
    if not fractions or not all(0 < f <= 1 for f in fractions) or sum(fractions) > 1 + 1e-9:
        raise DataError(f"fractions {tuple(fractions)}: give numbers above 0 that make 1 at most, as in (0.8, 0.2).")

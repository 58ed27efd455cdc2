"""Labels of single indices, and which of them can only be removed together.

A label (an atom) stands for one index of one axis of a tensor. Labels are united where an operator meets two indices as
one, and pinned where an index can never be removed. Where axes are merged, an index of the new axis carries several
labels and falls if any of them does; what such an index must equal is an equation, solved when all are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
"""Labels of an axis: (size, columns). An index falls if any of its labels does."""

NOTHING = 0
"""The label of an index that can never be removed, or that a column says nothing of."""

STRUCTURE = "it is no axis of channels"
"""Why axes of space, time and rows stay; not worth a line in a report."""


@dataclass
class _Equation:
    """Row by row, the index on the left falls exactly if the one on the right does."""

    left: Array
    right: Array
    why: str


class Labels:
    """The union-find over all labels of a network."""

    def __init__(self) -> None:
        self._parent = [NOTHING]
        self._flat: Array | None = None
        self._equations: list[_Equation] = []
        self._contracted: set[int] = set()
        self.pins: dict[int, str] = {}
        """Why a class (by its root) cannot be removed."""
        self.approximate: dict[int, str] = {}
        """Why removing a class (by its root) changes a normalisation."""
        self.carried: set[int] = set()
        """Labels that stand for indices of parameters or buffers."""

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, size: int, carried: bool = False) -> Array:
        """New labels, one for each index: (size, 1); an axis of one index has none."""
        if size < 2:
            return free(size)
        first = len(self._parent)
        self._parent.extend(range(first, first + size))
        self._flat = None
        made = np.arange(first, first + size, dtype=np.int64)
        if carried:
            self.carried.update(made.tolist())
        return made[:, None]

    def find(self, label: int) -> int:
        """The root of a label's class."""
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    def roots(self, labels: Array) -> Array:
        """The roots of many labels."""
        if self._flat is None:
            flat = np.asarray(self._parent, dtype=np.int64)
            while not np.array_equal(above := flat[flat], flat):
                flat = above
            self._flat = flat
        return self._flat[labels]

    def pin(self, labels: Array | Iterable[int], why: str) -> None:
        """Say that these can never be removed; the first reason given stands."""
        for label in np.unique(np.asarray(labels, dtype=np.int64)).tolist():
            if label != NOTHING:
                self.pins.setdefault(self.find(label), why)

    def mark_approximate(self, labels: Array, why: str) -> None:
        """Say that removing any of these changes a normalisation over the others."""
        for label in np.unique(labels).tolist():
            if label != NOTHING:
                self.approximate.setdefault(self.find(label), why)

    def mark_contracted(self, labels: Array) -> None:
        """Say that two activations are multiplied over these, as queries with keys."""
        self._contracted.update(np.unique(labels).tolist())

    def equate(self, left: Array, right: Array, why: str) -> None:
        """Row by row, let an index fall exactly if the other does.

        Args:
            left, right: labels of as many indices.
            why: the reason to give where one side turns out never to fall.
        """
        assert len(left) == len(right), f"{left.shape} against {right.shape}"
        if left is right or np.array_equal(left, right):
            return
        if left.shape[1] == right.shape[1] == 1:
            self._unite_all(left[:, 0], right[:, 0], why)
        elif not left.shape[1] or not right.shape[1]:
            self.pin(left if left.shape[1] else right, why)
        else:
            self._equations.append(_Equation(left, right, why))

    def _unite_all(self, left: Array, right: Array, why: str) -> None:
        for a, b in np.unique(np.stack([left, right], 1), axis=0).tolist():
            self.unite(a, b, why)

    def unite(self, a: int, b: int, why: str) -> None:
        """Let two labels fall together; with `NOTHING`, let the other stay."""
        if NOTHING in (a, b):
            if a != b:
                self.pins.setdefault(self.find(a or b), why)
            return
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        self._parent[b] = a
        self._flat = None
        for reasons in (self.pins, self.approximate):
            if b in reasons:
                reason = reasons.pop(b)
                if reasons.get(a, STRUCTURE) == STRUCTURE:
                    reasons[a] = reason

    # -- equations ---------------------------------------------------------------------------------------------

    def resolve(self) -> None:
        """Solve all equations. What they leave open is decided for whole factors: see `_decide`."""
        while self._equations:
            while self._simplify():
                pass
            if self._equations:
                self._decide()

    def _simplify(self) -> bool:
        """Use every equation as far as it says something for sure; whether any did."""
        before = (len(self.pins), self._flat)
        waiting, self._equations = self._equations, []
        merged = False
        for equation in waiting:
            rest, did = self._reduced(equation)
            merged |= did
            self._equations += [rest] if rest is not None else []
        return merged or len(self.pins) != before[0]

    def _living(self, labels: Array) -> Array:
        """Roots, pinned ones as `NOTHING`."""
        roots = self.roots(labels)
        pinned = np.zeros(len(self._parent), dtype=bool)
        pinned[[self.find(root) for root in self.pins]] = True
        return np.where(pinned[roots], NOTHING, roots)

    def _reduced(self, equation: _Equation) -> tuple[_Equation | None, bool]:
        """What is left of an equation once its plain rows are used, and whether something was united or pinned."""
        left, right = self._living(equation.left), self._living(equation.right)
        rows = np.unique(np.concatenate([left, right], 1), axis=0)
        kept, did = [], False
        for index, row in enumerate(rows.tolist()):
            ours, theirs = set(row[: left.shape[1]]) - {NOTHING}, set(row[left.shape[1] :]) - {NOTHING}
            ours, theirs = ours - theirs, theirs - ours
            if not ours or not theirs:
                if ours or theirs:
                    self.pin(list(ours or theirs), equation.why)
                    did = True
            elif len(ours) == len(theirs) == 1:
                self.unite(ours.pop(), theirs.pop(), equation.why)
                did = True
            else:
                kept.append(index)
        if not kept:
            return None, did
        rows = rows[kept]
        return _Equation(rows[:, : left.shape[1]], rows[:, left.shape[1] :], equation.why), did

    def _decide(self) -> None:
        """Settle one open equation: of the factors of a merged axis, only one may lose indices.

        A factor stays whole if the other side does not depend on it; then one that activations are multiplied over,
        for attention scales by its size, and heads are removed whole; then one that no parameter has indices of yet;
        else the outer one.
        """
        for choose in (self._independent, self._multiplied, self._unused):
            for equation in self._equations:
                column = choose(equation)
                if column is not None:
                    self.pin(column, equation.why)
                    return
        equation = self._equations[0]
        left, right = equation.left, equation.right
        if left.shape[1] == right.shape[1]:
            del self._equations[0]
            for i in range(left.shape[1]):
                self._unite_all(left[:, i], right[:, i], equation.why)
            return
        merged = left if left.shape[1] > right.shape[1] else right
        self.pin(merged[:, next(i for i in range(merged.shape[1]) if merged[:, i].any())], equation.why)

    def _independent(self, equation: _Equation) -> Array | None:
        left, right = self._living(equation.left), self._living(equation.right)
        for one, several in ((left, right), (right, left)):
            if several.shape[1] < 2:
                continue
            for i in range(several.shape[1]):
                rest = np.delete(several, i, 1)
                _, others = np.unique(rest, axis=0, return_inverse=True)
                pairs = np.unique(np.concatenate([others.reshape(-1, 1), one], 1), axis=0)
                alone = len(pairs) == others.max() + 1
                if alone and len(np.unique(several[:, i])) > 1 and several[:, i].any():
                    return several[:, i]
        return None

    def _multiplied(self, equation: _Equation) -> Array | None:
        roots = {self.find(label) for label in self._contracted} - {NOTHING}
        for several in (equation.left, equation.right):
            if several.shape[1] < 2:
                continue
            found = [i for i, column in enumerate(several.T) if {self.find(x) for x in column.tolist()} & roots]
            if found and len(found) < several.shape[1]:
                return several[:, found[0]]
        return None

    def _unused(self, equation: _Equation) -> Array | None:
        roots = {self.find(label) for label in self.carried}
        for several in (equation.left, equation.right):
            if several.shape[1] < 2:
                continue
            used = [bool({self.find(x) for x in column.tolist()} & roots) for column in several.T]
            if any(used) and not all(used):
                column = used.index(False)
                if several[:, column].any():
                    return several[:, column]
        return None


def free(size: int) -> Array:
    """Labels of an axis of which nothing can be removed."""
    return np.zeros((size, 0), dtype=np.int64)

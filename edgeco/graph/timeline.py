"""Where time lives in a value: how an element's index relates to steps, and what lies before the first element.

The algebra is that of streaming convolutions: element j of a value with delay D is computed at step j + D. Front
padding p of a kernel of k taps moves the delay by (k - 1) - p; explicit padding and slices along time only renumber
the elements, so they cost nothing and may make a delay negative until something has to be computed from them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Exactness = Literal["exact", "unpadded", "causal"]
_ORDER: tuple[Exactness, ...] = ("exact", "unpadded", "causal")


def worst(*grades: Exactness) -> Exactness:
    """The weakest of several promises."""
    return max(grades, key=_ORDER.index)


@dataclass(frozen=True)
class Timeline:
    """Timeline of a value that holds one element per step.

    Attributes:
        length: elements the clip network has of this value for one clip.
        delay: element j exists from step j + delay on.
        starts_at: step at which the first true element is computed.
        past, future: the element j looks at input frames j - past to j + future.
        border: contents of the elements before `starts_at`, when explicit padding put some there.
        tail: elements of `border` that the clip network has after the last true one.
        exactness: how its elements relate to the clip network's.
    """

    length: int
    delay: int = 0
    starts_at: int = 0
    past: int = 0
    future: int = 0
    border: float | None = None
    tail: int = 0
    exactness: Exactness = "exact"

    @property
    def receptive_field(self) -> int:
        """Input frames an element looks at."""
        return self.past + self.future + 1

    @property
    def computable(self) -> int:
        """The least delay at which an operator can read element 0, padding included."""
        return self.starts_at if self.border is not None else self.delay

    @property
    def first(self) -> int:
        """Step of the first defined element: padding counts as defined."""
        return self.delay if self.border is not None else self.starts_at

    def tapped(self, taps: int, front: int, length: int, delay: int) -> Timeline:
        """After a window of `taps` elements with `front` padded before the first (L += p, R += k - 1 - p)."""
        padded = length != self.length - taps + 1
        return Timeline(
            length=length,
            delay=delay,
            starts_at=self.first + delay - self.delay,
            past=self.past + front,
            future=self.future + taps - 1 - front,
            exactness=worst(self.exactness, "unpadded") if padded else self.exactness,
        )

    def padded(self, front: int, back: int, border: float) -> Timeline:
        """After `front` and `back` elements of `border` were put around, which only renumbers the elements."""
        return replace(
            self,
            length=self.length + front + back,
            delay=self.delay - front,
            past=self.past + front,
            future=self.future - front,
            border=border,
            tail=self.tail + back,
            exactness=worst(self.exactness, "unpadded"),
        )

    def cut(self, front: int, back: int) -> Timeline:
        """After the first `front` and the last `back` elements were sliced off, which only renumbers the others."""
        delay = self.delay + front
        return replace(
            self,
            length=self.length - front - back,
            delay=delay,
            starts_at=max(self.starts_at, delay),
            past=self.past - front,
            future=self.future + front,
            tail=max(0, self.tail - back),
        )

    def summary(self, length: int) -> Timeline:
        """The summary of a window of `length` elements, renumbered by the element at which its window ends."""
        return replace(
            self, delay=self.delay - length + 1, past=self.past + length - 1, future=self.future - length + 1
        )

    def aged(self, delay: int) -> Timeline:
        """The same elements read later, at `delay`."""
        return replace(self, delay=delay, starts_at=self.first + delay - self.delay, border=None, tail=0)

    def ends_at(self, extra: int) -> int:
        """Step from which there are no true elements, in a recording of `extra` frames more than the clip."""
        return self.delay + self.length - self.tail + extra


def merged(parts: list[Timeline], delay: int, length: int) -> Timeline:
    """Timeline of an operator that reads element j of every part at step j + delay."""
    return Timeline(
        length=length,
        delay=delay,
        starts_at=max(part.first + delay - part.delay for part in parts),
        past=max(part.past for part in parts),
        future=max(part.future for part in parts),
        exactness=worst(*(part.exactness for part in parts)),
    )

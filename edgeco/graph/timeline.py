"""Where time lives in a value: how an element's index relates to steps, and what lies before the first element.

The algebra is that of streaming convolutions: element j of a value with rate r and delay D is computed at step r j + D.
A stride multiplies the rate. Front padding p of a kernel that reaches over d (k - 1) elements moves the delay by
(d (k - 1) - p) r; explicit padding and slices along time only renumber the elements, so they cost nothing and may make
a delay negative until something has to be computed from them.

Upsampling by u divides the rate: element u j + q of the result is element j's, q rates later, so that a value may only
be upsampled as far as it was strided before. A recording then has whole groups of u elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Exactness = Literal["exact", "unpadded", "causal"]
Border = float | Literal["first"]
"""What lies before the first element: a number, or copies of the first element itself."""

_ORDER: tuple[Exactness, ...] = ("exact", "unpadded", "causal")


def worst(*grades: Exactness) -> Exactness:
    """The weakest of several promises."""
    return max(grades, key=_ORDER.index)


@dataclass(frozen=True)
class Timeline:
    """Timeline of a value that holds one element per `rate` steps.

    Attributes:
        length: elements the clip network has of this value for one clip.
        rate: steps from one element to the next.
        delay: element j exists from step rate * j + delay on.
        starts_at: step at which the first true element is computed.
        past, future: the element j looks at input frames rate * j - past to rate * j + future.
        border: contents of the elements before `starts_at`, when explicit padding put some there.
        tail: elements of `border` that the clip network has after the last true one.
        room: a recording of F frames has (F + room) // rate elements, but for `groups`.
        groups: per upsampling on the way, first to last, its (room, rate): F became (F + room) // rate * rate there.
        exactness: how its elements relate to the clip network's.
        running: an element sums up all since the first, so that its index in the recording has a meaning.
        grid: frames from one place to the next at which a window may begin for its elements to be those of the whole
            recording: the greatest rate there was, which upsampling lowers again and does not forget.
    """

    length: int
    rate: int = 1
    delay: int = 0
    starts_at: int = 0
    past: int = 0
    future: int = 0
    border: Border | None = None
    tail: int = 0
    room: int = 0
    groups: tuple[tuple[int, int], ...] = ()
    exactness: Exactness = "exact"
    running: bool = False
    grid: int = 1

    @property
    def anchored(self) -> bool:
        """Whether elements differ with the place in the recording at which a window of frames begins."""
        return self.rate % self.grid != 0

    @property
    def receptive_field(self) -> int:
        """Input frames an element looks at."""
        return self.past + self.future + 1

    @property
    def phase(self) -> int:
        """Steps at which elements are computed, modulo the rate."""
        return self.delay % self.rate

    @property
    def computable(self) -> int:
        """The least delay at which an operator can read element 0, padding included.

        Copies of the first element lie in the past once it is there: for the element that comes next.
        """
        if self.border is None:
            return self.delay
        return self.starts_at + (self.rate if self.border == "first" else 0)

    @property
    def first(self) -> int:
        """Step of the first defined element: padding counts as defined."""
        return self.delay if self.border is not None else self.starts_at

    def age(self, delay: int) -> tuple[int, bool]:
        """Elements that a reader with that delay is behind the newest, and whether the newest is of an earlier step."""
        behind = delay - self.delay
        return behind // self.rate, behind % self.rate != 0

    def starting(self, delay: int, rate: int) -> int:
        """Step of the first defined result of a reader at `delay` that takes every rate / self.rate-th element."""
        return delay + -(-(self.first - self.delay) // rate) * rate

    def tapped(self, taps: int, pads: tuple[int, int], delay: int, *, stride: int = 1, dilation: int = 1) -> Timeline:
        """After a window of `taps` elements with `pads` before the first and after the last.

        L += p r and R += (d (k - 1) - p) r.
        """
        reach = dilation * (taps - 1)
        rate = self.rate * stride
        more = sum(pads) - reach - 1
        return Timeline(
            length=(self.length + more) // stride + 1,
            rate=rate,
            delay=delay,
            starts_at=self.starting(delay, rate),
            past=self.past + self.rate * pads[0],
            future=self.future + self.rate * (reach - pads[0]),
            room=self.room + self.rate * (more + stride),
            groups=self.groups,
            exactness=worst(self.exactness, "unpadded") if any(pads) else self.exactness,
            running=self.running,
            grid=math.lcm(self.grid, rate),
        )

    def padded(self, front: int, back: int, border: Border) -> Timeline:
        """After `front` and `back` elements of `border` were put around, which only renumbers the elements."""
        return replace(
            self,
            length=self.length + front + back,
            delay=self.delay - self.rate * front,
            past=self.past + self.rate * front,
            future=self.future - self.rate * front,
            border=border,
            tail=self.tail + back,
            room=self.room + self.rate * (front + back),
            exactness=worst(self.exactness, "unpadded"),
        )

    def cut(self, front: int, back: int, step: int = 1) -> Timeline:
        """After `front` and `back` elements were sliced off and every `step`-th kept: a renumbering of those left."""
        assert step == 1 or self.border is None, "explicit padding is read as real elements before it is thinned"
        delay = self.delay + self.rate * front
        rate = self.rate * step
        return replace(
            self,
            length=-(-(self.length - front - back) // step),
            rate=rate,
            delay=delay,
            starts_at=delay + -(-max(self.starts_at - delay, 0) // rate) * rate,
            past=self.past - self.rate * front,
            future=self.future + self.rate * front,
            tail=max(0, self.tail - back),
            room=self.room + self.rate * (step - 1 - front - back),
            grid=math.lcm(self.grid, rate),
        )

    def summary(self, span: int) -> Timeline:
        """The summary of a window over `span` + 1 frames' places, renumbered by the place at which its window ends."""
        return replace(
            self, delay=self.delay - span, past=self.past + span, future=self.future - span, room=self.room + span
        )

    def windowed(self, length: int, delay: int) -> Timeline:
        """Windows of `length` elements, each numbered by its first and complete at `delay`."""
        span = self.rate * (length - 1)
        return Timeline(
            length=1,
            rate=self.rate,
            delay=delay,
            starts_at=self.starting(delay, self.rate),
            past=self.past,
            future=self.future + span,
            room=self.room - span,
            groups=self.groups,
            exactness=self.exactness,
            grid=math.lcm(self.grid, self.rate),
        )

    def upsampled(self, factor: int) -> Timeline:
        """Every element `factor` times: element j's copies come with it and after it, until the next is due."""
        if factor == 1:
            return self
        rate = self.rate // factor
        return replace(
            self,
            length=self.length * factor,
            rate=rate,
            past=self.past + rate * (factor - 1),
            room=0,
            groups=(*self.groups, (self.room, self.rate)),
            grid=math.lcm(self.grid, self.rate),
        )

    def interpolated(self, factor: int) -> Timeline:
        """After `factor` elements were set evenly between and around neighbours, the ends standing for what is outside.

        The first that looks beyond its own element, to the next, is number factor // 2 of each group.
        """
        rate = self.rate // factor
        ahead = self.rate - rate * (factor // 2)
        return replace(
            self.upsampled(factor),
            delay=self.delay + ahead,
            starts_at=self.starts_at + ahead,
            past=self.past + self.rate + rate * (factor // 2 - 1),
            future=self.future + ahead,
            exactness=worst(self.exactness, "unpadded"),
        )

    def transposed(self, factor: int, reach: int, crop: int, more: int) -> Timeline:
        """After every element was spread over reach + 1 places, `factor` apart; those of `crop` places are cut off.

        `more` places are added behind. Element i of the result is place i + crop, and element j's first place j factor.
        """
        rate = self.rate // factor
        oldest = max(q + place for q in range(min(factor, reach + 1)) for place in range(0, reach - q + 1, factor))
        delay = self.delay + rate * crop
        borders = reach >= factor or reach + more - crop >= factor
        return replace(
            self.upsampled(factor),
            length=(self.length - 1) * factor + reach + 1 + more - 2 * crop,
            delay=delay,
            starts_at=delay + self.starts_at - self.delay,
            past=self.past + rate * (oldest - crop),
            future=self.future + rate * crop,
            room=(self.room if factor == 1 else 0) + rate * (reach + 1 + more - 2 * crop - factor),
            exactness=worst(self.exactness, "unpadded") if borders else self.exactness,
        )

    def aged(self, delay: int) -> Timeline:
        """The same elements read later, at `delay`."""
        return replace(self, delay=delay, starts_at=self.starting(delay, self.rate), border=None, tail=0)

    def elements(self, frames: int) -> int:
        """Elements that a recording of so many frames has."""
        for room, rate in self.groups:
            frames = (frames + room) // rate * rate
        return (frames + self.room) // self.rate

    def ends_at(self, frames: int) -> int:
        """Step from which there are no true elements, in a recording of so many frames."""
        return self.delay + self.rate * (self.elements(frames) - self.tail)


def merged(parts: Sequence[Timeline], delay: int, length: int) -> Timeline:
    """Timeline of an operator that reads element j of every part, rates of single elements apart, at one step."""
    rate = math.lcm(*(part.rate for part in parts))
    most = max(part.length for part in parts)
    # Of a part that comes more often only every rate / part.rate-th element is read, rounded up.
    room = {part: part.room + rate - part.rate for part in parts if part.length == most}
    fewest = min(room, key=lambda part: (room[part], -len(part.groups)))
    return Timeline(
        length=length,
        rate=rate,
        delay=delay,
        starts_at=max(part.starting(delay, rate) for part in parts),
        past=max(part.past for part in parts),
        future=max(part.future for part in parts),
        room=room[fewest],
        groups=fewest.groups,
        exactness=worst(*(part.exactness for part in parts)),
        running=any(part.running for part in parts),
        grid=math.lcm(rate, *(part.grid for part in parts)),
    )

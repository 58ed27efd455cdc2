"""What the conversion knows of each value of the clip network."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor, fx

from edgeco.graph.layout import Layout
from edgeco.graph.timeline import Timeline


class Kind(Enum):
    """How a value lives in the step network."""

    CONSTANT = "constant"
    """Does not change with time: weights, tables, inputs without a time axis."""
    STREAM = "stream"
    """One element per step: the clip value with time taken out of its shape."""
    WINDOW = "window"
    """The clip value itself, of the clip's own shape, for the window that ends at this step."""


@dataclass(frozen=True)
class Value:
    """A value of the clip network and its node in the step graph.

    Attributes:
        kind: constant, stream or window.
        layout: axes in the *clip* network.
        node: node of the step graph; None for a constant that no step has needed yet.
        timeline: where time lives (streams and windows). A window is numbered by the frame at which its clip begins.
        tensor: the contents of a constant known at conversion (a batch axis has size 1).
        joined: the axis this value was concatenated along, and its parts, so that a slice may find a part again; one
            without node and tensor is known as a part of the whole only.
        inside: what lies between explicit padding along time: the value, elements before and after, and their number.
        origin: the value of which this is a slice along time, the axis, and where it begins and ends there.
    """

    kind: Kind
    layout: Layout
    node: fx.Node | None = None
    timeline: Timeline | None = None
    tensor: Tensor | None = None
    joined: tuple[int, tuple[Value, ...]] | None = None
    inside: tuple[Value, int, int, float] | None = None
    origin: tuple[Value, int, int, int] | None = None

    @property
    def time(self) -> Timeline:
        """The timeline of a stream or window."""
        assert self.timeline is not None, "a constant has no timeline"
        return self.timeline

    @property
    def graph_layout(self) -> Layout:
        """Axes of the node in the step graph."""
        return self.layout.step if self.kind is Kind.STREAM else self.layout

    @property
    def uniform(self) -> float | None:
        """The one number that a constant consists of, or None."""
        if self.tensor is None or self.tensor.numel() == 0 or not self.tensor.is_floating_point():
            return None
        first = self.tensor.flatten()[0]
        return float(first) if bool((self.tensor == first).all()) else None

"""Drawings as SVG: curves over an axis, bars, histograms. Colours are classes of the page's style."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from edgeco.page.style import COLOURS

Point = tuple[float, float]

LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 30
"""Margins of a chart, for the words at its axes."""
SMALL = 430
"""Width up to which charts stand side by side."""


def chart(
    curves: Mapping[str, Sequence[Point]],
    *,
    title: str,
    across: str,
    low: float | None = None,
    high: float | None = None,
    logarithmic: bool = False,
    limit: float | None = None,
    percent: bool = False,
    size: tuple[int, int] = (860, 190),
) -> str:
    """Curves over a common axis, with a legend where there are several.

    Args:
        curves: by name their points, in order; a curve of fewer than two is left out.
        title: what is drawn, as a caption.
        across: what the horizontal axis counts.
        low, high: ends of the vertical axis; those of the points unless given.
        logarithmic: draw logarithms; what is not above 0 lies at the bottom.
        limit: a line across, beyond which something is refused.
        percent: write the vertical axis in percent.
        size: width and height.

    Example:
        >>> "unavailable" in chart({"loss": [(1, 2.0)]}, title="Loss", across="step")
        True
    """
    drawn = {name: points for name, points in curves.items() if len(points) > 1}
    if not drawn:
        return f"<figure><figcaption>{escape(title)}: unavailable, of fewer than two points</figcaption></figure>"
    axes = _Axes(drawn, size, low, high, logarithmic, percent)
    lines = [axes.grid(across)]
    if limit is not None and axes.low <= axes.scaled(limit) <= axes.high:
        y = axes.y(limit)
        lines.append(f'<path d="M{LEFT} {y:.1f}H{size[0] - RIGHT}" class="limit"/>')
    for place, (name, points) in enumerate(drawn.items()):
        line = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
        lines.append(f'<polyline points="{line}" class="{_pen(place)}"><title>{escape(name)}</title></polyline>')
    height, legend = size[1], ""
    if len(drawn) > 1:
        legend, more = _legend(list(drawn), size)
        height += more
    caption = f"<figcaption>{escape(title)}</figcaption>"
    kind = ' class="small"' if size[0] <= SMALL else ""
    return f"<figure{kind}>{caption}{_svg(size[0], height, title, ''.join(lines) + legend)}</figure>"


def bars(rows: Iterable[tuple[str, float, float, str]], title: str) -> str:
    """A bar for each row, its part in colour; nothing where there are none.

    Args:
        rows: name, length, how much of that is coloured, and what is written behind it.
        title: what is drawn.
    """
    listed = list(rows)
    if not listed:
        return ""
    most = max((whole for _, whole, _, _ in listed), default=0.0) or 1.0
    row, left, wide = 20, 260, 430
    lines = []
    for place, (name, whole, part, text) in enumerate(listed):
        y, length = place * row, wide * whole / most
        lines.append(
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(_end(name, 42))}</text>'
            f'<rect x="{left}" y="{y + 3}" width="{length:.1f}" height="13" class="gone"/>'
            f'<rect x="{left}" y="{y + 3}" width="{wide * part / most:.1f}" height="13" class="kept"/>'
            f'<text x="{left + length + 6:.1f}" y="{y + 14}">{escape(text)}</text>'
        )
    caption = f"<figcaption>{escape(title)}</figcaption>"
    return f"<figure>{caption}{_svg(left + wide + 170, row * len(listed), title, ''.join(lines))}</figure>"


def histogram(counts: Sequence[int], *, kept: float = 1.0, title: str = "") -> str:
    """Counts as bars of a logarithmic height; those beyond ``kept``, a share of the width, are clipped and red."""
    most = math.log1p(max(counts, default=0))
    if not counts or most <= 0:
        return ""
    wide, high = 180.0, 26
    step = wide / len(counts)
    shapes: dict[str, list[str]] = {"kept": [], "clipped": []}
    for place, count in enumerate(counts):
        tall = high * math.log1p(count) / most
        if tall > 0:
            kind = "kept" if place * step < wide * kept - 1e-9 else "clipped"
            shapes[kind].append(f"M{place * step:.1f} {high}v{-tall:.1f}h{step:.2f}v{tall:.1f}z")
    lines = [f'<path class="{kind}" d="{"".join(paths)}"/>' for kind, paths in shapes.items() if paths]
    if kept < 1:
        lines.append(f'<path class="edge" d="M{wide * kept:.1f} 0V{high}"/>')
    return _svg(int(wide), high, title, "".join(lines), small=True)


class _Axes:
    """Where numbers lie in a chart."""

    def __init__(
        self,
        curves: Mapping[str, Sequence[Point]],
        size: tuple[int, int],
        low: float | None,
        high: float | None,
        logarithmic: bool,
        percent: bool,
    ) -> None:
        self.size, self.logarithmic, self.percent = size, logarithmic, percent
        points = [point for curve in curves.values() for point in curve]
        self.first, self.last = min(x for x, _ in points), max(x for x, _ in points)
        values = [y for _, y in points if math.isfinite(y)] or [0.0]
        positive = [y for y in values if y > 0] or [1.0]
        self.floor = min(positive)
        least = (self.floor if logarithmic else min(values)) if low is None else low
        most = max(values) if high is None else high
        self.low, self.high = self.scaled(least), self.scaled(most)
        if logarithmic:  # whole powers, so that there is a line at each end
            self.low = math.floor(self.low)
            self.high = max(math.ceil(self.high), self.low + 1)
            return
        greatest = max(abs(self.low), abs(self.high)) or 1.0
        if self.high - self.low <= 1e-9 * greatest:  # all alike: a line in the middle
            self.low, self.high = self.low - (0.5 * greatest if low is None else 0.0), self.high + 0.5 * greatest

    def scaled(self, value: float) -> float:
        return math.log10(max(value, self.floor * 1e-3)) if self.logarithmic else value

    def x(self, value: float) -> float:
        share = (value - self.first) / ((self.last - self.first) or 1.0)
        return LEFT + (self.size[0] - LEFT - RIGHT) * share

    def y(self, value: float) -> float:
        at = self.scaled(value) if math.isfinite(value) else (self.high if value > 0 else self.low)
        share = min(max((at - self.low) / (self.high - self.low), 0.0), 1.0)
        return TOP + (self.size[1] - TOP - BOTTOM) * (1 - share)

    def grid(self, across: str) -> str:
        width, height = self.size
        lines = []
        for at in self._marks():
            y = self.y(10.0**at if self.logarithmic else at)
            lines.append(
                f'<path d="M{LEFT} {y:.1f}H{width - RIGHT}" class="grid"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" class="quiet">{self._word(at)}</text>'
            )
        ends = ((LEFT, "start", f"{self.first:g}"), (width - RIGHT, "end", f"{across} {self.last:g}"))
        lines += [
            f'<text x="{x}" y="{height - 10}" text-anchor="{anchor}" class="quiet">{escape(text)}</text>'
            for x, anchor, text in ends
        ]
        return "".join(lines)

    def _marks(self) -> list[float]:
        if self.logarithmic:
            powers = range(round(self.low), round(self.high) + 1)
            every = max(1, len(powers) // 5)
            return [float(power) for power in powers[::every]]
        span = (self.high - self.low) / 4
        size = 10.0 ** math.floor(math.log10(span))
        step = next(size * m for m in (1, 2, 5, 10) if size * m >= span * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [step * (first + i) for i in range(int((self.high - step * first) / step + 1e-9) + 1)]

    def _word(self, at: float) -> str:
        if self.logarithmic:
            return f"{10.0**at:g}" if at > -4 else f"1e{at:.0f}"
        return f"{100 * at:.4g} %" if self.percent else f"{round(at, 10):.6g}"


def _legend(names: Sequence[str], size: tuple[int, int]) -> tuple[str, int]:
    """Names with a piece of their lines, below a chart, and the height that they take."""
    across = max(1, (size[0] - LEFT) // 200)
    made = []
    for place, name in enumerate(names):
        x, y = LEFT + 200 * (place % across), size[1] + 12 + 16 * (place // across)
        text = f'<text x="{x + 28}" y="{y}">{escape(_end(name, 28))}</text>'
        made.append(f'<path d="M{x} {y - 4}h22" class="{_pen(place)}"/>{text}')
    return "".join(made), 16 * -(-len(names) // across) + 6


def _pen(place: int) -> str:
    return f"curve c{place % COLOURS}" + (" dashed" if place >= COLOURS else "")


def _end(name: str, most: int) -> str:
    """The end of a name, where modules differ."""
    return name if len(name) <= most else "…" + name[1 - most :]


def _svg(width: int, height: int, label: str, body: str, small: bool = False) -> str:
    kind = ' class="small"' if small else ""
    return (
        f'<svg{kind} viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">{body}</svg>'
    )

"""A report as a page: tables and drawings in one file that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;margin:.6rem 0 1.6rem;width:100%}
td,th{padding:.25rem .6rem;border-bottom:1px solid #d8dee4}
th{text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}h2{margin-top:2rem}small{color:#59636e}
svg text{font:11px system-ui,sans-serif;fill:currentColor}svg{max-width:100%;height:auto}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}td,th{border-color:#30363d}}
"""
_KEPT, _GONE = "#2f6feb", "#c9d1d9"


def page(report: dict[str, Any]) -> str:
    """One HTML document."""
    name = escape(str(report["name"]))
    free = [g for g in report["groups"] if g["blocked"] is None]
    stays = [g for g in report["groups"] if g["blocked"] is not None]
    parts = [
        f"<h1>Pruning of {name}</h1>",
        f"<p>Budget {escape(report['budget'])}, importance {escape(report['importance'])}, seed {report['seed']}. "
        f"{_exactness(report)}</p>",
        "<h2>Before and after</h2>",
        _figures(report),
        _rounds(report["rounds"]),
        "<h2>Groups</h2><p>Channels that fall together, by the layer that makes them: kept, and removed in grey.</p>",
        _bars(free),
        _curves(report["curves"]),
        "<h2>Layers</h2>",
        _table(("layer", "MACs", "after", "parameters", "after"), [_layer_row(row) for row in report["layers"]]),
        "<h2>State</h2>",
        _table(("history", "bytes", "after"), [(h["name"], *h["bytes"]) for h in report["histories"]]),
        "<h2>What stays, and why</h2>",
        _table(("channels of", "number", "reason"), [(g["name"], g["channels"][0], g["blocked"]) for g in stays]),
        _unknown(report["unknown"]),
    ]
    head = f'<meta charset="utf-8"><title>Pruning of {name}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _exactness(report: dict[str, Any]) -> str:
    if report["difference"] is None:
        return "Nothing was removed exactly."
    said = f"Removing channels equals zeroing them: greatest relative difference {report['difference']:.1e} in float64."
    return said + (" Some groups change a normalisation and are approximate." if report["approximate"] else "")


def number(value: Any) -> str:
    """A figure as a person reads it; "unavailable" for what was not measured."""
    if value is None:
        return "unavailable"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def figure_rows(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Figures before, after, and what is left of each."""
    figures = report["figures"]
    rows = [
        ("multiply-accumulates of a clip (MACs)", figures["macs"]),
        ("parameters", figures["parameters"]),
        ("filters (channels that could be removed)", figures["filters"]),
        ("state of a stream, bytes", figures["state_bytes"]),
    ]
    latency = figures["latency_seconds"]
    for key in ("p50", "p95"):
        pair = None if latency is None else [round(1e3 * t, 4) for t in latency[key]]
        rows.append((f"step on this machine, {key}, ms", pair))
    rows.append(("accuracy on clips held out", figures["accuracy"]))
    return [_figure(name, pair) for name, pair in rows]


def _figure(name: str, pair: Sequence[Any] | None) -> tuple[str, str, str, str]:
    before, after = pair if pair is not None else (None, None)
    left = f"{after / before:.1%}" if pair is not None and before and not name.startswith("accuracy") else ""
    return name, number(before), number(after), left


def _figures(report: dict[str, Any]) -> str:
    return _table(("", "before", "after", "left"), figure_rows(report))


def _rounds(rounds: Sequence[dict[str, Any]]) -> str:
    if not rounds or rounds[0]["raw"] is None:
        return ""
    head = ("round", "MACs", "pruned", "norms recalibrated", "trained")
    rows = [(i + 1, r["macs"], r["raw"], r["recalibrated"], r["trained"]) for i, r in enumerate(rounds)]
    return f"<h2>Accuracy by round</h2>{_table(head, rows)}"


def _layer_row(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["name"], *row["macs"], *row["parameters"])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        plain = isinstance(value, str) and not value.replace(",", "").replace(".", "").replace("%", "").isdigit()
        text = escape(value) if isinstance(value, str) else number(value)
        return f"<td>{text}</td>" if plain else f'<td class="n">{text}</td>'

    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(f"<tr>{''.join(cell(v) for v in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _bars(groups: Sequence[dict[str, Any]]) -> str:
    """A bar for every group, as long as it has channels."""
    if not groups:
        return ""
    most = max(g["channels"][0] for g in groups)
    row, left, wide = 18, 320, 560
    lines = []
    for i, group in enumerate(groups):
        before, after = group["channels"]
        y, scale = i * row, wide / most
        lines.append(
            f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(group["name"][-48:])}</text>'
            f'<rect x="{left}" y="{y + 2}" width="{before * scale:.1f}" height="12" fill="{_GONE}"/>'
            f'<rect x="{left}" y="{y + 2}" width="{after * scale:.1f}" height="12" fill="{_KEPT}"/>'
            f'<text x="{left + before * scale + 6:.1f}" y="{y + 12}">{after} of {before}</text>'
        )
    size = f'viewBox="0 0 {left + wide + 100} {row * len(groups)}"'
    return f'<svg {size} role="img" aria-label="channels kept of every group">{"".join(lines)}</svg>'


def _curves(curves: dict[str, dict[str, float]]) -> str:
    """Accuracy with one group pruned alone, a small drawing for each."""
    drawn = [_curve(name, curve) for name, curve in curves.items() if curve]
    if not drawn:
        return ""
    return f"<h2>Sensitivity</h2><p>Accuracy with one group pruned alone, by the share removed.</p>{''.join(drawn)}"


def _curve(name: str, curve: dict[str, float]) -> str:
    points = sorted((float(share), score) for share, score in curve.items())
    path = " ".join(f"{20 + 180 * x:.1f},{90 - 80 * max(0.0, min(1.0, y)):.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{20 + 180 * x:.1f}" cy="{90 - 80 * max(0.0, min(1.0, y)):.1f}" r="3" fill="{_KEPT}">'
        f"<title>{x:.0%} removed: {y:.3f}</title></circle>"
        for x, y in points
    )
    frame = f'<path d="M20 10V90H200" fill="none" stroke="{_GONE}"/>'
    line = f'<polyline points="{path}" fill="none" stroke="{_KEPT}" stroke-width="1.5"/>'
    text = f'<text x="20" y="106">{escape(name[-34:])}</text>'
    return f'<svg viewBox="0 0 220 112" width="220" role="img">{frame}{line}{dots}{text}</svg>'


def _unknown(unknown: dict[str, str]) -> str:
    if not unknown:
        return ""
    rows = list(unknown.items())
    return (
        f"<h2>Operators without a rule</h2><p>All that they touch stays.</p>{_table(('operator', 'first use'), rows)}"
    )

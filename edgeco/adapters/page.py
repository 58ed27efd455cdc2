"""The report of an adaptation as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgeco.adapters.learn import AdaptReport

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:58rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}h1{font-size:1.4rem}h2{font-size:1.1rem}"
    "svg{background:#fafafa;border:1px solid #ddd}small{color:#666}"
)


def page(report: AdaptReport) -> str:
    """The page."""
    learned, before, after = report.learned, report.before, report.after
    share = learned.parameters / max(report.parameters, 1)
    parts = [
        f"<h1>Task pack {escape(report.name)}</h1>",
        f"<p>{escape(report.data)}: {report.cases} cases of {len(report.labels)} classes, {report.held_out} held out. "
        f"Learned in the {report.regime} regime, {report.steps} steps ({escape(report.ended)}).</p>",
        "<h2>Accuracy on what was held out</h2>",
        _table(
            ("", "before", "after"),
            [
                ("clip network, last clip", f"{before.clip:.1%}", f"{after.clip:.1%}"),
                ("stream, after the last frame", f"{before.step:.1%}", f"{after.step:.1%}"),
                ("stream, every answer", f"{before.steps:.1%}", f"{after.steps:.1%}"),
            ],
        ),
        "<h2>What the task adds</h2>",
        _table(
            ("", "numbers"),
            [
                ("adapters", f"{learned.adapters:,}"),
                ("biases", f"{learned.biases:,}"),
                ("norms", f"{learned.norms:,}"),
                ("head", f"{learned.head:,}"),
                ("learned in all", f"{learned.parameters:,} ({share:.1%} of the network's {report.parameters:,})"),
                ("statistics of norms, stored", f"{learned.statistics:,}"),
                ("mask bits", f"{learned.mask_bits:,}"),
                ("bytes in all", f"{learned.bytes:,}"),
            ],
        ),
        "<h2>Loss</h2>",
        curve([(done, loss) for done, loss, _ in report.curve]),
        "<h2>Adapted weights</h2>",
        _table(
            ("weight", "shape", "adapter", "learned", "of"),
            [
                (x["weight"], " x ".join(map(str, x["shape"])), x["form"], f"{x['learned']:,}", f"{x['of']:,}")
                for x in report.layers
            ],
            text=3,
        ),
    ]
    if report.skipped:
        parts += ["<h2>Left alone</h2>", _table(("weight", "which"), list(report.skipped.items()), text=2)]
    parts.append(f"<p><small>base {report.base}<br>data {report.fingerprint}</small></p>")
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(report.name)}</title>\n' + (
        f"<style>{_STYLE}</style>\n<body>\n{body}\n</body></html>\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> str:
    """A table of which the first columns hold text, the others numbers."""

    def row(cells: Sequence[str], tag: str) -> str:
        made = (f"<{tag}{'' if i < text else ' class=n'}>{escape(str(cell))}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(made)}</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def curve(points: Sequence[tuple[int, float]], width: int = 640, height: int = 200) -> str:
    """A line of the loss over steps, as SVG.

    >>> curve([(1, 2.0)])
    '<p>unavailable: fewer than two points</p>'
    """
    if len(points) < 2:
        return "<p>unavailable: fewer than two points</p>"
    last, most = max(x for x, _ in points), max(max(y for _, y in points), 1e-9)
    inner_w, inner_h = width - 60, height - 40
    place = [(50 + inner_w * x / last, 10 + inner_h * (1 - y / most)) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in place)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="loss">'
        f'<polyline points="{line}" fill="none" stroke="#0a6" stroke-width="2"/>'
        f'<text x="4" y="18" font-size="12">{most:.2f}</text><text x="4" y="{height - 28}" font-size="12">0</text>'
        f'<text x="{width - 60}" y="{height - 8}" font-size="12">step {last}</text></svg>'
    )

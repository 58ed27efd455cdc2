"""The report of a pruning as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeco.page import bars, chart, document, paragraph, section, table
from edgeco.page.document import number


def page(report: dict[str, Any]) -> str:
    """One HTML document."""
    free = [g for g in report["groups"] if g["blocked"] is None]
    stays = [g for g in report["groups"] if g["blocked"] is not None]
    parts = [
        paragraph(
            f"Budget {report['budget']}, importance {report['importance']}, seed {report['seed']}. {_exactness(report)}"
        ),
        section("Before and after", table(("", "before", "after", "left"), figure_rows(report))),
        _rounds(report["rounds"]),
        section("Groups", _bars(free)),
        _curves(report["curves"]),
        section(
            "Layers",
            table(("layer", "MACs", "after", "parameters", "after"), [_layer_row(row) for row in report["layers"]]),
        ),
        section("State", table(("history", "bytes", "after"), [(h["name"], *h["bytes"]) for h in report["histories"]])),
        section(
            "What stays, and why",
            table(("channels of", "number", "reason"), [(g["name"], g["channels"][0], g["blocked"]) for g in stays]),
        ),
        _unknown(report["unknown"]),
    ]
    return document(f"Pruning of {report['name']}", parts)


def _exactness(report: dict[str, Any]) -> str:
    if report["difference"] is None:
        return "Nothing was removed exactly."
    said = f"Removing channels equals zeroing them: greatest relative difference {report['difference']:.1e} in float64."
    return said + (" Some groups change a normalisation and are approximate." if report["approximate"] else "")


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


def _rounds(rounds: Sequence[dict[str, Any]]) -> str:
    if not rounds or rounds[0]["raw"] is None:
        return ""
    head = ("round", "MACs", "pruned", "norms recalibrated", "trained")
    rows = [(i + 1, r["macs"], r["raw"], r["recalibrated"], r["trained"]) for i, r in enumerate(rounds)]
    return section("Accuracy by round", table(head, rows))


def _layer_row(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["name"], *row["macs"], *row["parameters"])


def _bars(groups: Sequence[dict[str, Any]]) -> str:
    """A bar for every group, as long as it has channels."""
    counted = [(g["name"], *g["channels"]) for g in groups]
    rows = [(name, before, after, f"{after} of {before}") for name, before, after in counted]
    return bars(rows, "Channels that fall together, by the layer that makes them: kept, and removed in grey.")


def _curves(curves: dict[str, dict[str, float]]) -> str:
    """Accuracy with one group pruned alone, a small drawing for each."""
    drawn = [
        chart(
            {name: sorted((float(share), score) for share, score in curve.items())},
            title=f"{name}: accuracy by the share removed of it alone",
            across="share removed",
            low=0.0,
            high=1.0,
            percent=True,
            size=(420, 130),
        )
        for name, curve in curves.items()
        if curve
    ]
    return section("Sensitivity", *drawn)


def _unknown(unknown: dict[str, str]) -> str:
    rows = list(unknown.items())
    return section(
        "Operators without a rule",
        paragraph("All that they touch stays.") if rows else "",
        table(("operator", "first use"), rows),
    )

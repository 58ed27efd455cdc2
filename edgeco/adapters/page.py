"""The report of an adaptation as a page."""

from __future__ import annotations

from edgeco.adapters.learn import AdaptReport
from edgeco.page import chart, document, note, paragraph, section, table


def page(report: AdaptReport) -> str:
    """One HTML document."""
    learned, before, after = report.learned, report.before, report.after
    share = learned.parameters / max(report.parameters, 1)
    parts = [
        paragraph(
            f"{report.data}: {report.cases} cases of {len(report.labels)} classes, {report.held_out} held out. "
            f"Learned in the {report.regime} regime, {report.steps} steps ({report.ended})."
        ),
        section(
            "Accuracy on what was held out",
            table(
                ("", "before", "after"),
                [
                    ("clip network, last clip", f"{before.clip:.1%}", f"{after.clip:.1%}"),
                    ("stream, after the last frame", f"{before.step:.1%}", f"{after.step:.1%}"),
                    ("stream, every answer", f"{before.steps:.1%}", f"{after.steps:.1%}"),
                ],
            ),
        ),
        section(
            "What the task adds",
            table(
                ("", "numbers"),
                [
                    ("adapters", learned.adapters),
                    ("biases", learned.biases),
                    ("norms", learned.norms),
                    ("head", learned.head),
                    ("learned in all", learned.parameters),
                    ("of the network's", report.parameters),
                    ("which is", f"{share:.1%}"),
                    ("statistics of norms, stored", learned.statistics),
                    ("mask bits", learned.mask_bits),
                    ("bytes in all", learned.bytes),
                ],
            ),
        ),
        section(
            "Loss",
            chart({"loss": [(done, loss) for done, loss, _ in report.curve]}, title="Loss", across="step", low=0.0),
        ),
        section(
            "Adapted weights",
            table(
                ("weight", "shape", "adapter", "learned", "of"),
                [
                    (x["weight"], " x ".join(map(str, x["shape"])), x["form"], x["learned"], x["of"])
                    for x in report.layers
                ],
            ),
        ),
        section("Left alone", table(("weight", "which"), list(report.skipped.items()))),
        note(f"base {report.base}", f"data {report.fingerprint}"),
    ]
    return document(f"Task pack {report.name}", parts)

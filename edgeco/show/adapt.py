"""``edgeco adapt``: the options read, the learning watched, what it came to printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edgeco.command import need_build_side, refuse_overwriting, shape_of, stop_on_signal
from edgeco.show.console import bytes_text, console, facts, plain, print_json, say

if TYPE_CHECKING:
    from edgeco.adapters.learn import AdaptReport


@dataclass(frozen=True)
class AdaptOptions:
    """What ``edgeco adapt`` was asked for: see `edgeco.adapters.job.AdaptJob`."""

    fields: dict[str, Any]
    config: Path | None
    arguments: tuple[str, ...]
    data: Path
    out: Path
    name: str | None = None
    plan: Path | None = None
    group: str | None = None
    shape: str | None = None
    device: str = "auto"
    resume: bool = False
    adapters: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    as_json: bool = False


def adapt_model(options: AdaptOptions) -> bool:
    """Adapt, write and print; says whether it came to its end, rather than being stopped.

    Raises:
        EdgecoError: whatever the options, the network, or the data raise.
    """
    need_build_side()
    from edgeco.adapters.job import AdaptJob
    from edgeco.spec import fields_from
    from edgeco.train.progress import progress

    refuse_overwriting(options.out, options.config, options.plan, options.data, options.fields.get("weights"))
    job = AdaptJob(
        fields_from(options.config, options.fields, options.arguments), options.data, options.out,
        options.adapters, options.recipe, options.name, options.plan, options.group, shape_of(options.shape),
        options.device,
    )  # fmt: skip
    with progress(job.steps) as report, stop_on_signal() as stop:
        made = job.run(resume=options.resume, say=say, report=report, stop=stop)
    if made is None:
        say(f"stopped; what was learned is kept in {job.checkpoint}, go on with --resume")
        return False
    if options.as_json:
        print_json(made.to_json())
    else:
        show_adapted(made, options.out, console())
    return True


def show_adapted(report: AdaptReport, out: Path, shown: Console) -> None:
    """Print what an adaptation came to."""
    learned, before, after = report.learned, report.before, report.after
    more = f", {learned.mask_bits} mask bits" if learned.mask_bits else ""
    values = {
        "data": f"{report.data}: {report.cases} cases of {len(report.labels)} classes, {report.held_out} held out",
        "learned": (
            f"{learned.parameters:,} numbers, {learned.parameters / max(report.parameters, 1):.1%} of the network's: "
            f"adapters {learned.adapters:,}, norms {learned.norms:,}, biases {learned.biases:,}, head {learned.head:,}"
        ),
        "stored": f"{bytes_text(learned.bytes)}, with {learned.statistics:,} statistics of norms{more}",
        "clip network": f"{before.clip:.1%} of the held-out cases before, {after.clip:.1%} after",
        "its stream": f"{before.step:.1%} before, {after.step:.1%} after; of every answer {after.steps:.1%}",
    }
    if report.skipped:
        values["left alone"] = ", ".join(report.skipped)
    shown.print(facts(f"Task pack {report.name}", values))
    shown.print(plain(f"{out} is written, its report beside it; fuse it with: edgeco build MODEL --pack {out} -o FILE"))

"""An estimate as tables: floors by number of streams, the dearest kernels, and what was assumed."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from edgeco.devices.estimate import Estimate
from edgeco.show.console import bytes_text, count_text, facts, milliseconds, plain, table

COSTLIEST = 12


def show_estimate(estimate: Estimate, console: Console) -> None:
    """Print an estimate."""
    console.print(_floors(estimate))
    chosen = "fp16" if "fp16" in estimate.kernels else next(iter(estimate.kernels))
    console.print(_kernels(estimate, chosen))
    lines = {str(place): text for place, text in enumerate(estimate.assumptions, start=1)}
    console.print(facts("Assumed", lines))
    console.print(plain("A floor: no step can be faster under these assumptions, and real ones are slower.", "bold"))


def _floors(estimate: Estimate) -> Table:
    strided = estimate.stride > 1
    columns = ["precision", "streams", "ms a step", "frames a second", "weights and states", "bound by"]
    columns[3:3] = ["ms, dearest step"] if strided else []
    title = f"{estimate.bundle} on {estimate.device}: floor of a step"
    made = table(title, *columns, right=tuple(range(1, len(columns) - 1)))
    for floor in estimate.floors:
        size = bytes_text(floor.memory) + (" TOO LARGE" if floor.fits is False else "")
        bounds = ", ".join(f"{name} {share:.0%}" for name, share in floor.shares.items() if share >= 0.005)
        worst = [milliseconds(floor.worst)] if strided else []
        made.add_row(
            floor.precision, str(floor.streams), milliseconds(floor.mean), *worst, f"{floor.fps:.0f}", size, bounds
        )
    return made


def _kernels(estimate: Estimate, precision: str) -> Table:
    kernels = estimate.kernels[precision]
    total = sum(kernel.floor * kernel.steps for kernel in kernels) or 1.0
    dearest = sorted(enumerate(kernels), key=lambda entry: -entry[1].floor * entry[1].steps)[:COSTLIEST]
    title = f"Dearest of {len(kernels)} kernels, one stream, {precision}"
    columns = ("kernel", "operator", "multiply-accumulates", "traffic", "compute µs", "memory µs", "µs", "share", "")
    made = table(title, *columns, right=(0, 2, 3, 4, 5, 6, 7))
    for place, kernel in dearest:
        made.add_row(
            str(place),
            plain(kernel.op),
            count_text(kernel.macs),
            bytes_text(kernel.bytes),
            *(f"{seconds * 1e6:.2f}" for seconds in (kernel.compute, kernel.memory, kernel.floor)),
            f"{kernel.floor * kernel.steps / total:.1%}",
            kernel.bound,
        )
    return made

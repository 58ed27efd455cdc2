"""Commands about one bundle: ``verify``, ``inspect`` and ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from edgeco.cli.options import AUTO_PRECISION, BUNDLE, JSON, PRECISION, engine_options
from edgeco.command import Command
from edgeco.errors import CheckFailed

_ENERGY = "Seconds over which power is measured, where there is a sensor; 0: not."


@click.command(cls=Command)
@BUNDLE
@engine_options
@PRECISION
@JSON
def verify(
    bundle: Path,
    engine: str,
    threads: int | None,
    precision: Literal["fp32", "fp16", "int8"] | None,
    as_json: bool,
) -> None:
    """Check that BUNDLE gives its golden answers on this device.

    In every variant that this device runs, or in those of one precision.
    """
    from edgeco.runtime import verify as library
    from edgeco.show.console import console, print_json, say
    from edgeco.show.measures import show_verify

    failure: library.VerifyFailed | None = None
    try:
        report = library.verify(bundle, engine=engine, threads=threads, precision=precision, say=say)
    except library.VerifyFailed as error:
        failure, report = error, error.report
    if as_json:
        print_json(report.to_json())
    else:
        show_verify(report, console())
    if failure is not None:
        raise failure


@click.command(cls=Command)
@BUNDLE
@click.option("--ranges", is_flag=True, help="Show the ranges of its tensors and histories, with histograms.")
@click.option("--page", type=click.Path(path_type=Path), metavar="FILE", help="Write its report as an HTML page.")
@JSON
def inspect(bundle: Path, ranges: bool, page: Path | None, as_json: bool) -> None:
    """Show what BUNDLE holds.

    Inputs and outputs, timeline, histories, costs, variants, members and the conversion report; with --ranges what a
    calibration saw instead. With --page also a page that draws how each precision drifts from FP32 over a stream, what
    it stores and takes, and the ranges.
    """
    from edgeco.bundle import open_bundle
    from edgeco.show.console import console, print_json
    from edgeco.show.inspect import bundle_facts, show_bundle

    opened = open_bundle(bundle)
    if page is not None:
        from edgeco.show.bundle_page import write_page

        write_page(opened, page)
    if ranges:
        from edgeco.show.ranges import show_ranges

        found = opened.ranges()
        if found is None:
            raise CheckFailed(f"{bundle} was not calibrated; do so with: edgeco calibrate {bundle} --source …")
        if as_json:
            print_json(found)
        else:
            show_ranges(found, console())
    elif as_json:
        print_json(bundle_facts(opened))
    else:
        show_bundle(opened, console())


@click.command(cls=Command)
@BUNDLE
@engine_options
@AUTO_PRECISION
@click.option("--rows", type=click.IntRange(min=1), default=1, show_default=True, help="Streams in lock-step.")
@click.option("--steps", type=click.IntRange(min=1), default=200, show_default=True, help="Steps that are timed.")
@click.option("--energy", type=click.FloatRange(min=0), default=3, show_default=True, help=_ENERGY)
@click.option("--estimate", is_flag=True, help="Run nothing: give the least time a step can take on a GPU.")
@click.option("--device", metavar="NAME", help="The device to estimate for; this one if not given.")
@click.option("--streams", type=click.IntRange(min=1), default=64, show_default=True, help="Most streams estimated.")
@click.option("--launch", type=click.FloatRange(min=0), metavar="US", help="Microseconds of an empty kernel.  [2]")
@JSON
def bench(
    bundle: Path,
    engine: str,
    threads: int | None,
    precision: Literal["fp32", "fp16", "int8"] | None,
    rows: int,
    steps: int,
    energy: float,
    estimate: bool,
    device: str | None,
    streams: int,
    launch: float | None,
    as_json: bool,
) -> None:
    """Time BUNDLE on this device, on its own golden frames.

    With --estimate nothing is run: the floor of a step's latency is computed from the bundle's costs and the figures of
    a device, which need not be at hand.
    """
    from edgeco.show.console import console, print_json, say

    if estimate:
        from edgeco.devices.estimate import estimate_bundle
        from edgeco.show.estimate import show_estimate

        floors = estimate_bundle(bundle, device, streams, launch * 1e-6 if launch is not None else None)
        if as_json:
            print_json(floors.to_json())
        else:
            show_estimate(floors, console())
        return
    if device is not None:
        raise click.UsageError("--device is for --estimate: without it, this device is timed.")
    from edgeco.runtime import bench as library
    from edgeco.show.measures import show_bench

    report = library.bench(
        bundle, engine=engine, threads=threads, precision=precision, rows=rows, steps=steps, energy=energy, say=say
    )
    if as_json:
        print_json(report.to_json())
    else:
        show_bench(report, console())

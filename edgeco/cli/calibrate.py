"""``calibrate``: ranges for INT8 and FP16 from real streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeco.cli.options import BUNDLE, JSON
from edgeco.command import Command

_METHODS = ("max", "entropy", "percentile", "mse")
_OF_SOURCES = ("method", "percentile", "streams", "seed", "frames", "seconds", "reset", "fps", "shape", "pre")


@click.command(cls=Command)
@BUNDLE
@click.option("--source", "sources", multiple=True, metavar="SOURCE", help="What to calibrate on; repeatable.")
@click.option("--ranges", type=click.Path(path_type=Path), help="Take ranges found before, of this network only.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The bundle to write, or a .json file.  [BUNDLE]")
@click.option(
    "--method", type=click.Choice(_METHODS), default="percentile", show_default=True, help="How a range is chosen."
)
@click.option("--percentile", type=float, default=99.9999, show_default=True, help="Share kept by that method.")
@click.option("--streams", type=click.IntRange(min=1), help="Most recordings, of every class in proportion.  [all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of their choice.")
@click.option("--frames", type=click.IntRange(min=1), help="Most frames of each.  [all]")
@click.option("--seconds", type=float, help="Most seconds of each.  [all; of a camera 30]")
@click.option("--precision", "precisions", multiple=True, type=click.Choice(["fp16", "int8"]), help="Forms to write.")
@click.option("--keep-float", "kept", multiple=True, metavar="NAME", help="A layer that INT8 leaves alone; repeatable.")
@click.option("--forget-float", is_flag=True, help="Leave no more alone what the bundle's forms leave alone so far.")
@click.option(
    "--least-cosine",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.97,
    show_default=True,
    help="Of INT8's answers with FP32's; a form below is refused.",
)
@click.option("--budget", type=float, metavar="ERROR", help="Leave in float what costs most until INT8 errs so little.")
@click.option("--sensitivity", is_flag=True, help="Tell what each layer and history costs in INT8.")
@click.option("--reset", type=click.IntRange(min=1), help="Frames after which the device resets a stream.  [never]")
@click.option("--fps", type=float, help="Rate the network is held to; the bundle's unless given; 0 is every frame.")
@click.option("--shape", metavar="T,…", help="Of the case in each line of a .csv: frames, and a frame's shape.")
@click.option("--pre", metavar="MODULE:NAME", help="Makes of a frame what the network takes: a pose estimator, say.")
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads; the physical cores.")
@JSON
@click.pass_context
def calibrate(
    context: click.Context,
    /,
    bundle: Path,
    sources: tuple[str, ...],
    ranges: Path | None,
    out: Path | None,
    pre: str | None,
    shape: str | None,
    precisions: tuple[str, ...],
    kept: tuple[str, ...],
    forget_float: bool,
    least_cosine: float,
    budget: float | None,
    sensitivity: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the ranges of BUNDLE's numbers over real streams.

    They are those of every tensor and history. SOURCE is what 'edgeco run' takes, a folder of recordings (one per
    class, if any), or a file of cases (.npz, .ts). Each recording is a stream from reset, read, paced and prepared as
    on the device. Ctrl-C keeps what was seen; the same command goes on from there. Without -o the bundle itself is
    written anew: with the ranges, with what --precision asks for, and with the INT8 forms that it had, made again from
    the new ranges.
    """
    from edgeco.command import need_build_side, refuse_overwriting, shape_of, stop_on_signal
    from edgeco.show.calibration import calibration_progress, show_calibrated
    from edgeco.show.console import console, print_json

    if bool(sources) == (ranges is not None):
        raise click.UsageError("Give --source, as often as you like, or --ranges: what is to be calibrated on.")
    if ranges is not None:
        _refuse_beside_ranges(context)
    need_build_side("onnx")
    from edgeco.calibration.calibrating import Plan, Watch, calibrate_bundle
    from edgeco.calibration.making import Wanted
    from edgeco.calibration.ranges import load_ranges
    from edgeco.runtime.pre import load_pre

    refuse_overwriting(out, ranges, *sources, None if pre is None else pre.rpartition(":")[0])
    prepare = None if pre is None else load_pre(pre)
    told = {"pre": prepare, "shape": shape_of(shape), **options}
    plan = Plan(tuple(sources), **told) if ranges is None else load_ranges(ranges)
    with calibration_progress(console(stderr=True)) as progress, stop_on_signal() as stop:
        watch = Watch(progress.of_frames, progress.of_stages, stop)
        report = calibrate_bundle(
            bundle, plan, out, watch, Wanted(precisions, kept, budget, sensitivity, forget_float, least_cosine)
        )
    if as_json:
        print_json(report.to_json())
    else:
        show_calibrated(report, console())


def _refuse_beside_ranges(context: click.Context) -> None:
    """Say that an option would do nothing, for the ranges are there already."""
    for name in _OF_SOURCES:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} is of what is read from --source; with --ranges it would do nothing.")

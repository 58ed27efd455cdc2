"""The command line: parse, call the library, print. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from edgeco import __version__
from edgeco.command import Group

_Function = TypeVar("_Function", bound=Callable[..., object])

_BUNDLE = click.argument("bundle", type=click.Path(path_type=Path))
_PRECISION = click.option("--precision", type=click.Choice(["fp32", "fp16"]), help="Of TensorRT; fp16 if it can be.")
_ENERGY = "Seconds over which power is measured, where there is a sensor; 0: not."
_IDLE_POWER = "Measure power idle first, to tell the energy above it."
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")


def _engine_options(function: _Function) -> _Function:
    threads = click.option("--threads", type=click.IntRange(min=1), help="Processor threads; the physical cores.")
    names = "auto, onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt or tensorrt"
    engine = click.option("--engine", default="auto", show_default=True, help=f"What runs the network: {names}.")
    return engine(threads(function))


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgeco", message="%(prog)s %(version)s")
def main() -> None:
    """Video networks that see a live camera frame by frame.

    Results go to standard output, messages to standard error. Exit codes: 0 well, 1 a check failed or a file cannot be
    written, 2 usage, 3 the model cannot be converted, 4 an engine or a source is missing or fails, 5 a bundle is
    damaged or foreign, 70 a fault in edgeco.
    """


@main.command()
@click.argument("model", required=False)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The bundle to write.")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with any of the fields below.")
@click.option("--name", help="What the bundle calls the network.")
@click.option("--set", "arguments", multiple=True, metavar="KEY=VALUE", help="An argument of the factory; repeatable.")
@click.option("--clip", metavar="C,T,H,W", help="Shape of one clip, without the batch.")
@click.option("--time-dim", type=int, help="Axis of the batched clip that counts frames.  [default: 2]")
@click.option("--fps", type=float, help="Frames per second the network was trained at.")
@click.option("--input", type=click.Choice(["image", "array"]), help="Camera frames, or plain numbers.")
@click.option("--mean", metavar="R,G,B", help="Mean of pixels scaled to 0 … 1.")
@click.option("--std", metavar="R,G,B", help="Their standard deviation.")
@click.option("--colour", type=click.Choice(["rgb", "bgr", "gray"]), help="Colour order it was trained with.")
@click.option("--resize", type=click.Choice(["crop", "letterbox", "stretch"]), help="How a picture becomes a frame.")
@click.option("--interpolation", type=click.Choice(["area", "linear", "cubic", "nearest"]))
@click.option("--roi", metavar="L,T,R,B", help="Region of interest, as fractions of the picture.")
@click.option("--labels", metavar="FILE", help="Class names, one per line.")
@click.option("--activation", type=click.Choice(["none", "softmax", "sigmoid"]), help="What turns answers into scores.")
@click.option("--weights", metavar="FILE", help="Safetensors, or a checkpoint (read as weights only).")
@click.option("--weights-key", metavar="KEY", help="Where in a nested checkpoint the weights lie.")
@click.option("--window", type=int, help="Elements the final pooling over time takes.")
@click.option("--exact", type=click.Choice(["interior", "clip"]), help="Recompute what would stream differently.")
@click.option("--start", type=click.Choice(["zeros", "replicate"]), help="What lies before a stream's first frame.")
@click.option("--gated", is_flag=True, default=None, help="Put the start-up into the graph, for other hosts.")
@click.option("--device", metavar="NAME", help="The device it is for ('edgeco devices'); refuses what that cannot do.")
@click.option("--seed", type=int, help="Seed of the golden frames.")
@click.option("--tensorrt", is_flag=True, default=None, help="Also write the forms that TensorRT takes, FP16 too.")
@click.option("--compile", "compile_", is_flag=True, help="Compile for this machine's GPU too; implies --tensorrt.")
@_JSON
def build(
    out: Path, config: Path | None, arguments: tuple[str, ...], compile_: bool, as_json: bool, **flags: object
) -> None:
    """Build a bundle from an ordinary clip network.

    MODEL is package.module:factory, file.py:factory, the name of a network ('edgeco models'), or a program saved by
    torch.export (.pt2). Fields come from the factory's attributes, then from --config, then from the flags.
    """
    from edgeco.command import need_build_side, refuse_overwriting
    from edgeco.show.build import build_progress, show_built
    from edgeco.show.console import console, print_json

    need_build_side()
    from edgeco.building import build as library
    from edgeco.spec import fields_from

    fields = fields_from(config, {**flags, "tensorrt": True} if compile_ else flags, arguments)
    refuse_overwriting(
        out, config, *(str(fields.get(k) or "").rsplit(":", 1)[0] for k in ("model", "weights", "labels"))
    )
    with build_progress(console(stderr=True)) as say:
        report = library(fields, out, say)
    if as_json:
        print_json(report.to_json())
    else:
        show_built(report, out, console())
    if compile_:
        from edgeco.engines.tensorrt.compilation import compile_bundle
        from edgeco.show.console import say
        from edgeco.show.measures import show_compiled

        show_compiled(compile_bundle(out, say=say), console(stderr=as_json))


@main.command()
@_BUNDLE
@click.option("--source", required=True, help="A camera, stream, video file, folder, sensor file or pattern://…")
@click.option("--jsonl", metavar="PATH|-", help="Write one JSON line per frame; '-' is standard output.")
@click.option("--rotate", metavar="SIZE[:KEPT]", help="Begin a new file at this size, as in 10MB:5.")
@click.option("--save", metavar="VIDEO", help="Write a video with the answers drawn in (.mp4, .mkv or .avi).")
@click.option("--show", is_flag=True, help="Show the pictures with the answers in a window; q ends the run.")
@click.option("--fps", type=float, help="Rate the network is held to; the bundle's unless given; 0 is every frame.")
@click.option("--gap", type=click.Choice(["skip", "repeat", "reset"]), default="skip", show_default=True)
@click.option("--gap-threshold", type=float, metavar="SECONDS", help="A longer gap resets the network's state.")
@click.option("--pre", metavar="MODULE:NAME", help="Makes of a frame what the network takes: a pose estimator, say.")
@click.option("--smooth", metavar="mean=N,dwell=N", help="Smooth the answers: a moving mean, a least dwell.")
@_engine_options
@_PRECISION
@click.option("--affinity", metavar="CPUS", help="Run on these processors only, as in 0,2-3.")
@click.option("--preview", type=click.IntRange(0, 65535), metavar="PORT", help="Show the run on a page; 0: any port.")
@click.option("--preview-host", default="127.0.0.1", show_default=True, help="Another address asks for a token.")
@click.option("--idle-power", type=click.FloatRange(0, 600), default=0, metavar="SECONDS", help=_IDLE_POWER)
@click.option("--frames", type=click.IntRange(min=1), help="End after as many frames.")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes named in a line.")
@_JSON
def run(**options: Any) -> None:
    """Run BUNDLE over a source, frame by frame.

    Prints the best class whenever it changes, on a terminal also the figures of the moment, and at the end what was
    done and how long each stage took. With '--jsonl -' standard output holds the lines alone and all else goes to
    standard error. Ctrl-C or SIGTERM ends the run after the frames in hand, with its summary; twice, at once.
    """
    from edgeco.show.run import RunOptions, run_bundle

    run_bundle(RunOptions(**options))


@main.command()
@_BUNDLE
@_engine_options
@_JSON
def verify(bundle: Path, engine: str, threads: int | None, as_json: bool) -> None:
    """Check that BUNDLE gives its golden answers on this device."""
    from edgeco.runtime import verify as library
    from edgeco.show.console import console, print_json, say
    from edgeco.show.measures import show_verify

    failure: library.VerifyFailed | None = None
    try:
        report = library.verify(bundle, engine=engine, threads=threads, say=say)
    except library.VerifyFailed as error:
        failure, report = error, error.report
    if as_json:
        print_json(report.to_json())
    else:
        show_verify(report, console())
    if failure is not None:
        raise failure


@main.command()
@_BUNDLE
@_JSON
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE holds.

    Inputs and outputs, timeline, histories, costs, variants, members and the conversion report.
    """
    from edgeco.bundle import open_bundle
    from edgeco.show.console import console, print_json
    from edgeco.show.inspect import bundle_facts, show_bundle

    opened = open_bundle(bundle)
    if as_json:
        print_json(bundle_facts(opened))
    else:
        show_bundle(opened, console())


@main.command()
@_BUNDLE
@_engine_options
@_PRECISION
@click.option("--rows", type=click.IntRange(min=1), default=1, show_default=True, help="Streams in lock-step.")
@click.option("--steps", type=click.IntRange(min=1), default=200, show_default=True, help="Steps that are timed.")
@click.option("--energy", type=click.FloatRange(min=0), default=3, show_default=True, help=_ENERGY)
@click.option("--estimate", is_flag=True, help="Run nothing: give the least time a step can take on a GPU.")
@click.option("--device", metavar="NAME", help="The device to estimate for; this one if not given.")
@click.option("--streams", type=click.IntRange(min=1), default=64, show_default=True, help="Most streams estimated.")
@click.option("--launch", type=click.FloatRange(min=0), metavar="US", help="Microseconds of an empty kernel.  [2]")
@_JSON
def bench(
    bundle: Path,
    engine: str,
    threads: int | None,
    precision: Literal["fp32", "fp16"] | None,
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


@main.command("compile")
@_BUNDLE
@_PRECISION
@click.option("--rows", type=click.IntRange(min=1), multiple=True, default=(1,), help="Streams at once; repeatable.")
@click.option("--level", type=click.IntRange(0, 5), help="How hard TensorRT tries.  [the device's profile, or 3]")
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="GPU memory for a layer's scratch.")
@click.option("--tactic", "tactics", multiple=True, metavar="NAME", help="Allow these tactic sources only; repeatable.")
@click.option("--fresh", is_flag=True, help="Compile even what is in the cache.")
@click.option("--dla", is_flag=True, help="Refused, with the reason.")
@_JSON
def compile_(
    bundle: Path,
    precision: Literal["fp32", "fp16"] | None,
    rows: tuple[int, ...],
    level: int | None,
    workspace: int | None,
    tactics: tuple[str, ...],
    fresh: bool,
    dla: bool,
    as_json: bool,
) -> None:
    """Compile BUNDLE for this device's GPU with TensorRT.

    Done once on each device; the plans are kept in EDGECO_CACHE (~/.cache/edgeco), where 'run' finds them. Without this
    the first run does it.
    """
    from edgeco.engines.selection import Options
    from edgeco.engines.tensorrt.compilation import compile_bundle
    from edgeco.show.console import console, print_json, say
    from edgeco.show.measures import show_compiled

    options = Options(
        precision=precision, workspace=workspace and workspace << 20, level=level, tactics=tactics or None
    )
    report = compile_bundle(bundle, options=options, rows=rows, fresh=fresh, dla=dla, say=say)
    if as_json:
        print_json(report.to_json())
    else:
        show_compiled(report, console())


@main.command()
@click.argument("name", required=False)
@_JSON
def devices(name: str | None, as_json: bool) -> None:
    """Say which device this is, and which there are profiles of.

    With a NAME, show all that is known of that device and what each figure rests on.
    """
    import msgspec

    from edgeco.devices.catalogue import find_profile, profiles
    from edgeco.devices.detect import detect
    from edgeco.show.console import console, print_json
    from edgeco.show.devices import show_devices, show_profile

    if name is not None:
        profile = find_profile(name)
        if as_json:
            print_json(profile)
        else:
            show_profile(profile, console())
        return
    device = detect()
    if as_json:
        print_json({"this": device.to_json(), "devices": msgspec.to_builtins(profiles())})
    else:
        show_devices(device, profiles(), console())


@main.command()
@_JSON
def models(as_json: bool) -> None:
    """List the networks that 'edgeco build' knows by name.

    What each takes, what one answer rests on, and what a clip and a step cost. Only camera-motion comes with weights;
    for the others give 'edgeco build' a checkpoint (--weights).
    """
    from edgeco.models.catalogue import known
    from edgeco.show.console import console, print_json
    from edgeco.show.models import show_models

    if as_json:
        print_json(known())
    else:
        show_models(known(), console())


@main.command()
@_JSON
def doctor(as_json: bool) -> None:
    """Look at what is installed here, and say what to do about it.

    OpenCV and its GStreamer, ONNX Runtime, TensorRT, the CUDA driver, power mode, memory and the cache. Each library is
    asked in a process of its own. Ends with 4 if something is wrong.
    """
    from edgeco.devices.doctor import examine
    from edgeco.show.console import console, print_json
    from edgeco.show.devices import show_examination

    examination = examine()
    if as_json:
        print_json(examination.to_json())
    else:
        show_examination(examination, console())
    examination.check()


@main.command()
@_engine_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="What the scene looks like.")
@_JSON
def demo(engine: str, threads: int | None, seed: int, as_json: bool) -> None:
    """Run the shipped camera-motion network.

    It sees a drawn scene whose camera motion is known, all eight motions in turn; fewer than 80 % told rightly is a
    failed check.
    """
    from edgeco.errors import CheckFailed
    from edgeco.runtime.demo import LEAST_ACCURACY, load_demo, run_demo
    from edgeco.show.console import console, print_json
    from edgeco.show.demo import show_demo

    report = run_demo(load_demo(engine, threads), seed)
    if as_json:
        print_json(report.to_json())
    else:
        show_demo(report, console())
    if not report.passed:
        raise CheckFailed(
            f"the network told {report.accuracy:.1%} of the motions rightly; {LEAST_ACCURACY:.0%} are due"
        )


if __name__ == "__main__":
    main()

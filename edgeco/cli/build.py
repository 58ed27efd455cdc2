"""Commands that make bundles: ``build``, and ``models``, what it knows by name."""

from __future__ import annotations

from pathlib import Path

import click

from edgeco.cli.options import JSON
from edgeco.command import Command


@click.command(cls=Command)
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
@click.option("--plan", metavar="FILE", help="A pruning plan ('edgeco prune'); the weights are of the pruned network.")
@click.option("--pack", metavar="FILE", help="A task pack of 'edgeco adapt', folded into the base's weights.")
@click.option("--window", type=int, help="Elements the final pooling over time takes.")
@click.option("--exact", type=click.Choice(["interior", "clip"]), help="Recompute what would stream differently.")
@click.option("--start", type=click.Choice(["zeros", "replicate"]), help="What lies before a stream's first frame.")
@click.option("--gated", is_flag=True, default=None, help="Put the start-up into the graph, for other hosts.")
@click.option("--device", metavar="NAME", help="The device it is for ('edgeco devices'); refuses what that cannot do.")
@click.option("--seed", type=int, help="Seed of the golden frames.")
@click.option("--precision", "precisions", multiple=True, type=click.Choice(["fp16", "int8"]), help="Besides FP32.")
@click.option("--calibrate", "sources", multiple=True, metavar="SOURCE", help="What INT8 is calibrated on; repeatable.")
@click.option("--calibration-method", type=click.Choice(["max", "entropy", "percentile", "mse"]))
@click.option("--calibration-streams", type=int, metavar="N", help="Most recordings it takes.")
@click.option("--calibration-frames", type=int, metavar="N", help="Most frames of each.")
@click.option("--calibration-reset", type=int, metavar="N", help="Frames after which the device resets a stream.")
@click.option("--float-budget", type=float, metavar="ERROR", help="Keep in float what makes INT8 err more than that.")
@click.option("--least-cosine", type=float, metavar="C", help="Of INT8's answers with FP32's, or refuse it.  [0.97]")
@click.option("--keep-float", "kept", multiple=True, metavar="NAME", help="A layer that INT8 leaves alone; repeatable.")
@click.option("--tensorrt", is_flag=True, default=None, help="Also write the forms that TensorRT takes, FP16 too.")
@click.option("--compile", "compile_", is_flag=True, help="Compile for this machine's GPU too; implies --tensorrt.")
@JSON
def build(
    out: Path,
    config: Path | None,
    arguments: tuple[str, ...],
    compile_: bool,
    as_json: bool,
    precisions: tuple[str, ...],
    sources: tuple[str, ...],
    kept: tuple[str, ...],
    **flags: object,
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

    flags |= {"precision": ("fp32", *precisions) if precisions else None}
    flags |= {"calibrate": sources or None, "keep_float": kept or None}
    fields = fields_from(config, {**flags, "tensorrt": True} if compile_ else flags, arguments)
    refuse_overwriting(
        out,
        config,
        *(str(fields.get(k) or "").rsplit(":", 1)[0] for k in ("model", "weights", "labels", "plan", "pack")),
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


@click.command(cls=Command)
@JSON
def models(as_json: bool) -> None:
    """List the networks that 'edgeco build' knows by name.

    What each takes, what one answer rests on, and what a clip and a step cost. The first four come with weights; for
    the others give 'edgeco build' a checkpoint (--weights).
    """
    from edgeco.models.catalogue import known
    from edgeco.show.console import console, print_json
    from edgeco.show.models import show_models

    if as_json:
        print_json(known())
    else:
        show_models(known(), console())

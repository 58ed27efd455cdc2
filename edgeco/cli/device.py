"""Commands about devices: ``compile``, ``devices`` and ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from edgeco.cli.options import BUNDLE, JSON, PRECISION
from edgeco.command import Command


@click.command("compile", cls=Command)
@BUNDLE
@PRECISION
@click.option("--rows", type=click.IntRange(min=1), multiple=True, default=(1,), help="Streams at once; repeatable.")
@click.option("--level", type=click.IntRange(0, 5), help="How hard TensorRT tries.  [the device's profile, or 3]")
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="GPU memory for a layer's scratch.")
@click.option("--tactic", "tactics", multiple=True, metavar="NAME", help="Allow these tactic sources only; repeatable.")
@click.option("--fresh", is_flag=True, help="Compile even what is in the cache.")
@click.option("--dla", is_flag=True, help="Refused, with the reason.")
@JSON
def compile_(
    bundle: Path,
    precision: Literal["fp32", "fp16", "int8"] | None,
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


@click.command(cls=Command)
@click.argument("name", required=False)
@JSON
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


@click.command(cls=Command)
@JSON
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

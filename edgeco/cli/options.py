"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., object])

BUNDLE = click.argument("bundle", type=click.Path(path_type=Path))
PRECISION = click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="int8 where it was built; fp16 of TensorRT, if it can.",
)
AUTO_PRECISION = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "int8"]),
    default="auto",
    show_default=True,
    callback=lambda context, option, given: None if given == "auto" else given,
    help="auto: on a processor what the build found faster, FP16 of TensorRT.",
)
"""For what runs one variant: None, which is auto, or a name."""
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")


def engine_options(function: _Function) -> _Function:
    threads = click.option("--threads", type=click.IntRange(min=1), help="Processor threads; the physical cores.")
    names = "auto, onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt or tensorrt"
    engine = click.option("--engine", default="auto", show_default=True, help=f"What runs the network: {names}.")
    return engine(threads(function))

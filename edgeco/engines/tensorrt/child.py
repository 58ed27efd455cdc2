"""The process that compiles: its memory returns to the system, and running out of it takes nobody along.

``python -m edgeco.engines.tensorrt.child FD``: a job as JSON on standard input, lines of JSON on file descriptor FD.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgeco.engines.cuda import open_cuda
from edgeco.engines.tensorrt.api import find_tensorrt
from edgeco.engines.tensorrt.build import Say, build_plan
from edgeco.engines.tensorrt.order import Order
from edgeco.engines.tensorrt.verdict import Refused
from edgeco.errors import EdgecoError
from edgeco.files import replace_file


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of the graph to read and of the plan and the layers to write, the timing cache, and what to build."""

    onnx: str
    plan: str
    layers: str
    timing: str
    order: Order


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of the child: what it is doing, that it is done after so many seconds, or why it is not, and whether
    it never will be."""

    say: str | None = None
    seconds: float | None = None
    error: str | None = None
    refused: bool = False


def work(job: Job, say: Say, cancelled: list[int]) -> float:
    """Do a job; the seconds it took."""
    api = find_tensorrt()
    with open_cuda():  # and so a GPU is known to be there, and its context is the primary one
        kept = Path(job.timing)
        timing = kept.read_bytes() if kept.exists() else b""
        built = build_plan(api, Path(job.onnx).read_bytes(), job.order, timing, say, lambda: bool(cancelled))
    for path, data in ((job.plan, built.plan), (job.layers, built.layers.encode()), (job.timing, built.timing)):
        with replace_file(path) as handle:
            handle.write(data)
    return built.seconds


def main(out: BinaryIO) -> int:
    """Read a job, do it, and tell."""
    cancelled: list[int] = []

    def tell(line: Line) -> None:
        out.write(msgspec.json.encode(line) + b"\n")
        out.flush()

    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    # Ctrl-C reaches this process too, where it would go off inside TensorRT; the other one is told, and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if find_tensorrt().monitored:  # before 10.0 nothing asks whether to go on: the signal ends the process
            signal.signal(signal.SIGTERM, lambda number, frame: cancelled.append(number))
        tell(Line(seconds=work(job, lambda text: tell(Line(say=text)), cancelled)))
    except EdgecoError as error:
        tell(Line(error=str(error), refused=isinstance(error, Refused)))
        return 1
    return 0


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[1]), "wb") as channel:
        raise SystemExit(main(channel))

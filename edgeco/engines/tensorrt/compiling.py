"""Runs the compiling child: its words passed on, its end understood, and never left behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from edgeco.engines.tensorrt.build import Say
from edgeco.engines.tensorrt.child import Job, Line
from edgeco.engines.tensorrt.order import Order
from edgeco.engines.tensorrt.verdict import Refused
from edgeco.errors import EngineError

PATIENCE = 30.0
"""Seconds of silence after which the time spent so far is told."""
GRACE = 10.0
"""Seconds a child that was asked to stop is given."""


CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
"""Ends that a process comes to by itself, and would again with the same graph."""


def compile_in_child(
    onnx: bytes, order: Order, timing: Path, say: Say, cancel: Callable[[], bool] | None = None
) -> tuple[bytes, str, float]:
    """Compile a graph in a process of its own.

    Args:
        onnx: the complete model.
        order: how.
        timing: the timing cache, read and written by the child.
        say: called with what is going on.
        cancel: asked twice a second whether to give up.

    Returns:
        The plan, what its layers became, and the seconds it took.

    Raises:
        Refused: TensorRT does not take the graph.
        EngineError: it failed otherwise, was killed, or was cancelled.
    """
    with tempfile.TemporaryDirectory(prefix="edgeco-compile-") as folder:
        place = Path(folder)
        (place / "graph.onnx").write_bytes(onnx)
        job = Job(
            onnx=str(place / "graph.onnx"),
            plan=str(place / "plan"),
            layers=str(place / "layers"),
            timing=str(timing),
            order=order,
        )
        with open(place / "words", "w+b") as words:
            seconds = _run(job, words.fileno(), say, cancel, place / "words")
        return (place / "plan").read_bytes(), (place / "layers").read_text(encoding="utf-8"), seconds


def _run(job: Job, words: int, say: Say, cancel: Callable[[], bool] | None, spoken: Path) -> float:
    reading, writing = os.pipe()
    # The child must find what this process finds, however it came to be on the path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "edgeco.engines.tensorrt.child", str(writing)],
            stdin=subprocess.PIPE, stdout=words, stderr=words, env=environment, pass_fds=(writing,),
        )  # fmt: skip
    except OSError as error:
        os.close(reading)
        os.close(writing)
        raise EngineError(f"no process can be started to compile the network ({error.strerror})") from error
    os.close(writing)
    try:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(msgspec.json.encode(job))
            child.stdin.close()
        seconds = _listen(reading, say, cancel)
        code = child.wait()
    finally:
        os.close(reading)
        _stop(child)
    if seconds is None or code:
        raise (Refused if -code in CRASHES else EngineError)(_end_of(code, spoken))
    return seconds


def _listen(reading: int, say: Say, cancel: Callable[[], bool] | None) -> float | None:
    """Pass on what the child says; the seconds it took, None if it ended without a word."""
    seconds = None
    start = told = time.monotonic()
    for data in _lines(reading):
        if cancel is not None and cancel():
            raise EngineError("the compilation was cancelled")
        if data is None:
            if time.monotonic() - told > PATIENCE:
                told = time.monotonic()
                say(f"compiling for {told - start:.0f} s so far")
            continue
        line = msgspec.json.decode(data, type=Line)
        if line.error is not None:
            raise (Refused if line.refused else EngineError)(line.error)
        if line.say is not None:
            told = time.monotonic()
            say(line.say)
        seconds = line.seconds if line.seconds is not None else seconds
    return seconds


def _lines(reading: int) -> Iterator[bytes | None]:
    """Whole lines until the other end closes; None twice a second while there is none."""
    rest = b""
    while True:
        if not select.select([reading], [], [], 0.5)[0]:
            yield None
            continue
        data = os.read(reading, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _end_of(code: int, spoken: Path) -> str:
    if code == -signal.SIGKILL:
        return (
            "the system stopped the compilation, most likely for lack of memory; close other programs, add swap, or "
            "compile with --workspace 256 and --level 2"
        )
    lines = [line.strip() for line in spoken.read_text(errors="replace").splitlines() if line.strip()]
    last = f": {lines[-1][:300]}" if lines else ""
    if code < 0:
        return f"the compilation died of {signal.Signals(-code).name}{last}; report the bundle"
    return f"the compilation ended with code {code} before it was done{last}"

"""What a machine takes to start, and what no step on it could go below."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import edgeco
from edgeco.bundle.manifest import Manifest
from edgeco.runtime.model import Model

_START = """
import sys, time
a = time.perf_counter(); import edgeco
b = time.perf_counter(); model = edgeco.load(sys.argv[1], threads=int(sys.argv[2])); stream = model.stream()
c = time.perf_counter(); import numpy
frame = numpy.zeros(model.manifest.inputs[0].shape, model.manifest.inputs[0].dtype)
d = time.perf_counter(); stream.step(frame)
print(b - a, c - b, time.perf_counter() - d)
"""


def start_up(bundle: Path, threads: int, times: int = 3) -> dict[str, float]:
    """Seconds of a fresh process, medians: import, load, first step, and the whole of it."""
    rows = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(edgeco.__file__).parents[1]), *sys.path])}
    for _ in range(times):
        start = time.perf_counter()
        command = [sys.executable, "-c", _START, str(bundle), str(threads)]
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        rows.append([*map(float, said.split()), time.perf_counter() - start])
    names = ("import edgeco", "load the bundle", "first step", "whole process")
    return {name: statistics.median(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def best_of(run: Callable[[], object], times: int = 7) -> float:
    """Seconds of the fastest of some runs."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return min(took)


def bandwidth(megabytes: int = 256) -> float:
    """Bytes read and written per second by one large copy."""
    source = np.ones(megabytes * 2**20, np.uint8)
    target = np.empty_like(source)
    return 2 * source.nbytes / best_of(lambda: np.copyto(target, source))


def peak(side: int = 1536) -> float:
    """Multiply-accumulates per second of one large product of float32 matrices, on the threads set in PyTorch."""
    left, right = torch.ones(side, side), torch.ones(side, side)
    return side**3 / best_of(lambda: left @ right)


def bytes_moved(model: Model) -> int:
    """What one step must touch at least once: frame, weights, every history read and its new element."""
    manifest: Manifest = model.manifest
    total = sum(int(np.prod(i.shape)) * np.dtype(i.dtype).itemsize for i in manifest.inputs)
    total += manifest.members[manifest.variants[model.variant].weights].size
    for history in manifest.histories:
        element = history.rows_per_stream * int(np.prod(history.shape)) * np.dtype(history.dtype).itemsize
        elements = len(history.reads) if history.storage in ("slots", "carry") else history.depth
        total += element * (elements + 1)
    return total

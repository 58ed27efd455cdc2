"""What a kernel costs that does nothing: the least that any fused layer of a step can take, measured without torch."""

from __future__ import annotations

import statistics
from typing import Any

from edgeco.engines.cuda.bindings import import_driver
from edgeco.engines.cuda.protocol import Cuda, Missing
from edgeco.engines.cuda.results import Results

PTX = b"""
.version 6.0
.target sm_52
.address_size 64
.visible .entry nothing() { ret; }
\0"""
"""Compiled by the driver for the GPU at hand."""

KERNELS, LAUNCHES = 500, 40


def empty_kernel(cuda: Cuda) -> float | None:
    """Microseconds of an empty kernel among many in a CUDA graph; None where no package here can record one."""
    if cuda.graphs is None:
        return None
    try:
        driver = import_driver()
    except Missing:
        return None
    call = Results(driver).call
    with cuda:
        module = call(driver.cuModuleLoadData(PTX))
        stream = cuda.stream()
        start, end = cuda.event(timing=True), cuda.event(timing=True)
        graph: Any = None
        try:
            kernel = call(driver.cuModuleGetFunction(module, b"nothing"))
            queue = driver.CUstream(stream.handle)
            cuda.graphs.begin(stream.handle)
            for _ in range(KERNELS):
                call(driver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, queue, 0, 0))
            graph = cuda.graphs.end(stream.handle)
            taken = []
            for _ in range(LAUNCHES):
                cuda.record(start, stream)
                cuda.graphs.launch(graph, stream.handle)
                cuda.record(end, stream)
                cuda.finish(end)
                taken.append(1e3 * cuda.milliseconds(start, end) / KERNELS)
            return statistics.median(taken[LAUNCHES // 4 :])
        finally:
            if graph is not None:
                cuda.graphs.destroy(graph)
            cuda.close_event(start)
            cuda.close_event(end)
            cuda.close_stream(stream)
            call(driver.cuModuleUnload(module))

"""CUDA graphs through cuda.bindings, over streams of whichever package: both use one context."""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any

from edgeco.engines.cuda.results import Results


class BindingsGraphs:
    """The Graphs protocol."""

    def __init__(self, driver: ModuleType) -> None:
        self._driver = driver
        self._call = Results(driver).call
        self._streams: dict[int, Any] = {}
        # What other threads do meanwhile, say a torch that allocates, must not break the recording.
        self._mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

    def begin(self, stream: int) -> None:
        self._call(self._driver.cuStreamBeginCapture(self._named(stream), self._mode))

    def end(self, stream: int) -> Any:
        recorded = self._call(self._driver.cuStreamEndCapture(self._named(stream)))
        try:
            return self._call(self._driver.cuGraphInstantiate(recorded, 0))
        finally:
            self._driver.cuGraphDestroy(recorded)

    def abort(self, stream: int) -> None:
        with contextlib.suppress(Exception):  # a recording that broke is ended by an error
            error, recorded = self._driver.cuStreamEndCapture(self._named(stream))
            if not error and recorded:
                self._driver.cuGraphDestroy(recorded)

    def launch(self, graph: Any, stream: int) -> None:
        self._call(self._driver.cuGraphLaunch(graph, self._named(stream)))

    def destroy(self, graph: Any) -> None:
        self._call(self._driver.cuGraphExecDestroy(graph))

    def _named(self, stream: int) -> Any:
        found = self._streams.get(stream)
        if found is None:
            found = self._streams[stream] = self._driver.CUstream(stream)
        return found

"""A loaded network: immutable, and shareable between streams and threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from edgeco.bundle import Bundle, open_bundle
from edgeco.bundle.manifest import Manifest
from edgeco.engines.checks import check_graph
from edgeco.engines.protocol import Engine
from edgeco.engines.selection import Options, open_bundle_engine
from edgeco.errors import FrameError
from edgeco.runtime.stream import Stream
from edgeco.runtime.streams import Streams

if TYPE_CHECKING:
    from edgeco.runtime.preprocess import Preprocessor


class Model:
    """A bundle compiled for an engine. Made by ``load``; holds no state of any stream.

    Attributes:
        bundle: the bundle it came from.
        manifest: what the bundle says of the network, its histories as this variant stores them.
        sha256: identity of the network.
        variant: the numeric form that was compiled.
        engine: what runs it.
        why: one sentence: which engine and variant, and why.
    """

    def __init__(self, bundle: Bundle, engine: Engine, variant: str, why: str) -> None:
        manifest = bundle.manifest.of_variant(variant)
        check_graph(engine, manifest)
        self.bundle = bundle
        self.manifest: Manifest = manifest
        self.sha256: str = bundle.sha256
        self.engine = engine
        self.variant = variant
        self.why = why

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes, where the network has them."""
        return self.manifest.labels

    def stream(self, rows: int = 1) -> Stream:
        """A new stream at its beginning; ``rows`` of them in lock-step are stepped by one run of the engine.

        Raises:
            SpecError: ``rows`` below 1.
            EngineError: the engine cannot run so many rows, or there is no memory for them.
        """
        return Stream(self, rows)

    def streams(self, rows: int) -> Streams:
        """Room for ``rows`` streams that join, pause and leave each by itself, stepped by one run of the engine.

        Raises:
            SpecError: ``rows`` below 1.
            EngineError: the engine cannot run so many rows, or there is no memory for them.
        """
        return Streams(self, rows)

    def preprocessor(self) -> Preprocessor:
        """What turns a camera's picture into the network's frame.

        Raises:
            FrameError: the network does not take pictures.
        """
        if self.manifest.preprocessing is None:
            raise FrameError(f"{self.manifest.name} says nothing of preprocessing; give it arrays, not pictures")
        from edgeco.runtime.preprocess import Preprocessor

        return Preprocessor(self.manifest.preprocessing)


def load(
    path: str | os.PathLike[str],
    *,
    engine: str = "auto",
    threads: int | None = None,
    variant: str | None = None,
    precision: Literal["fp32", "fp16", "int8"] | None = None,
    say: Callable[[str], None] | None = None,
) -> Model:
    """Open a bundle and compile it for this device.

    Args:
        path: the ``.edgeco`` file.
        engine: ``onnxruntime``, ``onnxruntime-cuda``, ``onnxruntime-tensorrt`` or ``tensorrt``; "auto" takes TensorRT
            where it, a GPU and a graph for it are there, else ONNX Runtime on the processor.
        threads: processor threads; None for the physical cores this process may use, or one if a step is small.
        variant: numeric form; None for the best for the engine.
        precision: of the numbers inside; None for what the bundle prefers on a processor, the faster of FP32 and INT8
            when they were timed, and for FP16 of TensorRT where the bundle has it.
        say: called with what takes long. TensorRT compiles a network once on each device, for minutes; later loads
            find the plan in the cache (``EDGECO_CACHE``).

    Raises:
        BundleError: the bundle is damaged, foreign or too new.
        EngineError: the engine is missing or refuses the graph.
        SpecError: the bundle has no such variant.

    Example::

        model = load("gesture.edgeco")
        with model.stream() as stream:
            result = stream.step(frame)
    """
    options = Options(precision=precision)
    opened = open_bundle(path)
    return load_bundle(opened, engine=engine, threads=threads, variant=variant, options=options, say=say)


def load_bundle(
    bundle: Bundle,
    *,
    engine: str = "auto",
    threads: int | None = None,
    variant: str | None = None,
    options: Options | None = None,
    say: Callable[[str], None] | None = None,
) -> Model:
    """``load`` for a bundle that is open already."""
    opened = open_bundle_engine(bundle, engine=engine, threads=threads, variant=variant, options=options, say=say)
    return Model(bundle, opened.engine, opened.variant, opened.why)

"""A loaded network: immutable, and shareable between streams and threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgeco.bundle import Bundle, open_bundle
from edgeco.bundle.manifest import Manifest
from edgeco.engines import open_engine
from edgeco.engines.checks import check_graph
from edgeco.engines.protocol import Engine
from edgeco.errors import FrameError, SpecError
from edgeco.runtime.stream import Stream
from edgeco.runtime.streams import Streams

if TYPE_CHECKING:
    from edgeco.runtime.preprocess import Preprocessor

EXACT = "fp32"
"""The variant every bundle holds, and the one the processor runs unless told: halves and quarters are not faster there
on every machine, and only the exact one needs no gate."""


SMALL = 20_000_000
"""Multiply-accumulates of a step below which a second thread costs more than it saves. Measured on 2 cores: 43 against
79 microseconds for 23 thousand, 1.42 against 1.50 ms at 30 frames a second for 24 million."""


class Model:
    """A bundle compiled for an engine. Made by ``load``; holds no state of any stream.

    Attributes:
        bundle: the bundle it came from.
        manifest: what the bundle says of the network.
        sha256: identity of the network.
        variant: the numeric form that was compiled.
        engine: what runs it.
        why: one sentence: which engine and variant, and why.
    """

    def __init__(self, bundle: Bundle, engine: Engine, variant: str, why: str) -> None:
        check_graph(engine, bundle.manifest)
        self.bundle = bundle
        self.manifest: Manifest = bundle.manifest
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
    path: str | os.PathLike[str], *, engine: str = "auto", threads: int | None = None, variant: str | None = None
) -> Model:
    """Open a bundle and compile it for this device.

    Args:
        path: the ``.edgeco`` file.
        engine: name of an engine, or "auto".
        threads: processor threads; None for the physical cores this process may use, or one if a step is small.
        variant: numeric form; None for the best for the engine.

    Raises:
        BundleError: the bundle is damaged, foreign or too new.
        EngineError: the engine is missing or refuses the graph.
        SpecError: the bundle has no such variant.

    Example::

        model = load("gesture.edgeco")
        with model.stream() as stream:
            result = stream.step(frame)
    """
    return load_bundle(open_bundle(path), engine=engine, threads=threads, variant=variant)


def load_bundle(
    bundle: Bundle, *, engine: str = "auto", threads: int | None = None, variant: str | None = None
) -> Model:
    """``load`` for a bundle that is open already."""
    manifest = bundle.manifest
    chosen, because = _variant(manifest, variant)
    counted = "as asked" if threads is not None else "the physical cores it may use"
    if threads is None and manifest.costs.step_macs < SMALL:
        threads, counted = 1, "a step is too small to share"
    compiled = open_engine(bundle.phases(chosen), engine=engine, threads=threads)
    asked = "the only engine of this release" if engine == "auto" else "as asked"
    why = (
        f"{compiled.name} ({asked}) on the processor with {compiled.threads} "
        f"thread{'s' if compiled.threads > 1 else ''} ({counted}), variant {chosen} ({because})."
    )
    return Model(bundle, compiled, chosen, why)


def _variant(manifest: Manifest, asked: str | None) -> tuple[str, str]:
    if asked is not None:
        if asked not in manifest.variants:
            raise SpecError(f"{manifest.name} has no variant {asked!r}; it has {', '.join(sorted(manifest.variants))}")
        return asked, "as asked"
    if EXACT in manifest.variants:
        return EXACT, "exact; lesser precisions are run only if asked for"
    return sorted(manifest.variants)[0], f"the bundle has no {EXACT}"

"""CUDA, by whichever of two Python packages is installed: pycuda or cuda.bindings. Nothing is imported until asked for.

Example::

    cuda = open_cuda()
    with cuda:                       # the device's primary context is current in this thread
        address = cuda.allocate(1024)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from edgeco.engines.cuda.protocol import Cuda, Missing
from edgeco.errors import EngineError, SpecError

CHOICE = "EDGECO_CUDA"
"""Environment variable that names the package to use where both are installed."""

_opened: dict[str, Cuda] = {}
_lock = threading.Lock()


def _pycuda() -> Cuda:
    from edgeco.engines.cuda.pycuda import PycudaCuda

    return PycudaCuda()


def _bindings() -> Cuda:
    from edgeco.engines.cuda.bindings import BindingsCuda

    return BindingsCuda()


BACKENDS: dict[str, Callable[[], Cuda]] = {"pycuda": _pycuda, "cuda.bindings": _bindings}
"""In the order in which they are tried. With pycuda, graphs come from cuda.bindings where that is installed too."""


def open_cuda(name: str | None = None) -> Cuda:
    """The first GPU of this process through the first package that opens it; the same object every time.

    Args:
        name: "pycuda" or "cuda.bindings"; None for what ``EDGECO_CUDA`` names, or else for either.

    Raises:
        EngineError: no package, no driver, or no GPU; one sentence with what to do.
        SpecError: there is no package of that name.
    """
    asked = name or os.environ.get(CHOICE) or None
    if asked is not None and asked not in BACKENDS:
        raise SpecError(f"{asked!r} is no CUDA package that edgeco uses; choose {' or '.join(BACKENDS)}.")
    with _lock:
        missing: list[Missing] = []
        for candidate in [asked] if asked else list(BACKENDS):
            if candidate not in _opened:
                try:
                    _opened[candidate] = BACKENDS[candidate]()
                except Missing as error:
                    missing.append(error)
                    continue
            return _opened[candidate]
    raise _summary(missing)


def _summary(missing: list[Missing]) -> EngineError:
    """One sentence for all: the package that came furthest says what is really wrong."""
    furthest = max(missing, key=lambda error: error.stage)
    if furthest.stage == Missing.PACKAGE:
        tried = " and ".join(f"{error.package} ({error})" for error in missing)
        what = "neither package opens" if len(missing) > 1 else f"the package that {CHOICE} names does not open"
        return EngineError(
            f"there is no way to the GPU from Python, for {what}: {tried}; install one with: pip install cuda-bindings"
        )
    return EngineError(f"{furthest} (asked through {furthest.package})")


__all__ = ["BACKENDS", "CHOICE", "open_cuda"]

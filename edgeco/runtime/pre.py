"""From a source's frame to what a network takes: the bundle's own preprocessing, a sensor's values, or a user's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeco.errors import EdgecoError, FrameError, SpecError
from edgeco.named import find_callable, said
from edgeco.runtime.frame import Frame

if TYPE_CHECKING:
    from edgeco.bundle.manifest import Manifest
    from edgeco.runtime.preprocess import Preprocessor

Prepare = Callable[[Frame], Any]
"""A frame becomes an array, a mapping of input name to array, or None where it holds nothing for the network."""


class Taker(Protocol):
    """What frames are prepared for: a loaded model, or a network that is still being built."""

    @property
    def manifest(self) -> Manifest: ...

    def preprocessor(self) -> Preprocessor: ...


def load_pre(target: str) -> Prepare:
    """The callable that ``--pre`` names: ``package.module:name`` or ``file.py:name``.

    A class is called once, without arguments: its instance, which may hold a pose estimator, takes the frames.

    Raises:
        SpecError: there is no such callable, or its module or class fails.
    """
    found = find_callable(target, "a function from a frame to the network's input, or a class of such objects")
    if not inspect.isclass(found):
        return found
    try:
        made = found()
    except EdgecoError:
        raise
    except Exception as error:
        raise SpecError(f"{target} raised {said(error)}.") from error
    if not callable(made):
        raise SpecError(f"{target} makes objects that cannot be called with a frame; give them a __call__ method.")
    return made


def preparer(model: Taker, pre: Prepare | None = None) -> Prepare:
    """What prepares frames for a network: ``pre`` where there is one, else what the bundle says.

    Its results are its caller's own: the next call leaves them alone.

    Raises:
        SpecError: the network has several inputs, which only a ``pre`` can fill.
    """
    if pre is not None:
        return _Users(pre, model)
    inputs = model.manifest.inputs
    if len(inputs) > 1:
        names = ", ".join(entry.name for entry in inputs)
        raise SpecError(
            f"{model.manifest.name} has several inputs ({names}); give a preprocessing callable (--pre) that returns "
            "a mapping of these names to arrays"
        )
    if model.manifest.preprocessing is not None and inputs[0].kind == "image":
        prepare = model.preprocessor()
        return lambda frame: prepare(frame.image).copy()
    return _Values(inputs[0].name, tuple(inputs[0].shape), np.dtype(inputs[0].dtype))


class _Values:
    """A sensor's row as the network's only input: as many values, in the input's shape and type."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._name, self._shape, self._dtype = name, shape, dtype

    def __call__(self, frame: Frame) -> np.ndarray[Any, Any]:
        values = frame.image
        if values.ndim == 3 and values.dtype == np.uint8 and values.shape != self._shape:
            raise FrameError(
                f"input {self._name!r} takes arrays, not pictures from a source; give rows of values (a .csv or .jsonl "
                "file), or a preprocessing callable (--pre) that makes such an array of a picture"
            )
        size = int(np.prod(self._shape, dtype=np.int64))
        if values.size != size or not np.can_cast(values.dtype, self._dtype, "same_kind"):
            raise FrameError(
                f"input {self._name!r} takes {size} values as {self._dtype}{self._shape}; "
                f"frame {frame.index} has {values.size} as {values.dtype}{values.shape}"
            )
        return np.array(values.reshape(self._shape), self._dtype)


class _Users:
    """A user's callable, whose errors are told as such.

    It may return an array or nested lists, of any numbers that the input's type can hold roughly, or a ``Frame``,
    which is then prepared as the bundle says.
    """

    def __init__(self, pre: Prepare, model: Taker) -> None:
        self._pre = pre
        self._name = getattr(pre, "__name__", type(pre).__name__)
        self._dtypes = {entry.name: np.dtype(entry.dtype) for entry in model.manifest.inputs}
        self._first = next(iter(self._dtypes))
        self._pictures = functools.cache(model.preprocessor)

    def __call__(self, frame: Frame) -> Any:
        try:
            value = self._pre(frame)
        except EdgecoError:
            raise
        except Exception as error:
            raise FrameError(f"the preprocessing {self._name} failed at frame {frame.index}: {said(error)}") from error
        if isinstance(value, Mapping):
            return {name: self._own(array, str(name)) for name, array in value.items()}
        return None if value is None else self._own(value, self._first)

    def _own(self, value: Any, name: str) -> Any:
        if isinstance(value, Frame):
            return self._pictures()(value.image).copy()
        if not isinstance(value, (np.ndarray, list, tuple)):
            return value
        array = np.array(value)
        dtype = self._dtypes.get(name, array.dtype)
        return array.astype(dtype) if np.can_cast(array.dtype, dtype, "same_kind") else array

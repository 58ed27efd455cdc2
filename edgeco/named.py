"""A callable of the user's, by name: ``package.module:name`` or ``file.py:name``. Importing it runs the user's code."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeco.errors import EdgecoError, SpecError


def find_callable(target: str, what: str, failure: type[EdgecoError] = SpecError) -> Callable[..., Any]:
    """Import what a name stands for.

    Args:
        target: module or file, a colon, and the name in it.
        what: ends the sentence about a name that is no callable, as in "the function that makes the network".
        failure: raised where the module itself fails while it is imported.

    Raises:
        SpecError: there is no such file, module or callable.
    """
    place, separator, attribute = target.rpartition(":")
    if not separator:
        raise SpecError(f"{target!r} names no callable; give package.module:name or file.py:name.")
    module = _from_file(Path(place), failure) if place.endswith(".py") else _from_package(place, failure)
    found: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(found):
        raise SpecError(f"{place} has no callable named {attribute!r}; name {what}.")
    return found


def _from_package(name: str, failure: type[EdgecoError]) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SpecError(
            f"The module {name!r} cannot be imported ({error}); check its name and the Python path."
        ) from error
    except (Exception, SystemExit) as error:
        raise failure(f"The module {name!r} failed while it was imported: {said(error)}.") from error


def _from_file(path: Path, failure: type[EdgecoError]) -> Any:
    if not path.is_file():
        raise SpecError(f"There is no file {path}; check the path before the colon.")
    name = f"edgeco_user_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # a user's file imports its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script without a main guard may well leave
        sys.modules.pop(name, None)
        raise failure(f"{path} failed while it was imported: {said(error)}.") from error
    finally:
        sys.path.remove(folder)
    return module


def said(error: BaseException) -> str:
    """An error of the user's code in one clause: its class and the first line of its message."""
    first = str(error).strip().split("\n", 1)[0].rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__

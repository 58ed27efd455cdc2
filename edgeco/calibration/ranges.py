"""Ranges, as calibration makes and takes them. The records are the bundle's, so that a device can show them."""

from __future__ import annotations

import os
from pathlib import Path

from edgeco.bundle.ranges import Method, Ranges, TensorRange, model_hash, read_ranges, tensor_key
from edgeco.errors import BundleError, CalibrationError
from edgeco.files import replace_file

__all__ = ["Method", "Ranges", "TensorRange", "load_ranges", "model_hash", "read_ranges", "save_ranges", "tensor_key"]


def load_ranges(path: str | os.PathLike[str]) -> Ranges:
    """Ranges from a file.

    Raises:
        CalibrationError: the file is missing, or holds no ranges.
    """
    try:
        return read_ranges(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise CalibrationError(f"The ranges {path} cannot be read ({error.strerror}); check the path.") from error
    except BundleError as error:
        raise CalibrationError(str(error)) from None


def save_ranges(ranges: Ranges, path: str | os.PathLike[str]) -> None:
    """Write ranges to a file, whole or not at all. Raises WriteError."""
    with replace_file(path) as handle:
        handle.write(ranges.to_json())

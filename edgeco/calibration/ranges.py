"""Ranges, as calibration makes and takes them. The records are the bundle's, so that a device can show them."""

from __future__ import annotations

import os
from pathlib import Path

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import Method, Ranges, TensorRange, model_hash, read_ranges, tensor_key
from edgeco.bundle.text import shown
from edgeco.calibration.tensors import observed_tensors
from edgeco.errors import BundleError, CalibrationError
from edgeco.export.exported import Exported
from edgeco.files import replace_file

__all__ = [
    "Method",
    "Ranges",
    "TensorRange",
    "check_ranges",
    "load_ranges",
    "model_hash",
    "read_ranges",
    "save_ranges",
    "tensor_key",
]


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


def check_ranges(ranges: Ranges, exported: Exported, manifest: Manifest) -> None:
    """Refuse ranges that are not of a network, of all of it, and of one for each thing.

    Raises:
        CalibrationError: they are of another network, lack a tensor or a history, or say two things of one.
    """
    ranges.check_model(exported)
    observed = observed_tensors(exported, manifest)
    missing = [key for item in observed for key in item.filed() if key not in ranges.tensors]
    missing += [history.name for history in manifest.histories if history.name not in ranges.histories]
    if missing:
        raise CalibrationError(
            f"These ranges say nothing of {shown(missing[0])}, which this network has ({len(missing)} missing in all); "
            "were they edited? Calibrate again."
        )
    for item in observed:
        own = {ranges.tensors[key] for key in item.filed()}
        if len(own | ({ranges.histories[item.history]} if item.history else set())) > 1:
            raise CalibrationError(
                f"These ranges tell different things of {shown(item.history or item.name)}, which has one range "
                "whatever it is called; were they edited? Calibrate again."
            )


def save_ranges(ranges: Ranges, path: str | os.PathLike[str]) -> None:
    """Write ranges to a file, whole or not at all. Raises WriteError."""
    with replace_file(path) as handle:
        handle.write(ranges.to_json())

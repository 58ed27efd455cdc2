"""Checkpoints: whole files or none, read without running code from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgeco.errors import SpecError
from edgeco.files import replace_file

_MEMBERS = {"net", "optimiser", "scaler", "average", "best", "step"}


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training's state; a reader finds the old file or the whole new one.

    Raises:
        WriteError: the file cannot be written.
    """
    with replace_file(path) as file:
        torch.save(state, file)


def checkpoint_beside(out: Path, resume: bool) -> Path:
    """Where a training that writes ``out`` is kept until it is done; it is removed then.

    Raises:
        SpecError: a stopped training is kept there, and the new one does not go on from it.
    """
    path = out.with_name(out.name + ".checkpoint")
    if path.exists() and not resume:
        raise SpecError(f"{path} keeps a training that was stopped; go on with --resume, or remove it to start anew.")
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that ``write_checkpoint`` wrote, on the processor.

    Raises:
        SpecError: it cannot be read, or is none.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SpecError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}); remove it to start anew."
        ) from error
    if not isinstance(state, dict) or set(state) != _MEMBERS:
        raise SpecError(f"{path} is no checkpoint of a training; remove it to start anew.")
    return state

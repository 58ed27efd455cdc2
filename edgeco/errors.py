"""Every error edgeco raises on purpose. One root, few children, each with the exit code its command ends with."""

from __future__ import annotations


class EdgecoError(Exception):
    """Root of all errors that a user can act on; the message says what is wrong, where, and what to do."""

    exit_code = 1


class CheckFailed(EdgecoError):
    """A verification, a numerical gate or a recording did not hold up."""


class WriteError(EdgecoError):
    """A file could not be written whole (disk full, no permission); nothing half-written is left behind."""


class SpecError(EdgecoError):
    """A build specification, a flag or an argument is not usable."""

    exit_code = 2


class CalibrationError(EdgecoError):
    """A calibration cannot be carried out or used: no data, values that are no numbers, ranges of another network."""


class FrameError(SpecError):
    """A frame given to a stream has the wrong shape, type or contents."""


class DataError(SpecError):
    """A set of recordings is not usable: empty, of mixed shapes, with values missing, or with a label nobody knows."""


class ConversionError(EdgecoError):
    """A network cannot be turned into a step network."""

    exit_code = 3


class UnsupportedOperator(ConversionError):
    """An operator mixes time in a way that has no step form (yet).

    Args:
        op: the operator, as PyTorch names it.
        reason: one clause saying what about it is unsupported.
        where: the line of the user's own source that called it.
        instead: what to do instead.
    """

    def __init__(self, op: str, reason: str, where: str, instead: str) -> None:
        self.op, self.reason, self.where, self.instead = op, reason, where, instead
        super().__init__(f"{op} at {where}: {reason}. {instead}")


class WeightsError(ConversionError):
    """A checkpoint cannot be read safely or does not fit its network."""


class PackError(ConversionError):
    """A task pack is damaged, or does not belong to the network it is put on."""

    exit_code = 5


class EngineError(EdgecoError):
    """An engine is missing, refuses a graph, or fails while running."""

    exit_code = 4


class SourceError(EdgecoError):
    """A camera or a recording cannot be opened or read."""

    exit_code = 4


class BundleError(EdgecoError):
    """A bundle is damaged, foreign, or of a newer schema."""

    exit_code = 5

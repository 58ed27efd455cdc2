"""The head of a plan: which TensorRT made it, read without TensorRT."""

from __future__ import annotations

import struct

MAGIC = b"ftrt"
HEAD = 28


def plan_version(plan: bytes | memoryview) -> tuple[int, int, int] | None:
    """Major, minor and patch of the TensorRT that made a plan; None for bytes that are no plan, or of another form."""
    head = bytes(plan[:HEAD])
    if len(head) < HEAD or head[:4] != MAGIC or struct.unpack_from("<I", head, 4)[0] != 0:
        return None
    major, minor, patch, _ = head[24:28]
    return major, minor, patch

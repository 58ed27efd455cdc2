"""What a reader accepts at most. A bundle beyond a limit is refused before anything of that size is allocated."""

from __future__ import annotations

MAX_BUNDLE = 2**31 - 1
"""Bytes of the whole file: below what zip and ONNX can address without extensions."""
MAX_MEMBERS = 1024
MAX_NAME = 200
"""Characters of a member, tensor, variant or network name."""
MAX_MANIFEST = 4 * 2**20
MAX_REPORT = 16 * 2**20
MAX_RANGES = 16 * 2**20
MAX_GRAPH = 32 * 2**20
"""Bytes of one graph member, which holds no weights."""
MAX_TENSOR_HEADER = 16 * 2**20
MAX_JSON_DEPTH = 32
MAX_RANK = 8
MAX_ELEMENTS = 2**28
"""Elements of one frame or one answer."""
MAX_STATE = 4 * 2**30
"""Bytes of all history buffers of one stream."""
MAX_STRIDE = 16
MAX_LEAD = 65536
"""Steps that a stream may take with its first frame alone."""
MAX_PERIOD = 1024
MAX_NESTING = 96
"""Messages inside messages of an ONNX member; a graph inside a graph takes three."""

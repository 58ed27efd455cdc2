"""The ``.edgeco`` file: what building writes and running reads. ``docs/bundle.md`` is its specification.

Records of the manifest are in ``edgeco.bundle.manifest``.
"""

from __future__ import annotations

from edgeco.bundle.manifest import SCHEMA_VERSION, Manifest
from edgeco.bundle.reader import Bundle, open_bundle
from edgeco.bundle.writer import write_bundle

__all__ = ["SCHEMA_VERSION", "Bundle", "Manifest", "open_bundle", "write_bundle"]

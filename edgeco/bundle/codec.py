"""manifest.json to typed records and back, the schema version first."""

from __future__ import annotations

import msgspec

from edgeco.bundle.archive import MANIFEST
from edgeco.bundle.limits import MAX_MANIFEST
from edgeco.bundle.manifest import SCHEMA_VERSION, Manifest
from edgeco.bundle.text import check_json, parse_json
from edgeco.errors import BundleError


def decode_manifest(data: bytes | memoryview) -> Manifest:
    """Parse manifest.json; fields are checked one by one, relations between them are not (see ``validate``).

    Raises:
        BundleError: too large, not strict JSON, of another schema version, or a field missing, unknown or mistyped.
    """
    if len(data) > MAX_MANIFEST:
        raise BundleError(f"{MANIFEST} has {len(data)} bytes; the limit is {MAX_MANIFEST}.")
    document = parse_json(data, MANIFEST)
    version = document.get("schema_version")
    if type(version) is not int or version < 1:
        raise BundleError(f"{MANIFEST} names no schema version; make the bundle again with `edgeco build`.")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"the bundle is of schema version {version} and this edgeco reads up to {SCHEMA_VERSION}; upgrade edgeco."
        )
    try:
        return msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        reason = ascii(str(error)[:300])[1:-1]
        raise BundleError(f"{MANIFEST} does not follow schema version {version}: {reason}.") from None


def encode_manifest(manifest: Manifest) -> bytes:
    """Readable JSON, the same bytes for equal manifests.

    Raises:
        BundleError: a value that JSON cannot carry, such as an infinite border or an object in ``provenance``.
    """
    try:
        check_json(msgspec.to_builtins(manifest), MANIFEST)
        return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)
    except (TypeError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise BundleError(f"{MANIFEST} cannot be written as JSON: {error}.") from None

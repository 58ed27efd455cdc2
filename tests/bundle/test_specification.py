"""docs/bundle.md names every field and every limit there is."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from edgeco.bundle import limits, manifest
from edgeco.bundle.tensors import NUMPY_TYPES
from edgeco.bundle.weights import ONNX_TYPES

PAGE = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text(encoding="utf-8")
RECORDS = [
    record for record in vars(manifest).values() if isinstance(record, type) and issubclass(record, msgspec.Struct)
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_is_described(record: type[msgspec.Struct]) -> None:
    assert [field.name for field in msgspec.structs.fields(record) if f"`{field.name}`" not in PAGE] == []


def test_every_limit_is_given() -> None:
    given = set(re.findall(r"\d+", PAGE.split("## Limits")[1]))
    for name, value in vars(limits).items():
        if name.startswith("MAX_") and name != "MAX_JSON_DEPTH":
            assert str(value) in given, name
    assert f"at most {limits.MAX_JSON_DEPTH} levels" in PAGE


def test_every_type_has_its_number() -> None:
    for stored, name in NUMPY_TYPES.items():
        assert f"{ONNX_TYPES[name]} for {stored}" in PAGE


def test_the_page_is_of_this_schema() -> None:
    assert f"schema version {manifest.SCHEMA_VERSION}" in PAGE.splitlines()[0]

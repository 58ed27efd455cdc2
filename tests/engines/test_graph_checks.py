"""A graph that is not the manifest's is refused on loading, not by wrong answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from stepnets import history, stepnet

from edgeco.bundle.manifest import Manifest, Read
from edgeco.engines import open_engine
from edgeco.engines.checks import check_graph
from edgeco.errors import BundleError

NET = stepnet(history("slots", 2), history("ring", 3, number=1), history("mirror", 4, number=2))
ENGINE = open_engine(NET.onnx, threads=1)


def changed(table: str, index: int, **fields: Any) -> Manifest:
    records = list(getattr(NET.manifest, table))
    records[index] = msgspec.structs.replace(records[index], **fields)
    return msgspec.structs.replace(NET.manifest, **{table: tuple(records)})


def test_the_own_graph_is_taken() -> None:
    check_graph(ENGINE, NET.manifest)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (changed("inputs", 0, name="frame"), "'frame' is in its manifest but not its graph"),
        (changed("inputs", 0, shape=(3,)), r"'x' is float32\(any, 3\) in its manifest and float32\(any, 2\)"),
        (changed("inputs", 0, dtype="uint8"), r"'x' is uint8"),
        (changed("outputs", 1, name="z"), "'y1' is in its graph but not its manifest"),
        (changed("outputs", 1, shape=(9,)), r"output 'y1' is float32\(any, 9\)"),
        (changed("outputs", 1, dtype="float16"), "output 'y1' is float16"),
        (changed("histories", 0, write="w"), "'h000_slots_new' is in its graph but not"),
        (changed("histories", 0, reads=(Read(name="r", age=1),)), "is in its graph but not"),
        (changed("histories", 1, depth=4), r"'h001_ring_past' is float32\(4, any, 2\)"),
        (changed("histories", 2, shape=(2, 1)), "h002_mirror"),
        (changed("histories", 2, storage="carry"), "h002_mirror_past"),
        (changed("histories", 2, dtype="float16"), "h002_mirror"),
        (msgspec.structs.replace(NET.manifest, histories=NET.manifest.histories[:2]), "h002_mirror"),
    ],
)
def test_any_difference_is_named(manifest: Manifest, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        check_graph(ENGINE, manifest)

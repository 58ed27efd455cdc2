"""Ranges that are not those of the bundle's own network, or that no calibration could have found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from forging import Attack, forge
from toy_bundle import Toy, toy_ranges


def range_attacks(toy: Toy) -> Iterator[Attack]:
    good: dict[str, Any] = json.loads(toy_ranges(toy.manifest, toy.members))
    history = good["histories"]["h000"]

    def ranges(title: str, fields: dict[str, Any] | bytes, sentence: str) -> Attack:
        data = fields if isinstance(fields, bytes) else json.dumps({**good, **fields}).encode()
        return Attack(title, forge(toy, {"ranges.json": data}), sentence)

    yield ranges("ranges of another network", {"model": "0" * 64}, "is of another network, or of other weights")
    yield ranges("ranges of a history less", {"histories": {}}, "lacks the history 'h000'")
    more = {"h000": history, "h\x1b[2J": history}
    yield ranges("ranges of a history more", {"histories": {"h000": history, "h1": history}}, "does not have, 'h1'")
    yield ranges("terminal codes in a name", {"histories": more}, r"names a tensor 'h\\x1b\[2J', which is empty")
    yield ranges("ranges of a later version", {"version": 9}, "of version 9 and this edgeco reads version 1")
    yield ranges("range without an end", {"tensors": {"t": {**history, "high": -9.0}}}, "above its greatest")
    yield ranges("range beyond what was seen", {"tensors": {"t": {**history, "amax": 99.0}}}, "above every number")
    wide = {"t": {**history, "channels": [[-2.0, 99.0]]}}
    yield ranges("a channel wider than its history", {"tensors": wide}, "one of its channels goes from -2.0 to 99.0")
    yield ranges("infinite range", b'{"model": Infinity}', "holds Infinity, which is not a finite number")
    yield ranges("a hash that is none", {"data": "x" * 64}, "a hash that is no sha256")
    yield ranges("deep ranges", b'{"a":' + b"[" * 10_000, "nested deeper")
    yield ranges("ranges of lists", b"[]", "ranges.json is not a JSON object")
    yield ranges("unknown field", {"scale": 1}, "is no list of ranges")
    yield Attack("ranges too large", forge(toy, {"ranges.json": b" " * (16 * 2**20 + 1)}), "the limit is 16777216")

    def exact_renamed(manifest: dict[str, Any]) -> None:
        manifest["variants"] = {"other": manifest["variants"]["fp32"]}

    data = forge(toy, {"ranges.json": json.dumps(good).encode()}, exact_renamed)
    yield Attack("ranges of no variant", data, "the variant fp32, which the bundle does not have")

"""Whatever bytes come in, a reader ends with a bundle or with BundleError."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from forging import members_of
from fuzz import KINDS, fuzz, read_all
from toy_bundle import Toy

from edgeco.bundle import open_bundle
from edgeco.errors import BundleError


def test_two_thousand_mutations(tmp_path: Path) -> None:
    tally = fuzz(tmp_path, 2000)
    assert tally.opened.total() + tally.refused.total() == 2000
    assert set(tally.refused) == {kind.__name__ for kind in KINDS}
    assert len(tally.sentences) > 50, "the mutations reach many checks, not the first of them alone"


@hypothesis.given(st.binary(max_size=200))
@hypothesis.settings(deadline=None)
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.edgeco"
    path.write_bytes(data)
    with pytest.raises(BundleError):
        open_bundle(path)


def test_a_flipped_byte_is_refused_or_changes_nothing(toy: Toy) -> None:
    """Only what no reader looks at, the dates and version numbers of the archive, may differ."""
    good, spared = toy.data, 0
    want = {name: open_bundle(toy.path).read(name) for name in members_of(toy)}
    for place in range(0, len(good), 3):
        flipped = bytearray(good)
        flipped[place] ^= 0xFF
        toy.path.write_bytes(flipped)
        if read_all(toy.path) is None:
            spared += 1
            bundle = open_bundle(toy.path)
            assert {name: bundle.read(name) for name in want} == want
    assert spared < 10 * len(want)


def test_a_cut_is_refused(toy: Toy) -> None:
    good = toy.data
    for length in range(0, len(good), 7):
        toy.path.write_bytes(good[:length])
        assert read_all(toy.path) is not None

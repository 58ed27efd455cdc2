"""Every attack is refused by BundleError, for its own reason, in one clear sentence.

The corpus lies beside this file: ``archives``, ``manifests``, ``tensors`` and ``graphs`` are written by ``forging``.
"""

from __future__ import annotations

import os
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import archive_attacks
from forging import Attack, forge, members_of, pack
from graphs import external_data_attacks, foreign_plan_attacks, graph_attacks
from manifests import listing_attacks, manifest_attacks
from ranges import range_attacks
from tensors import tensor_attacks
from toy_bundle import Toy

from edgeco.bundle import open_bundle
from edgeco.errors import BundleError

GROUPS = (
    archive_attacks,
    listing_attacks,
    manifest_attacks,
    tensor_attacks,
    external_data_attacks,
    foreign_plan_attacks,
    graph_attacks,
    range_attacks,
)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_refused_for_its_own_reason(toy: Toy, group: Callable[[Toy], Iterator[Attack]]) -> None:
    attacks = list(group(toy))
    assert [name for name, count in Counter(attack.name for attack in attacks).items() if count > 1] == []
    faults = {attack.name: answer for attack in attacks if (answer := wrong_answer(toy.path, attack)) is not None}
    assert faults == {}


def wrong_answer(path: Path, attack: Attack) -> str | None:
    """What a reader did where it should have refused with one sentence that fits; None if it did that."""
    path.write_bytes(attack.data)
    try:
        open_bundle(path)
    except BundleError as error:
        message = str(error)
        sentence = message.removeprefix(f"{path}: ")
        fits = re.search(attack.sentence, sentence) and sentence.endswith(".") and ". " not in sentence
        return None if fits and sentence != message and sentence.isprintable() and len(sentence) < 400 else message
    return "opened"


def test_the_tools_of_the_corpus_make_good_bundles(toy: Toy) -> None:
    """Otherwise every attack would be refused for what its maker got wrong."""
    for data in (pack(members_of(toy)), forge(toy)):
        toy.path.write_bytes(data)
        assert open_bundle(toy.path).manifest.name == "toy"


def test_the_corpus_takes_memory_in_proportion(toy: Toy) -> None:
    """No number in a file makes its reader allocate what the file does not hold."""
    attacks = [attack for group in GROUPS for attack in group(toy) if len(attack.data) < 100_000]
    assert len(attacks) > 130
    for attack in attacks:
        toy.path.write_bytes(attack.data)
        tracemalloc.start()
        try:
            open_bundle(toy.path)
        except BundleError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 2**20 + 40 * len(attack.data), attack.name


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="is not a regular file; a bundle is one file"):
        open_bundle(tmp_path / "pipe")


def test_a_device_without_end_is_refused() -> None:
    with pytest.raises(BundleError, match="is not a regular file; a bundle is one file"):
        open_bundle("/dev/zero")


def test_a_link_to_a_bundle_is_that_bundle(toy: Toy, tmp_path: Path) -> None:
    """Links are refused inside a bundle; on the way to it they are the user's own."""
    (tmp_path / "link.edgeco").symlink_to(toy.path)
    assert open_bundle(tmp_path / "link.edgeco").manifest.name == "toy"

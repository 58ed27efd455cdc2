"""Every attack is refused by BundleError, for its own reason, in one clear sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from corpus import GROUPS, Attack, forge, members_of, pack
from toy_bundle import Toy

from edgeco.bundle import open_bundle
from edgeco.errors import BundleError


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

"""The order of what is done to a network: a wrong one is refused, with the reason."""

from __future__ import annotations

import pytest

from edgeco.errors import SpecError
from edgeco.stages import ORDER, Journey, Stage


def test_the_whole_way() -> None:
    journey = Journey()
    for stage in ORDER:
        journey.enter(stage)
    assert journey.done == list(ORDER)


def test_pruning_and_training_take_turns() -> None:
    journey = Journey()
    for stage in ("trace", "prune", "recalibrate", "train", "prune", "recalibrate", "train", "fuse", "fold"):
        journey.enter(stage)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("done", "asked", "reason"),
    [
        ("fold", "fuse", "norm's scale"),
        ("fold", "prune", "norm's scale"),
        ("fold", "recalibrate", "norm's scale"),
        ("fuse", "train", "nothing of it can be told apart"),
        ("step", "prune", "histories have the widths"),
        ("step", "fold", "histories"),
        ("calibrate", "prune", "ranges were measured"),
        ("export", "calibrate", "written"),
    ],
)
def test_what_comes_too_late_is_refused(done: Stage, asked: Stage, reason: str) -> None:
    journey = Journey([done])
    with pytest.raises(SpecError, match=reason):
        journey.enter(asked)
    assert journey.done == [done]


def test_nothing_is_folded_twice() -> None:
    with pytest.raises(SpecError, match="already"):
        Journey(["fold"]).enter("fold")

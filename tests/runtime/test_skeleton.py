"""Skeletons for a network: joints and persons that come, go and change places."""

from __future__ import annotations

import numpy as np
import pytest

from edgeco.errors import FrameError, SpecError
from edgeco.runtime.skeleton import Skeletons


def person(x: float, y: float = 0.0, joints: int = 3, score: float = 1.0) -> np.ndarray:
    made = np.full((joints, 3), score, np.float32)
    made[:, 0] = x + np.arange(joints) / 10
    made[:, 1] = y
    return made


def test_what_is_seen_is_passed_on() -> None:
    made = Skeletons(2, 3)([person(1), person(5)], 0.0)
    assert made is not None and made.shape == (3, 3, 2) and made.dtype == np.float32 and made.flags.c_contiguous
    np.testing.assert_array_equal(made[..., 0], person(1).T)
    np.testing.assert_array_equal(made[..., 1], person(5).T)
    np.testing.assert_array_equal(Skeletons(1, 3, channels=2)([person(1)[:, :2]], 0.0), person(1).T[:2, :, None])


def test_persons_keep_their_places_whatever_their_order() -> None:
    skeletons = Skeletons(2, 3)
    first = skeletons([person(0), person(9)], 0.0)
    second = skeletons([person(9.2), person(0.1)], 0.1)
    assert first is not None and second is not None
    assert second[0, 0, 0] == pytest.approx(0.1) and second[0, 0, 1] == pytest.approx(9.2)


def test_of_too_many_those_stay_who_were_there_and_then_the_best_seen() -> None:
    skeletons = Skeletons(2, 3)
    skeletons([person(0, score=0.5)], 0.0)
    made = skeletons([person(20, score=0.6), person(30, score=0.9), person(0.2, score=0.4)], 0.1)
    assert made is not None
    assert made[0, 0].tolist() == pytest.approx([0.2, 30])


@pytest.mark.parametrize(("policy", "expected"), [("hold", 0.1), ("centre", 1.1), ("zero", 0.0)])
def test_a_missing_joint(policy: str, expected: float) -> None:
    skeletons = Skeletons(1, 3, joint=policy, patience=1.0)  # type: ignore[arg-type]
    skeletons([person(0)], 0.0)
    moved = person(1)
    moved[1, 2] = 0.1
    made = skeletons([moved], 0.1)
    assert made is not None
    assert made[:2, 1, 0].tolist() == pytest.approx([expected, 0])
    assert made[2, :, 0].tolist() == [1, 0, 1], "its score says that it was not seen"
    moved[1] = np.nan
    late = skeletons([moved], 5.0)
    assert late is not None and late[0, 1, 0] == pytest.approx(expected if policy == "centre" else 0.0)


def test_a_missing_person_is_held_for_a_while_and_nobody_is_nothing() -> None:
    skeletons = Skeletons(1, 3, patience=0.5)
    seen = skeletons([person(4)], 0.0)
    held = skeletons([], 0.4)
    assert seen is not None and held is not None
    np.testing.assert_array_equal(held[:2], seen[:2])
    assert not held[2].any()
    assert skeletons([], 0.6) is None
    zeros = Skeletons(1, 3, person="zero", nobody="zero")
    zeros([person(4)], 0.0)
    made = zeros([], 0.1)
    assert made is not None and not made.any()
    assert Skeletons(1, 3, person="zero")([], 0.1) is None


def test_another_person_does_not_inherit_joints() -> None:
    skeletons = Skeletons(1, 3, patience=0.5)
    skeletons([person(0)], 0.0)
    other = person(50)
    other[2, 2] = 0
    made = skeletons([other], 2.0)
    assert made is not None and made[0, 2, 0] == 0


def test_a_clock_that_begins_anew_forgets_everybody() -> None:
    skeletons = Skeletons(1, 3)
    skeletons([person(0)], 100.0)
    assert skeletons([], 0.0) is None


def test_what_is_refused() -> None:
    with pytest.raises(FrameError, match=r"a person is \(3, 2\) or \(3, 3\); this one is \(4, 3\)"):
        Skeletons(1, 3)([person(0, joints=4)], 0.0)
    for wrong in ({"joint": "guess"}, {"person": "guess"}, {"nobody": "guess"}, {"channels": 4}, {"patience": -1.0}):
        with pytest.raises(SpecError):
            Skeletons(1, 3, **wrong)  # type: ignore[arg-type]

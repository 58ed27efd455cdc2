"""Scores of a result."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgeco.errors import SpecError
from edgeco.runtime.result import Result


def result(values: object, **fields: object) -> Result:
    outputs = {"logits": np.asarray(values, np.float32), "other": np.array([1.0, 2.0], np.float32)}
    usual = {"valid": True, "warm": True, "stamp": None, "latency": 0.0, "step": 3}
    return Result(outputs=outputs, **{**usual, **fields})  # type: ignore[arg-type]


def test_top_is_best_first_and_stable() -> None:
    top = result([1, 5, 5, -2], labels=("a", "b", "c", "d")).top(3)
    assert [(score.index, score.label, score.score) for score in top] == [(1, "b", 5.0), (2, "c", 5.0), (0, "a", 1.0)]


def test_fewer_classes_than_asked_and_no_labels() -> None:
    assert [score.label for score in result([1, 2]).top()] == ["1", "0"]
    assert [score.label for score in result([1, 2, 3], labels=("a", "b")).top()] == ["2", "b", "a"]


def test_softmax_of_large_values() -> None:
    scores = result([1000.0, 1000.0, -1000.0], activation="softmax").top(3)
    assert [score.score for score in scores] == [0.5, 0.5, 0.0]
    assert sum(score.score for score in result([0.3, 1.2, -4.0], activation="softmax").top()) == pytest.approx(1)


def test_sigmoid_of_large_values() -> None:
    with np.errstate(all="raise"):
        scores = result([-1000.0, 0.0, 1000.0], activation="sigmoid").top(3)
    assert [score.score for score in scores] == [1.0, 0.5, 0.0]
    assert result([1.0], activation="sigmoid").top()[0].score == pytest.approx(1 / (1 + np.exp(-1.0)))


def test_rows_and_outputs_are_chosen() -> None:
    both = result([[1, 2], [4, 3]], rows=2)
    assert both.top(1)[0].index == 1
    assert both.top(1, row=1)[0].index == 0
    assert result([7, 3, 9]).top(1, output="other")[0].score == 2.0


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": -1}, {"row": 1}, {"row": -1}, {"output": "none"}])
def test_what_is_not_there_is_refused(wrong: dict) -> None:
    with pytest.raises(SpecError):
        result([1, 2]).top(**wrong)


def test_no_scores_before_the_first_answer() -> None:
    assert result([1, 2], valid=False).top() == ()


def test_results_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        result([1]).valid = False  # type: ignore[misc]
    assert not hasattr(result([1]), "__dict__")

"""Smoothing: a mean that lags as told, and classes that dwell."""

from __future__ import annotations

import numpy as np
import pytest

from edgeco.errors import SpecError
from edgeco.runtime.result import Result
from edgeco.runtime.smoothing import Smoother, parse_smoothing


def result(*values: float, valid: bool = True, activation: str = "none") -> Result:
    answer = {"y": np.array(values, np.float32)}
    return Result(answer, valid, valid, 0.0, 0.0, 0, 1, ("a", "b", "c"), activation)


def test_without_smoothing_the_answers_are_the_networks() -> None:
    smooth = Smoother()
    rng = np.random.default_rng(0)
    for _ in range(50):
        given = result(*rng.standard_normal(3), activation="softmax")
        assert smooth(given, 2) == given.top(2)


def test_the_mean_is_over_the_last_answers() -> None:
    rng = np.random.default_rng(1)
    smooth, seen = Smoother(mean=4), []
    for _ in range(20):
        given = result(*rng.standard_normal(3), activation="softmax")
        seen.append(np.exp(np.float64(given.outputs["y"])) / np.exp(np.float64(given.outputs["y"])).sum())
        expected = np.mean(seen[-4:], axis=0)
        told = smooth(given, 3)
        assert [score.index for score in told] == np.argsort(-expected).tolist()
        assert [score.score for score in told] == pytest.approx(np.sort(expected)[::-1])


def test_a_class_must_dwell() -> None:
    smooth = Smoother(dwell=3)
    best = [0, 1, 0, 1, 1, 0, 1, 2, 1, 2, 2, 2, 2]
    shown = [smooth(result(*np.eye(3)[index]), 1)[0].index for index in best]
    assert shown == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2]
    told = Smoother(dwell=3)
    told(result(1, 0, 0))
    rest = told(result(0.1, 0.7, 0.2), 2)
    assert [score.index for score in rest] == [0, 1] and rest[0].label == "a"


def test_reset_and_invalid_answers() -> None:
    smooth = Smoother(mean=10, dwell=5)
    smooth(result(1, 0, 0))
    assert smooth(result(0, 9, 0, valid=False)) == ()
    assert smooth(result(1, 0, 0))[0].score == pytest.approx(1), "what is not valid does not count"
    smooth.reset()
    told = smooth(result(0, 0, 1))
    assert told[0].index == 2 and told[0].score == 1


def test_as_text() -> None:
    both = parse_smoothing("mean=8, dwell=5")
    assert (both.mean, both.dwell) == (8, 5)
    assert (parse_smoothing("dwell=2").mean, parse_smoothing("dwell=2").dwell) == (1, 2)
    for text in ("", "8", "mean", "mean=x", "median=3", "mean=1,mean=2", "mean=-1"):
        with pytest.raises(SpecError, match="give mean=N"):
            parse_smoothing(text)
    for text in ("mean=0", "dwell=0", "mean=1000000"):
        with pytest.raises(SpecError, match="from 1 to"):
            parse_smoothing(text)

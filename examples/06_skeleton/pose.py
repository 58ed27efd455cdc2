"""A scripted pose estimator in the place of a real one: one person who waves, is lost for a while, and comes back."""

import math

import numpy as np

from edgeco.runtime.frame import Frame
from edgeco.runtime.skeleton import Skeletons


def estimate(image: np.ndarray, stamp: float) -> list[np.ndarray]:
    """What a pose estimator returns: by person (joints, 3) x, y and score, joints in 0 … 1."""
    if 1.0 <= stamp < 2.0:
        return []  # nobody is found
    joints = np.array([[0.5, y, 0.9] for y in (0.2, 0.35, 0.5, 0.65, 0.8)], np.float32)
    joints[1, 0] += 0.2 * math.sin(2 * math.pi * stamp)
    joints[4, 2] = 0.9 if int(stamp * 15) % 5 else 0.1  # a foot that is hidden now and then
    return [joints]


class Pose:
    """Made once for a run; takes every frame that the pacer does not pass over, in a thread of its own."""

    def __init__(self) -> None:
        self.skeletons = Skeletons(persons=1, joints=5, joint="hold", person="hold", patience=0.4)

    def __call__(self, frame: Frame) -> np.ndarray | None:
        return self.skeletons(estimate(frame.image, frame.stamp), frame.stamp)

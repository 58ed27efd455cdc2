"""From what a pose estimator finds to what a skeleton network takes: missing joints, missing and surplus persons.

An estimator finds some persons in each picture, in any order, and does not see some of their joints. A network takes a
fixed number of persons, each in the same place from frame to frame, and a number for every joint.

Example::

    class Pose:
        def __init__(self):
            self.estimator = load_estimator()
            self.skeletons = Skeletons(persons=2, joints=17, joint="hold", person="hold", patience=0.5)

        def __call__(self, frame):                      # edgeco run … --pre pose.py:Pose
            return self.skeletons(self.estimator(frame.image), frame.stamp)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from edgeco.errors import FrameError, SpecError

Array = np.ndarray[Any, np.dtype[np.float32]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Skeletons:
    """Keeps persons in their places, and fills in what is missing by policy.

    Args:
        persons: places that the network has. Of more persons those keep their places who were there before, then those
            seen best are taken.
        joints: joints of a person.
        channels: numbers of a joint: 3 for x, y and score, 2 for x and y.
        least: score below which a joint counts as missing, as does one that is NaN.
        joint: a missing joint is where it was last seen in this place ("hold"), in the middle of the person's other
            joints ("centre"), or 0 ("zero"). One never seen is 0. Its score is 0 in any case.
        person: a place without a person has the last one of this place ("hold") or zeros ("zero").
        patience: seconds that anything is held; then it is 0.
        nobody: where all places are empty, ``None`` so that the network is not stepped, or zeros ("zero").

    Raises:
        SpecError: a count or policy that is none.
    """

    def __init__(
        self,
        persons: int,
        joints: int,
        *,
        channels: int = 3,
        least: float = 0.3,
        joint: Literal["hold", "centre", "zero"] = "hold",
        person: Literal["hold", "zero"] = "hold",
        patience: float = 0.5,
        nobody: Literal["none", "zero"] = "none",
    ) -> None:
        if persons < 1 or joints < 1 or channels not in (2, 3) or not patience >= 0:
            raise SpecError(
                f"skeletons of {persons} persons, {joints} joints, {channels} channels, held for {patience} s: give at "
                "least 1 person and joint, 2 or 3 channels, and 0 s or more"
            )
        for name, policy, known in (
            ("joint", joint, ("hold", "centre", "zero")),
            ("person", person, ("hold", "zero")),
            ("nobody", nobody, ("none", "zero")),
        ):
            if policy not in known:
                raise SpecError(f"{name} is {policy!r}; choose {' or '.join(known)}")
        self._shape = (persons, joints, 3)
        self._channels, self._least, self._patience = channels, least, patience
        self._joint, self._person, self._nobody = joint, person, nobody
        self.reset()

    def reset(self) -> None:
        """Forget everybody."""
        self._held = np.zeros(self._shape, np.float32)
        self._seen = np.full(self._shape[:2], -math.inf)
        """When each joint was last seen."""

    def __call__(self, found: Sequence[Any], stamp: float) -> Array | None:
        """One frame.

        Args:
            found: by person (joints, 2) x and y, or (joints, 3) with a score.
            stamp: of the frame, in seconds.

        Returns:
            (channels, joints, persons) float32, or None where nobody is there and that is the policy.

        Raises:
            FrameError: a person is of another shape.
        """
        if stamp < self._seen.max():  # a clock that began anew
            self.reset()
        people = [self._person_of(person) for person in found]
        fresh: Mask = np.zeros(self._shape[:2], np.bool_)
        for place, person in self._places(people, stamp):
            seen = person[:, 2] >= self._least
            fresh[place] = seen
            self._held[place, seen] = person[seen]
        self._seen[fresh] = stamp
        somebody = fresh.any() or (self._person == "hold" and self._recent(stamp).any())
        if not somebody and self._nobody == "none":
            return None
        filled = self._filled(fresh, stamp)
        return np.ascontiguousarray(filled.transpose(2, 1, 0)[: self._channels])

    def _person_of(self, person: Any) -> Array:
        joints = np.asarray(person, np.float32)
        if joints.ndim != 2 or joints.shape[0] != self._shape[1] or joints.shape[1] not in (2, 3):
            raise FrameError(f"a person is ({self._shape[1]}, 2) or ({self._shape[1]}, 3); this one is {joints.shape}")
        if joints.shape[1] == 2:
            joints = np.concatenate([joints, np.ones_like(joints[:, :1])], axis=1)
        known: Array = joints.copy()
        known[~np.isfinite(joints).all(axis=1)] = (0, 0, -math.inf)
        return known

    def _recent(self, stamp: float) -> Mask:
        """(persons, joints) that were seen no longer ago than they are held."""
        recent: Mask = stamp - self._seen <= self._patience
        return recent

    def _places(self, people: list[Array], stamp: float) -> list[tuple[int, Array]]:
        """Who gets which place: the nearest to where somebody was, then free places by how well persons are seen."""
        known = self._recent(stamp)
        pairs = []
        for place in range(self._shape[0]):
            if known[place].any():
                middle = self._held[place, known[place], :2].mean(axis=0)
                for index, person in enumerate(people):
                    seen = person[:, 2] >= self._least
                    if seen.any():
                        pairs.append((float(np.linalg.norm(person[seen, :2].mean(axis=0) - middle)), place, index))
        chosen: dict[int, int] = {}
        for _, place, index in sorted(pairs):
            if place not in chosen and index not in chosen.values():
                chosen[place] = index
        others = [index for index in range(len(people)) if index not in chosen.values()]
        others.sort(key=lambda index: -float(people[index][:, 2].clip(0).mean()))
        free = [place for place in range(self._shape[0]) if place not in chosen]
        for place, index in zip(free, others, strict=False):
            self._seen[place] = -math.inf  # somebody else's joints are not this person's
            chosen[place] = index
        return [(place, people[index]) for place, index in chosen.items()]

    def _filled(self, fresh: Mask, stamp: float) -> Array:
        """(persons, joints, 3) with every missing joint and person filled in."""
        filled = np.zeros(self._shape, np.float32)
        filled[fresh] = self._held[fresh]
        there: Mask = np.any(fresh, axis=1)
        held: Mask = np.logical_and(self._recent(stamp), ~fresh)
        for place in range(self._shape[0]):
            if there[place] and self._joint == "centre":
                filled[place, ~fresh[place], :2] = filled[place, fresh[place], :2].mean(axis=0)
            elif self._joint == "hold" if there[place] else self._person == "hold":
                filled[place, held[place], :2] = self._held[place, held[place], :2]
        return filled

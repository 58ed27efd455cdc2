"""How skeletons of NTU RGB+D are prepared: gaps filled, the spine put at the origin, the first pose turned upright.

As in the preparation that all published skeleton networks share (Shi et al., 2019, arXiv:1805.07694). Sequences are
(T, V, 3, M), in metres; a joint or a person that is not there is all zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BASE, SPINE = 0, 1
"""Joints that are to lie above each other, on the third axis."""
RIGHT_SHOULDER, LEFT_SHOULDER = 8, 4
"""Joints that are to lie on a line with the first axis."""


class NtuNormaliser:
    """Prepares frame after frame: a stream is turned as its first frame with a person demands.

    >>> frame = np.zeros((25, 3, 2)); frame[:, :, 0] = np.arange(75).reshape(25, 3) % 7
    >>> bool(np.allclose(NtuNormaliser()(frame)[SPINE], 0))
    True
    """

    def __init__(self) -> None:
        self._turn: Array | None = None

    def reset(self) -> None:
        """Begin another stream."""
        self._turn = None

    def __call__(self, frame: Array) -> Array:
        """A frame (V, 3, M) to the same; persons that are not there stay zeros."""
        seen = (frame != 0).any(1, keepdims=True)
        moved: Array = (frame - frame[SPINE, :, :1]) * seen
        if self._turn is None:
            if not seen[:, :, 0].any():
                return moved
            self._turn = upright(moved[:, :, 0])
        turned: Array = np.einsum("ij,vjm->vim", self._turn, moved)
        return turned


def normalised(sequence: Array) -> Array:
    """A recording (T, V, 3, M) as the networks are trained on it: gaps filled, then frame by frame."""
    normalise = NtuNormaliser()
    return np.stack([normalise(frame) for frame in filled(sequence)])


def filled(sequence: Array) -> Array:
    """Empty frames at the start of each person dropped, those at the end filled by repeating what came before."""
    out = np.array(sequence, dtype=np.float64)
    for person in range(out.shape[-1]):
        track = out[..., person]
        there = (track != 0).any((1, 2))
        if not there.any():
            continue
        begun = track[int(there.argmax()) :]
        last = len(begun) - int((begun != 0).any((1, 2))[::-1].argmax())
        out[..., person] = np.resize(begun[:last], track.shape)
    return out


def upright(pose: Array) -> Array:
    """The rotation (3, 3) that puts a pose (V, 3) upright and its shoulders parallel to the first axis."""
    turn = _rotation(pose[SPINE] - pose[BASE], np.array([0.0, 0.0, 1.0]))
    shoulders = turn @ (pose[RIGHT_SHOULDER] - pose[LEFT_SHOULDER])
    return _rotation(shoulders, np.array([1.0, 0.0, 0.0])) @ turn


def _rotation(given: Array, wanted: Array) -> Array:
    """The shortest rotation of one direction into another (Rodrigues); none where either has no length."""
    axis = np.cross(given, wanted)
    sine, cosine = np.linalg.norm(axis), float(given @ wanted)
    if sine < 1e-12:
        return np.eye(3)
    x, y, z = axis / sine
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.arctan2(sine, cosine)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)

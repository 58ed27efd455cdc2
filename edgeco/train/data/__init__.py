"""Labelled recordings, read in one way by everything that learns, calibrates or evaluates.

``read_data`` opens a folder or a file; what it gives is immutable, and every verb gives another::

    data = read_data("gestures/").prepared(preprocessing, fps=15)
    train, test = data.split((0.8, 0.2), by="case", seed=1)
    print(test.counts, test.fingerprint)

Frames come from the runtime's own sources and preprocessing, so that a network learns from what it will be run on.
Nothing here needs PyTorch.
"""

from edgeco.train.data.case import Case
from edgeco.train.data.clips import Batches, Window, clip_of, windows
from edgeco.train.data.data import Data
from edgeco.train.data.reading import read_data

__all__ = ["Batches", "Case", "Data", "Window", "clip_of", "read_data", "windows"]

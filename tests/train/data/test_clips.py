"""Windows and batches: the same step gives the same batch, and a clip is what the runtime would give a network."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from edgeco.bundle.manifest import Preprocessing
from edgeco.errors import DataError
from edgeco.train.data import Batches, Case, Data, Window, clip_of, windows
from edgeco.train.data.case import Held


def data(lengths: tuple[int, ...] = (20, 30, 25), classes: tuple[int | None, ...] = (0, 0, 1)) -> Data:
    """Cases whose frame t holds (case, t)."""
    cases = []
    for i, (length, label) in enumerate(zip(lengths, classes, strict=True)):
        frames = np.stack([np.full(length, i), np.arange(length)], 1).astype(np.float32)
        cases.append(Case(f"case {i}", label, f"case {i}", None, Held(frames)))
    return Data(tuple(cases), ("a", "b"))


def test_windows() -> None:
    assert windows(data(), 10) == [Window(c, s) for c, n in ((0, 2), (1, 3), (2, 2)) for s in range(0, 10 * n, 10)]
    assert len(windows(data(), 10, every=1)) == 11 + 21 + 16
    with pytest.raises(DataError, match="case 0: 20 frames are fewer than the 21"):
        windows(data(), 21)


def test_a_clip_of_pictures_is_scaled_and_normalised() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    how = Preprocessing(size=(4, 6), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    made = clip_of(frames, how)
    assert made.shape == (3, 5, 4, 6) and made.dtype == np.float32
    np.testing.assert_allclose(made[1, 2], (frames[2, :, :, 1] / 255 - 0.5) / 0.3, atol=1e-6)


@pytest.mark.parametrize(("time_dim", "shape"), [(1, (16, 2, 3)), (2, (2, 16, 3)), (3, (2, 3, 16))])
def test_a_clip_of_arrays_has_time_where_the_network_has_it(time_dim: int, shape: tuple[int, ...]) -> None:
    assert clip_of(np.zeros((16, 2, 3)), time_dim=time_dim).shape == shape


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    make = Batches(data(), length=8, size=64, seed=5)
    clips, labels = make(3)
    again, _ = pickle.loads(pickle.dumps(make))(3)
    assert clips.shape == (64, 2, 8) and np.array_equal(clips, again)
    assert not np.array_equal(clips, make(4)[0])
    assert not np.array_equal(clips, Batches(data(), length=8, size=64, seed=6)(3)[0])
    assert np.array_equal(labels, (clips[:, 0, 0] == 2).astype(int))
    assert (np.diff(clips[:, 1]) == 1).all()  # unbroken frames
    assert 20 < labels.sum() < 44  # classes come alike, though one has twice the cases


def test_unbalanced_batches_draw_cases_alike() -> None:
    labels = np.concatenate([Batches(data(), length=8, size=100, balanced=False)(step)[1] for step in range(10)])
    assert 250 < labels.sum() < 420


def test_clips_may_begin_before_their_case() -> None:
    clips, _ = Batches(data(), length=8, size=200, early=1.0)(0)
    led = (np.diff(clips[:, 1]) == 0).sum(1)
    assert set(led) == set(range(1, 8)) and (clips[:, 1, 0] == 0).all()


def test_a_short_case_is_led_by_its_first_frame() -> None:
    clips, _ = Batches(data((3,), (0,)), length=5, size=2)(0)
    assert clips[:, 1].tolist() == [[0, 0, 0, 1, 2]] * 2


def test_augmentation_draws_from_the_step() -> None:
    make = Batches(data(), length=8, size=4, augment=lambda rng, frames: frames + np.float32(rng.normal()))
    assert np.array_equal(make(1)[0], make(1)[0]) and not np.array_equal(make(1)[0], make(2)[0])


def test_what_cannot_be_learnt_from_is_refused() -> None:
    with pytest.raises(DataError, match="case 2: it has no label"):
        Batches(data(classes=(0, 1, None)), length=8)

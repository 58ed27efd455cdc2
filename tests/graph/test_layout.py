"""Axes as factors: reshape, permute, split and merge keep time and batch visible; the step form lacks time alone."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeco.graph.layout import Factor, Layout, marked, plain

B = 1009
CLIP = marked((B, 3, 5, 4, 6), B, time_dim=2)


def test_step_form_lacks_the_time_axis() -> None:
    assert CLIP.time == CLIP.pure_time == 2
    assert CLIP.step.shape == (B, 3, 4, 6)
    assert CLIP.step.sizes() == [-1, 3, 4, 6]
    assert [CLIP.step_axis(i) for i in range(5)] == [0, 1, None, 2, 3]


def test_time_merged_into_the_batch_comes_out_again() -> None:
    merged = CLIP.permute((0, 2, 1, 3, 4)).reshape((B * 5, 3, 4, 6))
    assert merged is not None
    assert merged.time == merged.batch == 0 and merged.pure_time is None
    assert merged.step.shape == (B, 3, 4, 6)
    back = merged.reshape((B, 5, 3, 24))
    assert back is not None and back.pure_time == 1 and back.step.shape == (B, 3, 24)


def test_cutting_time_is_refused() -> None:
    assert marked((B, 3, 6), B, 2).reshape((B, 3, 2, 3)) is None
    assert marked((B, 3, 6), B, 2).reshape((B, 9, 2)) is None


def test_time_of_one_element_survives_as_an_axis_and_vanishes_in_a_merge() -> None:
    pooled = CLIP.with_axis(2, (Factor(1, "time"),)).with_size(3, 1).with_size(4, 1)
    flat = pooled.reshape((B, 3))
    assert flat is not None and flat.time is None and flat.step.shape == (B, 3)
    assert pooled.drop([4]).step.shape == (B, 3, 1)


def test_batch_may_stand_anywhere_and_hold_persons() -> None:
    layout = marked((7, B * 2, 4), B)
    assert layout.batch == 1 and layout.sizes() == [7, -1, 4]
    assert plain((2, 3)).batch is None


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(2, 6), st.data())
def test_step_of_a_reshape_is_the_reshape_of_the_step(sizes: list[int], frames: int, data: st.DataObject) -> None:
    """Taking time out and then reshaping gives the numbers that reshaping and then taking time out gives."""
    batch, at = 7, data.draw(st.integers(0, len(sizes)))
    shape = (batch, *sizes[:at], frames, *sizes[at:])
    layout = marked_exactly(shape, batch, at + 1)
    order = data.draw(st.permutations(range(len(shape))))
    moved = layout.permute(order)
    cut = data.draw(st.integers(1, len(shape)))
    flat = [*moved.shape[:cut], int(torch.tensor(moved.shape[cut:]).prod())] if cut < len(shape) else list(moved.shape)
    target = moved.reshape(flat)
    assert target is not None
    clip = torch.arange(int(torch.tensor(shape).prod())).reshape(shape)
    for step in range(frames):
        element = clip.select(at + 1, step)
        kept = [layout.step_axis(i) for i in order]
        by_step = element.permute([k for k in kept if k is not None]).reshape(target.step.shape)
        whole = clip.permute(order).reshape(flat)
        split = whole.reshape([f.size for axis in target.axes for f in (axis or (Factor(1),))])
        place = [f.role for axis in target.axes for f in (axis or (Factor(1),))].index("time")
        assert torch.equal(by_step, split.select(place, step).reshape(target.step.shape))


def marked_exactly(shape: tuple[int, ...], batch: int, time_dim: int) -> Layout:
    """Like `marked`, for a small batch: only axis 0 holds it."""
    axes = [(Factor(n),) if n > 1 else () for n in shape]
    axes[0], axes[time_dim] = (Factor(batch, "batch"),), (Factor(shape[time_dim], "time"),)
    return Layout(tuple(axes))

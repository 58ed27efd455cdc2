"""Random networks: every element of the stream equals the clip network's, both borders included."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_nets import EXAMPLES, HEADS, Op, RandomNet, clip_of, random_nets
from streaming import assert_streams, clip_answers, randomise_norms, recording, relative, windows
from torch import Tensor, nn

import edgeco


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES < 100, suppress_health_check=list(HealthCheck))
@given(random_nets())
def test_every_element_of_step_equals_clip(net: RandomNet) -> None:
    program = assert_streams(randomise_norms(net), clip_of(net), tolerance=1e-11)
    assert program.exactness in ("exact", "unpadded")


class Answering(nn.Module):
    """A random network and a head that answers once per clip."""

    def __init__(self, features: RandomNet, head: str) -> None:
        super().__init__()
        self.features, self.head = features, HEADS[head]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@settings(
    max_examples=max(EXAMPLES // 4, 1),
    deadline=None,
    derandomize=EXAMPLES < 100,
    suppress_health_check=list(HealthCheck),
)
@given(random_nets(depth=5), st.sampled_from(sorted(HEADS)))
def test_every_answer_is_the_clips_or_the_heads_to_a_window_of_the_recording(net: RandomNet, head: str) -> None:
    whole = Answering(randomise_norms(net).double().eval(), head)
    clip = clip_of(net)
    program = edgeco.convert(whole, torch.zeros(1, *clip).double())
    long = recording(2, clip[0], 5 * program.receptive_field + clip[1] + 40, *clip[2:])
    if program.exactness == "exact":
        expected = clip_answers(whole, long, clip[1])[:, :: program.stride]
    else:
        with torch.no_grad():
            elements, length = net(long), net(torch.zeros(1, *clip).double()).shape[2]
            expected = torch.stack([whole.head(window) for window in windows(elements, length)], 1)
    given = program.forward_steps(long)
    both = min(given.shape[1], expected.shape[1]) - (program.receptive_field + 20) // program.stride - 1
    assert both > 0 and relative(given[:, :both], expected[:, :both]) <= 1e-11
    assert program.exactness in ("exact", "unpadded")


def test_a_reader_that_stops_early_ends_nothing_for_one_that_goes_on() -> None:
    """x[:, :, 1:] - x[:, :, :-1], padded at the end and added to x: two readers of x, one element apart at the end."""
    ops = [
        Op("difference", [0]),
        Op("pad", [1], {"front": 0, "back": 1, "value": 0.0}),
        Op("add", [2, 0], {"cut": 0}),
    ]
    assert_streams(RandomNet(1, ops, 0), (2, 14))


def test_a_reader_that_starts_late_blanks_nothing_for_one_that_starts_early() -> None:
    """x[:, :, 1:-3] + x[:, :, 4:] + x[:, :, :-4]: the first reader has no use for frame 0, the last has."""
    ops = [
        Op("slice", [0], {"front": 1, "back": 3, "s": 1}),
        Op("add", [1, 0], {"cut": -4}),
        Op("add", [2, 0], {"cut": 0}),
    ]
    assert_streams(RandomNet(1, ops, 0), (2, 14))

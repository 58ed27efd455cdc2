"""Random networks: every element of the stream equals the clip network's, both borders included."""

import os

from hypothesis import HealthCheck, given, settings
from random_nets import Op, RandomNet, clip_of, random_nets
from streaming import assert_streams, randomise_norms

EXAMPLES = int(os.environ.get("EDGECO_EXAMPLES", "60"))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_nets())
def test_every_element_of_step_equals_clip(net: RandomNet) -> None:
    program = assert_streams(randomise_norms(net), clip_of(net), tolerance=1e-11)
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

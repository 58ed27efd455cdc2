"""Random networks: every element of the stream equals the clip network's, both borders included."""

import os

from hypothesis import HealthCheck, given, settings
from random_nets import RandomNet, clip_of, random_nets
from streaming import assert_streams, randomise_norms

EXAMPLES = int(os.environ.get("EDGECO_EXAMPLES", "40"))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_nets())
def test_every_element_of_step_equals_clip(net: RandomNet) -> None:
    program = assert_streams(randomise_norms(net), clip_of(net), tolerance=1e-11)
    assert program.exactness in ("exact", "unpadded")

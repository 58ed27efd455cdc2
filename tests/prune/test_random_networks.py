"""Networks drawn at random are pruned exactly, or refused in one sentence; never wrongly."""

from __future__ import annotations

import copy
import os

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pruned import bits, grown, shaken
from random_channel_nets import LENGTH, RandomChannels, random_channel_nets
from streaming import recording, relative

from edgeco import prune
from edgeco.errors import SpecError

EXAMPLES = int(os.environ.get("EDGECO_EXAMPLES", "12"))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="EDGECO_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(net=random_channel_nets(), share=st.sampled_from([0.9, 0.7, 0.4]), seed=st.integers(0, 9))
def test_random_networks_prune_exactly_or_not_at_all(net: RandomChannels, share: float, seed: int) -> None:
    """Held against the whole network with zeros in place of what was removed, on clips that no oracle has seen."""
    net = shaken(net.eval(), seed)
    whole, before = copy.deepcopy(net), bits(net)
    try:
        plan = prune.plan(net, torch.zeros(1, 3, LENGTH), share, importance="random", seed=seed)
    except SpecError as error:
        assert "out of reach" in str(error) or "Nothing of the network" in str(error)
        assert bits(net) == before
        return
    assert bits(net) == before and plan.data.after.macs <= share * plan.data.before.macs
    plan.apply()
    same = grown(net, whole, plan)
    clip = recording(3, 3, LENGTH, seed=seed)
    with torch.no_grad():
        assert relative(net.double()(clip), same.double()(clip)) <= 1e-12

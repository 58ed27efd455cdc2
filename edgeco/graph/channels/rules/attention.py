"""Attention: heads are rows of their own and may fall whole; their width scales the scores and stays."""

from __future__ import annotations

from edgeco.graph.channels.axes import Axis, Value
from edgeco.graph.channels.call import Call, aten
from edgeco.graph.channels.rules.pointwise import broadcast
from edgeco.graph.channels.rules.products import _batches
from edgeco.graph.channels.rules.registry import channel_rule


@channel_rule(aten.scaled_dot_product_attention)
def attention(call: Call) -> Value:
    """softmax(q k^T / sqrt(width)) v."""
    query, key, value, mask = (call.args[name] for name in ("query", "key", "value", "attn_mask"))
    if call.args.get("scale") is None:
        call.pin([query[-1], key[-1]], "attention scales its scores by the width of a head")
    call.contract(query[-1], key[-1])
    call.pin([query[-2], key[-2], value[-2]])
    batch = _batches(call, query[:-2], key[:-2])
    if mask is not None:
        broadcast(call, [(*batch, query[-2], key[-2]), mask])
    rows = broadcast(call, [batch, value[:-2]])
    # A head's answer is a mean of its values: zero where these are, whatever the scores.
    silent = [axis.fixed or given.silent for axis, given in zip(rows, value[:-2], strict=False)]
    made = [Axis(axis.labels, quiet) for axis, quiet in zip(rows, silent, strict=True)]
    return (*made, query[-2], value[-1])

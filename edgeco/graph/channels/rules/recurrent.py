"""Recurrent layers: a hidden unit is a row of every gate, a column of the next step's matrix, a number of the answer.

All layers and directions have one hidden size, so that they lose the same units.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeco.graph.channels.axes import Axis, Value, joined
from edgeco.graph.channels.call import Call, aten
from edgeco.graph.channels.labels import Array
from edgeco.graph.channels.rules.registry import channel_rule

_GATES = {aten.lstm: 4, aten.gru: 3, aten.rnn_tanh: 1, aten.rnn_relu: 1}


@channel_rule(aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
def recurrent(call: Call) -> Value | list[Value | None]:
    """LSTM, GRU and plain recurrent layers, of several layers and both directions; projections stay as they are."""
    gates = _GATES[call.node.target.overloadpacket]  # type: ignore[union-attr]
    x: Value = call.args["input"]
    directions = 2 if call.args["bidirectional"] else 1
    params: list[Value] = list(call.args["params"])
    each = len(params) // (int(call.args["num_layers"]) * directions)
    given: Any = call.args["hx"]
    initial: list[Value] = [given] if given and isinstance(given[0], Axis) else list(given)
    if each not in (2, 4):
        return call.unknown()
    hidden = initial[0][2]
    for state in initial[1:]:
        hidden = call.unite([hidden, state[2]])
    below = x[2].labels
    for start in range(0, len(params), each * directions):
        for cell in range(directions):
            _cell(call, params[start + cell * each : start + (cell + 1) * each], below, hidden.labels, gates)
        below = joined([hidden.labels] * directions)
    quiet = all(state[2].silent for state in initial)
    answer = Axis(below, quiet)
    results: list[Value | None] = [(x[0], x[1], answer)]
    return [*results, *((state[0], state[1], Axis(hidden.labels, quiet)) for state in initial)]


def _cell(call: Call, params: list[Value], below: Array, hidden: Array, gates: int) -> None:
    rows = np.concatenate([hidden] * gates)
    why = f"units of one layer fall together, in {call.where}"
    into, kept, *biases = params
    call.labels.equate(below, into[1].labels, why)
    call.labels.equate(hidden, kept[1].labels, why)
    for given in (into, kept, *biases):
        call.labels.equate(rows, given[0].labels, why)
    call.produce(frozenset().union(*(given[0].sources for given in (into, kept, *biases))))

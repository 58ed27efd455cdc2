"""The networks that have a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from edgeco.show.console import bytes_text, count_text, plain, table


def show_models(known: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what is known of each network (see `edgeco.models.catalogue.known`)."""
    numbers = ("parameters", "field", "delay", "rate", "a clip", "a step", "state")
    made = table("Networks", "name", "input", *numbers, "answers", right=tuple(range(2, 9)))
    for net in known:
        made.add_row(
            plain(net["name"], "bold"),
            "x".join(map(str, net["input"])),
            count_text(net["parameters"]),
            str(net["receptive_field"]),
            str(net["delay"]),
            str(net["rate"]),
            count_text(net["clip_macs"]),
            count_text(net["step_macs"]),
            bytes_text(net["state_bytes"]),
            net["exactness"],
        )
    console.print(made)
    console.print(
        plain(
            "Receptive field, delay and rate (steps from answer to answer) are in frames; a clip and a step cost "
            "multiply-accumulates, a step's the mean where the rate is above 1."
        )
    )

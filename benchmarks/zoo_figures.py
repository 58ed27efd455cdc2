"""Figures of every network in the zoo, counted from its step network: writes ``edgeco/models/figures.json``.

Run it after a change to a network or to how networks are converted; a slow test holds the file against the networks.
See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

import torch

from edgeco.continual.convert import convert_graph, trace_network
from edgeco.continual.program import StepProgram, exact_mode
from edgeco.export.onnx import propagate
from edgeco.export.package import history_bytes, step_macs
from edgeco.factory import carried_fields, find_factory, make_network
from edgeco.graph.cost import total_macs
from edgeco.models.catalogue import FIGURES, NETWORKS, known


def figures(name: str) -> dict[str, Any]:
    """What ``edgeco models`` says of one network."""
    factory = find_factory(name)
    fields = carried_fields(factory)
    net = make_network(factory, {}).eval()
    time_dim, exact = fields.get("time_dim", 2), fields.get("exact", False)
    clip = trace_network(net, torch.zeros(1, *fields["clip"]), time_dim)
    step = convert_graph(clip, exact=exact_mode(exact))
    propagate(step.module, step)
    for phase in step.phases:
        propagate(phase.module, step)
    program = StepProgram(net, step)
    return {
        "name": name,
        "factory": NETWORKS[name],
        "input": list(fields["clip"]),
        "time_dim": time_dim,
        "fps": fields.get("fps"),
        "parameters": sum(p.numel() for p in net.parameters()),
        "receptive_field": program.receptive_field,
        "delay": program.delay,
        "valid_from": program.valid_from,
        "rate": program.stride,
        "exactness": program.exactness,
        "exact": exact,
        "clip_macs": total_macs(step.clip.graph, step.clip.batch),
        "step_macs": step_macs(step),
        "state_bytes": sum(map(history_bytes, step.histories)),
    }


def main() -> None:
    """Count, and write what was counted beside what was known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks to count; all if none is named")
    names = parser.parse_args().names or list(NETWORKS)
    logging.disable(logging.WARNING)
    found = {entry["name"]: entry for entry in known()} if FIGURES.exists() else {}
    for name in names:
        found[name] = figures(name)
        print(json.dumps(found[name]), flush=True)
        kept = [found[name] for name in NETWORKS if name in found]
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

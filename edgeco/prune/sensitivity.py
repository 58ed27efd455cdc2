"""How much accuracy each group costs, pruned alone by some shares: curves, kept from run to run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from torch import nn

from edgeco.files import replace_file
from edgeco.prune.cuts import cut_network
from edgeco.prune.importance import Evidence, scored
from edgeco.prune.norms import recalibrate
from edgeco.prune.planning import Planner

SHARES = (0.25, 0.5, 0.75)


def sensitivity(
    planner: Planner,
    score: Callable[[nn.Module], float],
    *,
    shares: Sequence[float] = SHARES,
    cache: Path | None = None,
    key: str = "",
    say: Callable[[str], None] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, dict[str, float]]:
    """Scores of the network with one group pruned by each share, its least important units gone, norms recalibrated.

    Args:
        planner: of the network; its families are found first.
        score: greater is better; called on copies.
        shares: of a group's units that go.
        cache: a JSON file that is read first and written after every group, so that a run may be cut short.
        key: what the scores depend on besides network and group (the data's fingerprint): of another key nothing is
            taken from the cache.
        stop: asked between groups.

    Returns:
        For every group, the score by the share that went, as text ("0.25").
    """
    found = _read(cache, key)
    planner.find()
    families = planner.free()
    scores = scored(planner.options.importance, families, planner.evidence)
    for family, own in zip(families, scores, strict=True):
        if family.name in found or stop():
            continue
        say(f"sensitivity of {family.name}")
        order = np.argsort(own, kind="stable")
        curve = {}
        for share in shares:
            count = min(round(share * family.units), family.units - 1)
            if count:
                curve[f"{share:g}"] = score(_without(planner, planner.evidence, family.name, np.sort(order[:count])))
        found[family.name] = curve
        if cache is not None:
            with replace_file(cache) as file:
                file.write(msgspec.json.encode({"key": key, "curves": found}))
    return found


def _without(planner: Planner, evidence: Evidence, name: str, units: np.ndarray[Any, Any]) -> nn.Module:
    net = copy.deepcopy(planner.net)
    cut_network(net, *planner.surgery({name: units}))
    recalibrate(net, evidence.batches)
    return net


def _read(cache: Path | None, key: str) -> dict[str, dict[str, float]]:
    if cache is None or not cache.exists():
        return {}
    try:
        kept = msgspec.json.decode(cache.read_bytes(), type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}
    return dict(kept.get("curves", {})) if kept.get("key") == key else {}

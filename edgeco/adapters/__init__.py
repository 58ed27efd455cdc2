"""[build side] Fusible adapters and task packs: what a task adds to a shared base network."""

from edgeco.adapters.attach import adapted_weights, attach, detach, fuse, merge, unmerge
from edgeco.adapters.delta import Delta, Direct, LowRank
from edgeco.adapters.naming import base_state
from edgeco.adapters.spec import AdapterSpec, Kind
from edgeco.adapters.task import Learned, Task

__all__ = [
    "AdapterSpec",
    "Delta",
    "Direct",
    "Kind",
    "Learned",
    "LowRank",
    "Task",
    "adapted_weights",
    "attach",
    "base_state",
    "detach",
    "fuse",
    "merge",
    "unmerge",
]

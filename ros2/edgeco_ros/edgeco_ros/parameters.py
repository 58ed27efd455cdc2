"""The node's parameters: name, default, and what they mean. They are read when the node is configured."""

from __future__ import annotations

from typing import Any

PARAMETERS: tuple[tuple[str, Any, str], ...] = (
    ("bundle", "", "path of the .edgeco file; must be given"),
    ("input", "image", "what is subscribed: image, compressed or array (std_msgs/Float32MultiArray)"),
    ("engine", "auto", "engine, as of edgeco run --engine"),
    ("threads", 0, "processor threads; 0 chooses"),
    ("variant", "", "variant of the bundle; empty chooses"),
    ("fps", -1.0, "frames per second the network was trained at; 0 steps with every frame, below 0 as the bundle says"),
    ("gap", "skip", "what a gap does: skip, repeat or reset"),
    ("gap_threshold", -1.0, "seconds; a longer gap resets the state; below 0 as the policy says"),
    ("pre", "", "module:callable that makes the network's input of a frame; empty as the bundle says"),
    ("top", 5, "classes that an answer names"),
    ("class_ids", "labels", "what class_id holds: labels or indices"),
    ("warm_only", False, "whether answers wait until the network has seen a whole receptive field"),
    ("diagnostics_period", 1.0, "seconds between two diagnostics; 0 publishes none"),
    ("autostart", False, "whether the node configures and activates itself"),
)

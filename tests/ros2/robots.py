"""A robot: a node of the fake ROS 2, a camera that publishes, and ears on what the node says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_ros
from fake_ros import CLASSES, GRAPH

from edgeco.runtime.sources import open_source

ROOT = Path(__file__).resolve().parents[2]
NETWORK = ROOT / "edgeco" / "models" / "bundles" / "camera-motion.edgeco"
PICTURES = [frame.image for frame in open_source("pattern://motion?size=64x48&script=pan-left:20,zoom-in:30")]
PERIOD = 80_000_000
"""Nanoseconds between two pictures, as the shipped network has it."""


class Robot:
    """A node, a camera that publishes, and ears on what the node says."""

    def __init__(self, module: ModuleType, **parameters: Any) -> None:
        given = {"bundle": str(NETWORK), "threads": 1, **parameters}
        overrides = [fake_ros.Parameter(name, value) for name, value in given.items()]
        self.node = module.Classifier(namespace="robot", parameter_overrides=overrides)
        self.heard: dict[str, list[Any]] = {}
        self.ears = fake_ros.Node("ears")
        for kind, topic in (
            ("vision_msgs/Classification", "/robot/edgeco_classifier/classification"),
            ("diagnostic_msgs/DiagnosticArray", "/diagnostics"),
        ):
            self.heard[topic.rsplit("/", 1)[1]] = []
            self.ears.create_subscription(CLASSES[kind], topic, self.heard[topic.rsplit("/", 1)[1]].append, 10)
        self.sent = 0

    @property
    def answers(self) -> list[Any]:
        return self.heard["classification"]

    def handled(self) -> int:
        status = self.node._worker.status()
        return int(status.stepped + sum(count for cause, count in status.drops.items() if cause != "undelivered"))

    def send(self, message: Any, topic: str = "~/image", qos: Any = None, wait: bool = True) -> None:
        """Publish, as a camera does, and wait until the network is done with it."""
        before = self.handled()
        name = topic.replace("~", self.node.get_fully_qualified_name())
        reached = GRAPH.publish(name, message, qos or fake_ros.SENSOR_DATA)
        self.sent += reached
        if wait and reached:
            self.until(lambda: self.handled() > before)

    def film(self, numbers: range, begin: int = 10**18) -> None:
        for number in numbers:
            self.send(picture(number, begin + number * PERIOD))

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.001)


def picture(number: int, stamp: int) -> Any:
    image = PICTURES[number % len(PICTURES)]
    sec, nanosec = divmod(stamp, 10**9)
    header = CLASSES["std_msgs/Header"](
        stamp=CLASSES["builtin_interfaces/Time"](sec=sec, nanosec=nanosec), frame_id="camera_optical"
    )
    height, width = image.shape[:2]
    return CLASSES["sensor_msgs/Image"](
        header=header, height=height, width=width, encoding="bgr8", step=3 * width, data=image.tobytes()
    )

"""A network as a node of ROS 2, apart from ROS 2 itself.

Nothing here imports rclpy: messages are whatever has their fields, and what is published is made of message classes
that the caller gives. The node itself is the ament_python package in ``ros2/edgeco_ros`` of the repository.
"""

from __future__ import annotations

from edgeco.runtime.ros2.arrays import decode_array
from edgeco.runtime.ros2.images import decode_compressed, decode_image
from edgeco.runtime.ros2.messages import classification, diagnostics, vision_info
from edgeco.runtime.ros2.worker import Answer, Worker, WorkerStatus

__all__ = [
    "Answer",
    "Worker",
    "WorkerStatus",
    "classification",
    "decode_array",
    "decode_compressed",
    "decode_image",
    "diagnostics",
    "vision_info",
]

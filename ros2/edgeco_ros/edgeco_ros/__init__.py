"""The node of ROS 2 around ``edgeco.runtime.ros2``."""

"""The classifier on a camera's topic: ros2 launch edgeco_ros classifier.launch.py bundle:=net.edgeco image:=/camera"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description():
    config = os.path.join(get_package_share_directory("edgeco_ros"), "config", "classifier.yaml")
    arguments = {
        "bundle": (None, "path of the .edgeco file"),
        "image": ("/camera/image_raw", "topic of the images"),
        "input": ("image", "image, compressed or array"),
        "name": ("classifier", "name of the node"),
        "namespace": ("", "namespace of the node"),
        "params": (config, "file of parameters"),
        "use_sim_time": ("false", "whether time comes from /clock, as with bags and simulators"),
        "autostart": ("true", "false where a lifecycle manager configures and activates"),
    }
    given = {name: LaunchConfiguration(name) for name in arguments}
    node = LifecycleNode(
        package="edgeco_ros",
        executable="classifier",
        name=given["name"],
        namespace=given["namespace"],
        output="screen",
        parameters=[
            given["params"],
            {
                "bundle": ParameterValue(given["bundle"], value_type=str),
                "input": ParameterValue(given["input"], value_type=str),
                "use_sim_time": ParameterValue(given["use_sim_time"], value_type=bool),
                "autostart": ParameterValue(given["autostart"], value_type=bool),
            },
        ],
        remappings=[
            ("~/image", given["image"]),
            ("~/image/compressed", [given["image"], "/compressed"]),
            ("~/array", given["image"]),
        ],
    )
    declared = [
        DeclareLaunchArgument(name, description=text, **({} if default is None else {"default_value": default}))
        for name, (default, text) in arguments.items()
    ]
    return LaunchDescription([*declared, node])

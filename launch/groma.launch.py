"""Starts groma_node: `ros2 launch groma_ros groma.launch.py image:=/camera/color/image_raw goals:="['the red
mug']"`.

For a machine with a ROS 2 distribution: launch and launch_ros are not among the wheels that `make setup`
installs. `ros2 launch groma_ros groma.launch.py --show-args` lists the arguments; every parameter of the node
is one.
"""

import json
from dataclasses import fields
from typing import Any, List  # noqa: UP035  launch knows a list of texts by this name only

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from groma_ros.node.parameters import Parameters

# Argument: the node's relative name that it remaps, what is said of it.
TOPICS = {
    "image": ("image", "Topic of the raw camera image, sensor_msgs/Image."),
    "depth": ("depth", "Topic of the depth image that is registered to the camera image, for 3D boxes."),
    "camera_info": ("camera_info", "Topic of the camera's CameraInfo, for 3D boxes."),
    "image_compressed": (
        "image/compressed",
        "Topic of the camera's CompressedImage, read where image_transport is compressed.",
    ),
}
PARAMETERS = {item.name: (item.default, item.metadata["description"]) for item in fields(Parameters)} | {
    "use_sim_time": (False, "Take the time from /clock, as bags and simulators publish it.")
}


def default_text(value: Any) -> str:
    """A parameter's default as one types it; a list that is empty holds one empty text, since ROS cannot tell
    its type."""
    return (
        value if isinstance(value, str) else json.dumps(value or [""] if isinstance(value, tuple) else value)
    )


def parameter_value(name: str) -> ParameterValue:
    """The argument's text as a parameter of the type of its default."""
    default = PARAMETERS[name][0]
    kind = List[str] if isinstance(default, tuple) else type(default)  # noqa: UP006
    return ParameterValue(LaunchConfiguration(name), value_type=kind)


def generate_launch_description() -> LaunchDescription:
    texts = {
        "name": ("groma", "Name of the node, which its private topics begin with."),
        "namespace": ("", "Namespace of the node."),
    }
    texts |= TOPICS | {
        name: (default_text(default), description) for name, (default, description) in PARAMETERS.items()
    }
    node = Node(
        package="groma_ros",
        executable="groma_node",
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        remappings=[(topic, LaunchConfiguration(name)) for name, (topic, _) in TOPICS.items()],
        parameters=[{name: parameter_value(name) for name in PARAMETERS}],
        output="screen",
    )
    return LaunchDescription(
        [*(DeclareLaunchArgument(n, default_value=d, description=t) for n, (d, t) in texts.items()), node]
    )

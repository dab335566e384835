"""Starts groma_node: `ros2 launch groma_ros groma.launch.py image:=/camera/color/image_raw goals:="['the red mug']"`.

For a machine with a ROS 2 distribution: launch and launch_ros are not among the wheels that `make setup` installs.
`ros2 launch groma_ros groma.launch.py --show-args` lists the arguments.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# Topics of the camera, remapped from the node's relative names.
TOPICS = {
    "image": ("image", "Topic of the raw camera image, sensor_msgs/Image."),
    "image/compressed": ("image/compressed", "Topic of the compressed image, read where image_transport is compressed."),
}
# Parameters of the node: default, type, description.
PARAMETERS = {
    "model": ("", str, "Folder of the model bundle; empty takes the groma-tiny that ships."),
    "goals": ("['']", list[str], "Goals that stand at the start, as a YAML list; ~/goal replaces them."),
    "image_transport": ("raw", str, "Which camera topic is read: raw or compressed."),
    "min_presence": ("0.5", float, "Goals less likely than this to be in the image are reported absent."),
    "min_score": ("0.0", float, "Boxes with a lower score are not returned."),
    "debug_image": ("true", bool, "Draw ~/debug/image while somebody listens to it."),
    "use_sim_time": ("false", bool, "Take the time from /clock, for bags and simulators."),
}


def argument_name(topic: str) -> str:
    return topic.replace("/", "_")


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("name", default_value="groma", description="Name of the node, before its private topics."),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
        *(DeclareLaunchArgument(argument_name(t), default_value=d, description=text) for t, (d, text) in TOPICS.items()),
        *(DeclareLaunchArgument(p, default_value=d, description=text) for p, (d, _, text) in PARAMETERS.items()),
    ]
    node = Node(
        package="groma_ros",
        executable="groma_node",
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        remappings=[(topic, LaunchConfiguration(argument_name(topic))) for topic in TOPICS],
        parameters=[{p: ParameterValue(LaunchConfiguration(p), value_type=kind) for p, (_, kind, _) in PARAMETERS.items()}],
        output="screen",
    )
    return LaunchDescription([*arguments, node])

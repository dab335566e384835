"""Starts groma_node: `ros2 launch groma_ros groma.launch.py camera:=realsense goals:="the red mug"`.

`ros2 launch groma_ros groma.launch.py --show-args` lists the arguments; every parameter of the node is one.
Only arguments that are given are handed on, so a parent's use_sim_time, parameters and remappings stay. Needs
launch, launch_ros and PyYAML only.
"""

from pathlib import Path
from typing import Any, List  # noqa: UP035  launch knows a list of texts by this name only

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(__file__).resolve().parents[1] / "config"
TOPICS = {
    "image": "Topic of the camera image; its compressed topic and camera_info lie beside it.",
    "depth": "Topic of the depth image that is registered to the camera image, for 3D boxes.",
    "camera_info": "Topic of the camera's CameraInfo, for 3D boxes; by default the one beside the image.",
}
OPTIONS = {
    "camera": "Topics of a camera's driver: realsense, zed, oak, orbbec, usb_cam, or a YAML file like "
    "those in config/cameras, which may also name several cameras.",
    "camera_namespace": "Namespace of the camera's driver, where it is not the one in the camera's file.",
    "name": "Name of the node, which its private topics begin with.",
    "namespace": "Namespace of the node.",
    "params_file": "YAML file of parameters; arguments that are given override it.",
    "log_level": "Least severity that is logged: debug, info, warn, error or fatal.",
}
TYPES = {"bool": bool, "int": int, "double": float, "string": str, "string_array": List[str]}  # noqa: UP006
USE_SIM_TIME = {
    "type": "bool",
    "description": "Take the time from /clock, as bags and simulators publish it.",
}


def parameters() -> dict[str, dict[str, Any]]:
    """The node's parameters and use_sim_time, each with its type and description."""
    declared = yaml.safe_load((CONFIG / "parameters.yaml").read_text())["groma"]
    return {**declared, "use_sim_time": USE_SIM_TIME}


def parsed(name: str, kind: str, text: str) -> Any:
    """Convert an argument's text to a parameter's value; a text that is not a YAML list is one goal or
    camera."""
    if kind == "string":
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if kind == "string_array":
        entries = value if isinstance(value, list) and text.lstrip().startswith("[") else [text]
        return [str(entry) for entry in entries] or [""]
    if kind == "double" and type(value) is int:
        value = float(value)
    if type(value) is not TYPES[kind]:
        try:
            return (
                float(text) if kind == "double" else TYPES["int"](text) if kind == "int" else _boolean(text)
            )
        except ValueError:
            raise ValueError(f"The argument {name}:={text} is no {kind}.") from None
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def read_camera(given: str) -> dict[str, Any]:
    """The content of a camera's file, from config/cameras or from a path."""
    shipped = CONFIG / "cameras" / f"{given}.yaml"
    path = shipped if shipped.is_file() else Path(given).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (CONFIG / "cameras").glob("*.yaml")))
        raise ValueError(f"camera:={given} is neither a file nor one of {known}.")
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no mapping of image, depth and camera_info to topics.")
    return content


def camera_setup(
    content: dict[str, Any],
    namespace: str = "",
    prefix: str = "",
) -> tuple[dict[str, str], dict[str, Any]]:
    """Remappings and parameters of a camera's file.

    namespace: in place of the file's; prefix: of the node's own topics, left/ for a camera named left.
    """
    remappings: dict[str, str] = {}
    settings = dict(content.get("parameters", {}))
    for name, camera in content.get("cameras", {}).items():
        merged = {**read_camera(camera["driver"]), **camera} if "driver" in camera else camera
        topics, own = camera_setup(merged, camera.get("namespace", ""), f"{name}/")
        remappings.update(topics)
        settings.update(own)
    if "cameras" in content:
        settings["cameras"] = list(content["cameras"])
    base = namespace or content.get("namespace", "")
    for topic in TOPICS:
        if topic in content:
            name = str(content[topic])
            remappings[prefix + topic] = (
                name if name.startswith("/") or not base else f"{base.rstrip('/')}/{name}"
            )
    return remappings, settings


def set_up(context: LaunchContext) -> list[Node]:
    """The node, with what was given."""
    given = {name: value for name, value in context.launch_configurations.items() if value != ""}
    declared = parameters()
    remappings: dict[str, str] = {}
    values: dict[str, Any] = {}
    if "camera" in given:
        remappings, values = camera_setup(read_camera(given["camera"]), given.get("camera_namespace", ""))
    remappings.update({topic: given[topic] for topic in TOPICS if topic in given})
    for name, item in declared.items():
        if name in given:
            values[name] = parsed(name, item["type"], given[name])
    # Several cameras have topics of their own: left/image:=/left/image_raw on the command line.
    remappings.update({name: value for name, value in given.items() if name.rpartition("/")[2] in TOPICS})
    for name in values:
        if name not in declared:
            raise ValueError(f"The camera's file sets {name}, which is no parameter of the node.")
    typed = {
        name: ParameterValue(value, value_type=TYPES[declared[name]["type"]])
        for name, value in values.items()
    }
    files = [given["params_file"]] if "params_file" in given else []
    node = Node(
        package="groma_ros",
        executable="groma_node",
        name=LaunchConfiguration("name"),
        namespace=given.get("namespace"),
        remappings=list(remappings.items()),
        parameters=[*files, *([typed] if typed else [])],
        arguments=["--ros-args", "--log-level", given["log_level"]] if "log_level" in given else None,
        output="screen",
    )
    return [node]


def generate_launch_description() -> LaunchDescription:
    """The arguments and the node. An argument that is empty counts as not given."""
    described = {**TOPICS, **OPTIONS, **{name: item["description"] for name, item in parameters().items()}}
    arguments = [
        DeclareLaunchArgument(name, default_value="groma" if name == "name" else "", description=text)
        for name, text in described.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=set_up)])

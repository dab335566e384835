"""Starts groma_node: `ros2 launch groma_ros groma.launch.py camera:=realsense goals:="the red mug"`.

`ros2 launch groma_ros groma.launch.py --show-args` lists the arguments; every parameter of the node is one.
Only arguments that are given are handed on, so a parent's use_sim_time, parameters and remappings stay. Needs
launch, launch_ros and PyYAML only.
"""

import json
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


CAMERA_KEYS = (*TOPICS, "namespace", "driver", "parameters", "cameras")
LEVELS = ("unset", "debug", "info", "warn", "error", "fatal")


def read_camera(given: str) -> dict[str, Any]:
    """The content of a camera's file, from config/cameras or from a path."""
    shipped = CONFIG / "cameras" / f"{given}.yaml"
    path = shipped if shipped.is_file() else Path(given).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (CONFIG / "cameras").glob("*.yaml")))
        raise ValueError(f"camera:={given} is neither a file nor one of {known}.")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {' '.join(str(error).split())}.") from None
    check_camera(content, str(path))
    return {key: value for key, value in content.items() if value is not None}


def check_camera(content: Any, where: str) -> None:
    """Raise ValueError, with a sentence, for a camera's content that is not understood."""
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds no mapping of image, depth and camera_info to topics.")
    for key, value in content.items():
        if key not in CAMERA_KEYS:
            raise ValueError(f"{where} has the key {key}, which is none of {', '.join(CAMERA_KEYS)}.")
        wanted, name = (dict, "mapping") if key in ("parameters", "cameras") else (str, "text")
        if value is not None and not isinstance(value, wanted):
            raise ValueError(f"{where} has under {key} no {name} but {value!r}.")
    for name, camera in (content.get("cameras") or {}).items():
        check_camera(camera, f"{where}, camera {name},")


def with_driver(camera: dict[str, Any]) -> dict[str, Any]:
    """A camera's content on top of that of its driver. An image of its own has its own camera_info."""
    own = {key: value for key, value in camera.items() if value is not None}
    if "driver" not in own:
        return own
    base = read_camera(own["driver"])
    if "image" in own:
        base.pop("camera_info", None)
    return {**base, **own}


def camera_setup(
    content: dict[str, Any],
    namespace: str = "",
    prefix: str = "",
) -> tuple[dict[str, str], dict[str, Any]]:
    """Remappings and parameters of a camera's file.

    namespace: in place of the file's; prefix: of the node's own topics, left/ for a camera named left.
    """
    remappings: dict[str, str] = {}
    settings = dict(content.get("parameters") or {})
    for name, camera in content.get("cameras", {}).items():
        topics, own = camera_setup(with_driver(camera), camera.get("namespace") or "", f"{name}/")
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


def file_value(name: str, value: Any, declared: dict[str, dict[str, Any]]) -> Any:
    """A parameter's value from a camera's file, read as an argument would be: 1 is a number for a double, []
    an empty list, true a text where one is wanted."""
    if name not in declared:
        raise ValueError(f"The camera's file sets {name}, which is no parameter of the node.")
    text = value if isinstance(value, str) else json.dumps(value)
    return parsed(name, declared[name]["type"], text)


def parameter_file(given: str) -> str:
    """The path of a file of parameters; launch only warns of one that is not there. Raises ValueError."""
    path = Path(given).expanduser()
    if not path.is_file():
        raise ValueError(f"params_file:={given} is no file.")
    return str(path)


def check_level(given: str) -> None:
    """Raise ValueError for a log level that ROS does not know; it may follow a logger's name and :=."""
    level = given.rpartition(":=")[2]
    if level.lower() not in LEVELS:
        raise ValueError(f"log_level:={given} is none of {', '.join(LEVELS[1:])}.")


def set_up(context: LaunchContext) -> list[Node]:
    """The node, with what was given."""
    given = {name: value for name, value in context.launch_configurations.items() if value != ""}
    declared = parameters()
    remappings: dict[str, str] = {}
    values: dict[str, Any] = {}
    if "camera" in given:
        content = with_driver(read_camera(given["camera"]))
        if "image" in given:  # its camera_info is the one beside it, not the driver's
            content.pop("camera_info", None)
        remappings, settings = camera_setup(content, given.get("camera_namespace", ""))
        values = {name: file_value(name, value, declared) for name, value in settings.items()}
    remappings.update({topic: given[topic] for topic in TOPICS if topic in given})
    for name, item in declared.items():
        if name in given:
            values[name] = parsed(name, item["type"], given[name])
    # Several cameras have topics of their own: left/image:=/left/image_raw on the command line.
    remappings.update({name: value for name, value in given.items() if name.rpartition("/")[2] in TOPICS})
    typed = {
        name: ParameterValue(value, value_type=TYPES[declared[name]["type"]])
        for name, value in values.items()
    }
    files = [parameter_file(given["params_file"])] if "params_file" in given else []
    check_level(given.get("log_level", "info"))
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
